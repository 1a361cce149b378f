"""Adapter folders in PEFT's format, read with numpy alone: no run, no base model, nothing executed."""

from dynlora.adapter_folder.reading import AdaptedModule, Adapter, read_adapter
from dynlora.adapter_folder.settings import CONFIG_NAME
from dynlora.adapter_folder.tensorfile import TENSORS_NAME

__all__ = ["CONFIG_NAME", "TENSORS_NAME", "AdaptedModule", "Adapter", "read_adapter"]
