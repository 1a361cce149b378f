"""XGBLoRA: rank-one boosters, one after the other."""
