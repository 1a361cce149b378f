"""Adapter folders in PEFT's format, read with numpy alone: no run, no base model, nothing executed."""

from dynlora.peft_adapter.adapter_config import CONFIG_NAME, TENSORS_NAME
from dynlora.peft_adapter.read import AdaptedModule, Adapter, read_adapter

__all__ = ["CONFIG_NAME", "TENSORS_NAME", "AdaptedModule", "Adapter", "read_adapter"]
