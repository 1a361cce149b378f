"""BeamLoRA: weak components make way for copies of strong ones."""
