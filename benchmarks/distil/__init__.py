"""Data-free distillation on two tasks: what one student has of two teachers, without their data."""
