"""AdaLoRA: triplets P Λ Q, pruned to a falling budget."""
