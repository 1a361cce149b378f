"""A training: adapters learn from data while their capacity moves."""
