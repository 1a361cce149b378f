"""One run: training curves and results."""
