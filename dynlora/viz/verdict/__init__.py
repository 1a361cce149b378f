"""The result of a comparison: which configuration to use, how sure that is, and what to run next."""
