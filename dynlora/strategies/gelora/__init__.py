"""GeLoRA: ranks from the intrinsic dimension of hidden states."""
