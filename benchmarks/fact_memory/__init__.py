"""Fact memory: how many random facts an adapter of few parameters keeps, and whether it matters where its rank is."""
