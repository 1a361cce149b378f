"""LoRA Recycle on intents: what finished adapters give to intents that nobody trained, without their data."""
