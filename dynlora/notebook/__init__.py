"""Runs in a notebook: the figures of the pages, cards of runs, and several runs side by side."""
