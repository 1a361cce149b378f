"""LoRA Ensemble: members that disagree on what is unlike the data."""
