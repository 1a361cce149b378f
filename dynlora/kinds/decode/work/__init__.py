"""Reward-Guided Speculative Decoding: a draft writes steps, a reward judges them, a target rewrites poor ones."""
