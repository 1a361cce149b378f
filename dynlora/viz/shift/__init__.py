"""What happens when inputs shift."""
