"""Tests of `dynlora.attach`."""
