"""A method, a figure and a kind of run for dynlora."""
