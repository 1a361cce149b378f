"""dynlora in the loops of others: what trains with PEFT and transformers' Trainer is recorded as a run."""
