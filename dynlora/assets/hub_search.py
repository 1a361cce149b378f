"""Search on the Hugging Face hub: ids of models and data sets for a few words, asked for by a person only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from dynlora.assets.hub import ask, is_hub_id
from dynlora.assets.network import UnavailableError
from dynlora.errors import AssetError

Kind = Literal["model", "dataset"]

SEARCH_S = 6.0
"""How long a search may take; somebody waits for it."""

MOST = 12
"""Most hits of a search."""

TAGS: dict[Kind, str] = {"model": "safetensors", "dataset": "modality:text"}
"""What a hit must be tagged with: other models cannot be loaded, and other data sets hold no texts."""

_REMEDY = {"model": "enter its id, or a local folder", "dataset": "enter its id, or use a file of this machine"}


@dataclass(frozen=True)
class Hit:
    """A model or a data set that was found.

    Attributes:
        id: its repository.
        downloads: of the last month.
    """

    id: str
    downloads: int


def is_off() -> bool:
    """Say whether the hub may not be asked, because HF_HUB_OFFLINE is set."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    return bool(HF_HUB_OFFLINE)


def search(kind: Kind, words: str) -> list[Hit]:
    """Return models or data sets of the hub for a few words, those that are downloaded most first.

    Args:
        kind: model or dataset.
        words: what to look for in the ids.

    Raises:
        AssetError: when the hub cannot be reached; the text says what else can be done.
    """
    from huggingface_hub import HfApi

    options: dict[str, Any] = {"search": words, "filter": TAGS[kind], "sort": "downloads", "limit": MOST}

    def listed() -> Iterable[Any]:
        api = HfApi()
        return list(api.list_models(**options) if kind == "model" else api.list_datasets(**options))

    try:
        found = ask(words, kind, SEARCH_S, listed)
    except UnavailableError as error:
        raise AssetError(f"the hub cannot be searched ({error}): {_REMEDY[kind]}") from None
    return [Hit(item.id, int(item.downloads or 0)) for item in found if is_hub_id(str(item.id))]
