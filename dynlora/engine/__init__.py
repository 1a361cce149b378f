"""The training engine, in rooms in the order of a step; it knows no method, no page and no run store.

Batch, dropout masks and learning rate are functions of (seed, step). So a resume needs no saved generator to be equal
to the bit, and a strategy cannot shift another's draws. Only steps that move capacity read a number off the device.

A strategy refuses what contradicts the run in `check` and `check_model`, before the run has a folder. It reads examples
in `ranks` (plain model) and `begin` (adapted model), from a stream of their own, so that a start does not depend on how
training batches; a resume or a load never reads them again. Modules may share a tensor: it is one in the optimizer, in
the count of parameters and in a checkpoint.
"""
