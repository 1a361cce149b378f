"""What each method is."""
