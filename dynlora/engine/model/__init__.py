"""The adapted model: base model, adapted modules, low-rank layers, gates.

`lowrank_function.py` computes an adapted module as one node of the graph where it knows the base module's product
(`nn.Linear`, `Conv1D`, no hooks, frozen). Anything else gets the same formula in plain operations; tests hold the two
equal. A method whose update has another form subclasses `lora_linear.py` and overrides small hooks; tensors registered
on it are trained and saved by themselves. Under bf16 each adapter keeps a copy of its frozen weight, which is made
again when the weight changes and is in no checkpoint.
"""
