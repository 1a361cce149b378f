"""Runs that other programs recorded: read from files of TensorBoard, Trackio and MLflow, kept as runs to compare."""
