"""A meta-LoRA on a new task: a few examples per class, and predictions at once, without training."""
