"""A method and a figure for dynlora."""
