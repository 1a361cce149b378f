"""The training engine, in rooms in the order of a step; it knows no method, no page and no run store."""
