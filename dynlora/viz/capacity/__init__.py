"""Where rank and importance sit, step by step."""
