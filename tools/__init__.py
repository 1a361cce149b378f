"""Checks of the project itself that are neither tests nor benchmarks."""
