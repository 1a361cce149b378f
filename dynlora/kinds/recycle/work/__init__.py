"""LoRA Recycle: a meta-LoRA for few-shot tasks, distilled from finished runs without their data."""
