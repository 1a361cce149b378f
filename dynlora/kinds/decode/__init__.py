"""A decode: texts that a draft and a target write together, and a reward decides who."""
