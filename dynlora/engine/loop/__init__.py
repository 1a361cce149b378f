"""The training loop and what it needs: optimizer, schedule, checkpoints, signals of a step."""
