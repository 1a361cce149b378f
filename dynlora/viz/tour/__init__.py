"""Rank, importance and gates in six stops."""
