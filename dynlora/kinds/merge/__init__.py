"""Merging: several finished adapters of one base model, of any ranks, become one adapter, without training."""
