"""Which ranks a run ended with, what shows that its modules use them, and the LoraConfig that trains them again."""
