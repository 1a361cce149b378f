"""A run from config to finished folder: build, train, checkpoint, stop."""
