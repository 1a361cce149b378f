"""The form that starts a recycle or a distillation of finished runs."""
