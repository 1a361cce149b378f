"""What a model predicts for a text, and why."""
