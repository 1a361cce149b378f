"""How small a finished adapter may be, and where it must stay large."""
