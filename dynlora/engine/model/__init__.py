"""The adapted model: base model, adapted modules, low-rank layers, gates."""
