"""The figures of a merge, in the order of the page."""
