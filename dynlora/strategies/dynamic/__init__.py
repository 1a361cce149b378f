"""Dynamic LoRA: rank follows importance while training, gates react to the input."""
