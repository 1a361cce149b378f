"""What pyright reads of transformers: its own `__init__` binds every model, 2,800 files, for a name of any of them."""

from typing import Any

from transformers.modeling_utils import PreTrainedModel as PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase as PreTrainedTokenizerBase

def __getattr__(name: str) -> Any: ...
