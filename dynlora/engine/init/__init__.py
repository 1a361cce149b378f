"""Where A and B start: random draws, or directions read off weights, inputs or gradients."""
