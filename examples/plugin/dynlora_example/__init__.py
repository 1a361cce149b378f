"""A method, a task, a figure and a kind of run for dynlora."""
