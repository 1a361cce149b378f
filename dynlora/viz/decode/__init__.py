"""A decode: who wrote each step, what the reward said, and what that saved."""
