"""The figures of a training, in the order of its pages."""
