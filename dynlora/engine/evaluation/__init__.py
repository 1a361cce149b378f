"""What a model is worth: evaluation, metrics, predictions, knock-outs, export."""
