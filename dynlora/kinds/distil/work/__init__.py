"""Data-free distillation: runs that write texts teach one LoRA by texts of their own. It is not LoRA Recycle."""
