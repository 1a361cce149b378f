"""Ranks and modules that a short look at gradients suggests before training."""
