"""What held-out examples lose without each module."""
