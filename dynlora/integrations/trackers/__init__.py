"""Trackers that people use already: a run is written to TensorBoard, Trackio, MLflow, Weights & Biases or Aim.

A run with `log.to` has a second process, `dynlora track` (`jobs/trackers.py` starts and watches it). It reads the run
store as a page does and writes to each tracker in a thread of its own (`follow.py`). So no tracker's library, thread or
signal handler is in the process that trains, and a server that does not answer costs no step. `feed.py` gives a step
when a later one is recorded, because an evaluation comes after the step it belongs to. A tracker says which step it
holds; Weights & Biases cannot while it is offline, and for it the step in `trackers.json` counts.
"""
