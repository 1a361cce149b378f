"""LoRA-SP: half of the adapter stays frozen."""
