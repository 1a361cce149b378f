"""A kind of run: the updates that two runs learned, compared module by module."""
