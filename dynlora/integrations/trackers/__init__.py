"""Trackers that people use already: a run is written to TensorBoard, Trackio, MLflow, Weights & Biases or Aim."""
