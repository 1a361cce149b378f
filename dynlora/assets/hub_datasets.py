"""Data sets of the hub, from their Parquet files alone: no script of theirs is ever run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from dynlora.assets.cache import UnavailableError, cache_dir, filling
from dynlora.assets.hub import LOOKUP_S, REQUEST_S, ask, download_snapshot, is_hub_id, missing_shards, snapshot
from dynlora.errors import AssetError

MAX_BYTES = 2 << 30
"""Larger data sets are refused before they are fetched."""

_REVISIONS = ("main", "refs/convert/parquet")
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test",),
}
_SHARD = re.compile(r"(?P<split>\w+?)-\d{5}-of-\d{5}\.parquet")

SplitFiles = dict[str, list[str]]


def resolve_hub_dataset(name: str) -> Path:
    """Return a folder with `train.parquet` and, as far as they exist, `validation.parquet` and `test.parquet`.

    Once fetched it is kept: a run made later from the same name sees the same rows. To fetch a newer revision, delete
    the folder.

    Args:
        name: `owner/name` or `owner/name:config`.

    Raises:
        AssetError: The name is malformed, the hub has no such data set or no Parquet files of it, or cannot be reached.
    """
    repo, _, config = name.partition(":")
    folder = _folder_of(name)
    if folder is None:
        raise AssetError(
            f"data.name {name!r} is not a hub id; write owner/name or owner/name:config, or use data.path."
        )
    if (folder / "train.parquet").is_file():
        return folder
    try:
        with filling(folder) as staging:
            if staging is not None:
                _fill(staging, repo, config)
    except UnavailableError as error:
        raise AssetError(
            f"data set {name!r} is not cached and the hub cannot be reached ({error}): download its Parquet files "
            "elsewhere and give the file, or a folder with train and validation files, as data.path."
        ) from error
    return folder


def cached_hub_dataset(name: str) -> Path | None:
    """Return the folder of a data set that was fetched before, see `resolve_hub_dataset`; the hub is not asked.

    Args:
        name: `owner/name` or `owner/name:config`; None comes back for what is no such name too.
    """
    folder = _folder_of(name)
    return folder if folder is not None and (folder / "train.parquet").is_file() else None


def _folder_of(name: str) -> Path | None:
    """Return where a data set is kept once it is fetched; None for what is no hub id."""
    repo, _, config = name.partition(":")
    if not is_hub_id(repo) or (":" in name and not re.fullmatch(r"[\w.-]+", config)):
        return None
    return cache_dir() / "data" / "hub" / "--".join([*repo.split("/"), config or "default"])


def _fill(staging: Path, repo: str, config: str) -> None:
    source, revision, splits = _cached_splits(repo, config) or _fetched_splits(repo, config)
    for split, paths in splits.items():
        _join([source / path for path in paths], staging / f"{split}.parquet")
    manifest = {"repository": repo, "config": config, "revision": revision, "commit": source.name, "files": splits}
    (staging / "manifest.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")


def _cached_splits(repo: str, config: str) -> tuple[Path, str, SplitFiles] | None:
    for revision in _REVISIONS:
        folder = snapshot(repo, "dataset", revision)
        if folder is None:
            continue
        splits = _splits_of([path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")], config)
        if splits is not None and not any(missing_shards(paths) for paths in splits.values()):
            return folder, revision, splits
    return None


def _fetched_splits(repo: str, config: str) -> tuple[Path, str, SplitFiles]:
    listed: list[str] = []
    for revision in _REVISIONS:
        sizes = _parquet_sizes(repo, revision)
        listed += sizes
        splits = _splits_of(sizes, config)
        if splits is None:
            continue
        names = [name for paths in splits.values() for name in paths]
        _refuse_large(repo, sum(sizes[name] for name in names))
        return download_snapshot(repo, "dataset", names, revision), revision, splits
    configs = sorted(_by_config(listed))
    hint = f"its configurations are {', '.join(configs[:20])}" if configs else "it has no Parquet files"
    raise AssetError(
        f"data set {repo!r} has no training split{f' in configuration {config!r}' if config else ''}; {hint}: write "
        "owner/name:config, or give a local file as data.path."
    )


def _parquet_sizes(repo: str, revision: str) -> dict[str, int]:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    def list_files() -> dict[str, int]:
        try:
            info = HfApi().dataset_info(repo, revision=revision, files_metadata=True, timeout=REQUEST_S)
        except RevisionNotFoundError:
            return {}
        files = info.siblings or []
        return {file.rfilename: file.size or 0 for file in files if file.rfilename.endswith(".parquet")}

    return ask(repo, "dataset", LOOKUP_S, list_files)


def _refuse_large(repo: str, size: int) -> None:
    if size > MAX_BYTES:
        raise AssetError(
            f"data set {repo!r} is {size / 2**30:.1f} GiB, more than the {MAX_BYTES / 2**30:.0f} GiB that "
            "dynlora downloads "
            "by itself: download the part you need and give it as data.path."
        )


def _by_config(paths: Iterable[str]) -> dict[str, SplitFiles]:
    """Sort Parquet paths into configuration -> split -> files.

    Three layouts are in use: `[config/]split-00000-of-00001.parquet` (`data/` standing for no configuration),
    `config/split/0000.parquet` (the hub's own conversion) and `[config/]split.parquet`.
    """
    configs: dict[str, SplitFiles] = {}
    for path in sorted(paths):
        *folders, name = PurePosixPath(path).parts
        if match := _SHARD.fullmatch(name):
            split = match["split"]
        elif name[:-8].isdigit() and folders:
            split = folders.pop()
        else:
            split = name[:-8]
        config = folders[0] if folders and folders[0] != "data" else "default"
        configs.setdefault(config, {}).setdefault(split, []).append(path)
    return configs


def _splits_of(paths: Iterable[str], config: str) -> SplitFiles | None:
    """The files of train, validation and test in a configuration, or None when it has no training split."""
    configs = _by_config(paths)
    chosen = configs.get(config or "default") or (next(iter(configs.values())) if _is_only(configs, config) else None)
    if chosen is None:
        return None
    splits = {name: _first(chosen, aliases) for name, aliases in _SPLIT_NAMES.items()}
    return {name: files for name, files in splits.items() if files} if splits["train"] else None


def _is_only(configs: Mapping[str, SplitFiles], config: str) -> bool:
    return not config and len(configs) == 1


def _first(splits: SplitFiles, aliases: Iterable[str]) -> list[str]:
    return next((splits[alias] for alias in aliases if alias in splits), [])


def _join(sources: list[Path], target: Path) -> None:
    """Write several Parquet files as one, a row group at a time."""
    if len(sources) == 1:
        shutil.copyfile(sources[0], target)
        return
    from pyarrow import parquet

    with parquet.ParquetWriter(target, parquet.read_schema(sources[0])) as writer:
        for source in sources:
            with parquet.ParquetFile(source) as file:
                for batch in file.iter_batches():
                    writer.write_batch(batch)
