"""The Hugging Face hub: its local cache first, then short time-outs; models and data sets, files that run nothing."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from dynlora.assets.catalog import UnavailableError, cache_dir, filling, reason, within
from dynlora.errors import AssetError

LOOKUP_S = 8.0
"""How long the hub may take to describe a repository; with it an unreachable hub is reported well within 15 s."""

REQUEST_S = 5.0
"""Time-out of one request of the hub's client."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
_TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")

T = TypeVar("T")


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a repository, `name` or `owner/name`."""
    return len(name) <= 96 and ".." not in name and "--" not in name and _ID.fullmatch(name) is not None


def snapshot(hub_id: str, kind: str, revision: str = "main") -> Path | None:
    """The folder of a repository's revision in the hub's cache, or None; nothing says that it is complete.

    Args:
        hub_id: The repository.
        kind: `model` or `dataset`.
        revision: Branch that was fetched.
    """
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"{kind}s--{hub_id.replace('/', '--')}"
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        return None
    path = folder / "snapshots" / commit
    return path if path.is_dir() else None


def cached_model(hub_id: str) -> Path | None:
    """The complete snapshot of a model in the hub's cache, or None; touches no network."""
    folder = snapshot(hub_id, "model")
    if folder is None or not (folder / "config.json").is_file() or not has_tokenizer(folder):
        return None
    weights = _matching([path.name for path in folder.iterdir() if path.is_file()], _WEIGHT_FILES)
    return folder if weights and not missing_shards(weights) else None


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any(next(folder.glob(pattern), None) is not None for pattern in _TOKENIZER_FILES)


def missing_shards(names: Iterable[str]) -> list[str]:
    """Which files of a series such as `model-00001-of-00003.safetensors` are not among `names`.

    Series of safetensors count from one, those of Parquet from zero.
    """
    present = set(names)
    missing: set[str] = set()
    for match in filter(None, map(_SHARD.fullmatch, present)):
        stem, total, suffix = match[1], int(match[3]), match[4]
        first = 0 if suffix == ".parquet" else 1
        missing |= {f"{stem}-{i:05d}-of-{match[3]}{suffix}" for i in range(first, first + total)} - present
    return sorted(missing)


def fetch_model(hub_id: str, lookup_s: float = LOOKUP_S) -> Path:
    """Download a model's safetensors, configuration and tokenizer from the hub.

    Args:
        hub_id: Repository, `owner/name`.
        lookup_s: Seconds the hub may take to describe the repository.

    Raises:
        AssetError: The hub knows no such model, or it has no safetensors.
        UnavailableError: The hub cannot be reached.
    """
    from huggingface_hub import HfApi

    info = ask(hub_id, "model", lookup_s, lambda: HfApi().model_info(hub_id, timeout=REQUEST_S))
    names = [sibling.rfilename for sibling in info.siblings or [] if "/" not in sibling.rfilename]
    weights = _matching(names, _WEIGHT_FILES)
    if not weights:
        raise AssetError(
            f"model {hub_id!r} has no model.safetensors on the hub, and other formats can run code when they are "
            "loaded: choose another model, or convert it and give the local folder as model.name."
        )
    return download_snapshot(hub_id, "model", [*_matching(names, _TEXT_FILES), *weights])


def ask(hub_id: str, kind: str, lookup_s: float, call: Callable[[], T]) -> T:
    """Ask the hub about a repository and turn what can go wrong into the two errors callers know.

    Args:
        hub_id: The repository, for messages.
        kind: `model` or `dataset`.
        lookup_s: Seconds to wait.
        call: The request.

    Raises:
        AssetError: There is no such repository, or it is not readable for this user.
        UnavailableError: The hub cannot be reached.
    """
    from huggingface_hub.constants import HF_HUB_OFFLINE
    from huggingface_hub.errors import RepositoryNotFoundError

    if HF_HUB_OFFLINE:
        raise UnavailableError("HF_HUB_OFFLINE is set")
    try:
        return within(lookup_s, call)
    except RepositoryNotFoundError as error:
        raise AssetError(
            f"the hub has no {kind} {hub_id!r} that you may read: check the spelling, or log in with `hf auth login` "
            "when it is private or gated."
        ) from error
    except UnavailableError:
        raise
    except Exception as error:
        raise UnavailableError(reason(error)) from error


def download_snapshot(hub_id: str, kind: str, names: list[str], revision: str = "main") -> Path:
    """Download the named files of a repository into the hub's cache and return the snapshot's folder.

    Args:
        hub_id: The repository.
        kind: `model` or `dataset`.
        names: Files to fetch.
        revision: Branch to fetch from.

    Raises:
        AssetError: The files are gated and this user may not read them.
        UnavailableError: The download failed.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    try:
        folder = snapshot_download(
            hub_id,
            repo_type=kind,
            revision=revision,
            allow_patterns=[_exactly(name) for name in names],
            etag_timeout=REQUEST_S,
        )
    except GatedRepoError as error:
        raise AssetError(
            f"{kind} {hub_id!r} is gated: ask for access on its page and log in with `hf auth login`."
        ) from error
    except Exception as error:
        raise UnavailableError(reason(error)) from error
    return Path(folder)


def _exactly(name: str) -> str:
    """A pattern that matches this file name only."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = tuple(patterns)
    return sorted(name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


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
        items = ask(words, kind, SEARCH_S, listed)
    except UnavailableError as error:
        raise AssetError(f"the hub cannot be searched ({error}): {_REMEDY[kind]}") from None
    return [Hit(item.id, int(item.downloads or 0)) for item in items if is_hub_id(str(item.id))]


MAX_BYTES = 2 << 30
"""Larger data sets are refused before they are fetched."""

_REVISIONS = ("main", "refs/convert/parquet")
_SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test",),
}
_PARQUET_SHARD = re.compile(r"(?P<split>\w+?)-\d{5}-of-\d{5}\.parquet")

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
        if match := _PARQUET_SHARD.fullmatch(name):
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
