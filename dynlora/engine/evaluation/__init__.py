"""How good a model is: evaluation, predictions, explanations, module ablations, export."""
