"""Tests of what fits dynlora into the loops of others."""
