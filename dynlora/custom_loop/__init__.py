"""A strategy in a training loop of one's own: attached, saved, loaded and exported."""
