"""The figures of a recycle, in the order of the page."""
