"""Labelled text, from a table to batches of tokens."""
