"""Merging adapters: module by module, then measured on the held-out data of each."""
