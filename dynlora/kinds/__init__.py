"""Kinds of run beside training: their settings and what can be refused without torch; one file each."""
