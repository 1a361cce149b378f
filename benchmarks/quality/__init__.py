"""Quality at equal budget: methods against each other on shared seeds, batches and held-out rows."""
