"""The figures of a distillation, in the order of the page."""
