"""Which inputs open which gates."""
