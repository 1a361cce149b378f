"""Language models against PEFT and TRL: equal losses, seconds a step, tokens a second, memory of the loss.

python -m benchmarks.language_model [--only parity,trl,steps,tokens,memory] [--quick]

- `parity`: losses of 20 steps of `lora` and of PEFT's LoRA with the same A, batches, masks and optimizer, in fp32;
- `trl`: labels that TRL's SFTTrainer makes of the same rows, and the loss it trains on, on a tiny random model;
- `steps`: seconds of a step on sequences of 128 tokens, `lora` and `dynamic` as a run takes them (recorded), PEFT's
  LoRA with the loss that transformers computes, and PEFT's LoRA with our loss in pieces; blocks in turn;
- `tokens`: tokens a second on `arithmetic`, against TRL's SFTTrainer with PEFT's LoRA at its defaults (which checkpoint
  gradients) and tuned (no checkpointing, bf16 where the machine multiplies it, batches of like length);
- `memory`: peak memory of the loss of 1,024 tokens over 49,152 words and its gradient, whole and in pieces.

TRL is no dependency: `pip install trl`, or its sections are left out, and that is said.
"""
