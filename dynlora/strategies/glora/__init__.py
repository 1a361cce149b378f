"""GLoRA: a path per module, searched after training."""
