"""The folder that fetched files are kept in, and the hub: its cache first, then short time-outs; nothing that runs."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

from dynlora.errors import AssetError

T = TypeVar("T")


class UnavailableError(Exception):
    """One place did not have what was asked for; its text is the reason, to be put into an `AssetError`."""


def within(seconds: float, call: Callable[[], T]) -> T:
    """Run `call` and give up after `seconds`, whatever it hangs in.

    A library's own time-outs do not cover name look-up, retries and redirects; a thread left behind does no harm, since
    it is a daemon and its result is dropped.

    Args:
        seconds: How long to wait.
        call: What to run; it must not hold locks or write files.

    Raises:
        UnavailableError: There was no answer in time.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:  # handed over to the waiting thread, which raises it
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name="dynlora-lookup")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise UnavailableError(f"no answer within {seconds:.0f} s")
    return results[0]


def reason(error: BaseException) -> str:
    """The first line of an error, or its kind when it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


LOCK_TIMEOUT_S = 1800.0
"""How long one process waits for another that is fetching the same files."""

_PARTIAL = ".partial-"
_log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """The cache folder: `$DYNLORA_CACHE`, or the user's cache folder of this system."""
    if override := os.environ.get("DYNLORA_CACHE"):
        return Path(os.path.expanduser(override)).absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("dynlora", appauthor=False))


def sha256_of(path: Path) -> str:
    """The sha256 of a file in hexadecimal; about 0.1 s for 90 MB, so it is simply done at every use."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Check that a cached folder still holds the pinned bytes.

    Args:
        folder: The cached folder.
        digests: File name -> sha256.

    Raises:
        AssetError: A file is missing, cannot be read, or differs from its pin.
    """
    for name, expected in digests.items():
        try:
            digest = sha256_of(folder / name)
        except OSError as error:
            raise AssetError(f"{folder / name} cannot be read ({error.strerror}): {_refetch(folder)}") from error
        if digest != expected:
            raise AssetError(
                f"{folder / name} was changed after the download (sha256 {digest[:12]}..., pinned "
                f"{expected[:12]}...): {_refetch(folder)}"
            )


def _refetch(folder: Path) -> str:
    return f"delete the folder {folder} and run again to download it again."


@contextmanager
def filling(folder: Path) -> Generator[Path | None, None, None]:
    """Fill a cache folder at most once, whole or not at all.

    Holds the folder's lock. Yields an empty folder beside `folder` to write into, which takes the place of `folder`
    when the block ends and is removed when the block fails; or None when another process has filled `folder` meanwhile.

    Args:
        folder: The cache folder to fill.

    Raises:
        AssetError: The cache folder cannot be written, or another process has held the lock for too long.
    """
    import filelock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.parent / f".{folder.name}.lock", timeout=LOCK_TIMEOUT_S)
        with lock:
            _remove_leftovers(folder)
            if folder.is_dir():
                yield None
                return
            staging = Path(tempfile.mkdtemp(prefix=f"{_PARTIAL}{folder.name}-", dir=folder.parent))
            try:
                yield staging
                _publish(staging, folder)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except filelock.Timeout as error:
        raise AssetError(
            f"another process has been filling {folder} for {LOCK_TIMEOUT_S / 60:.0f} minutes; wait for it, or end it."
        ) from error
    except OSError as error:
        raise AssetError(
            f"the cache folder {folder.parent} cannot be written ({error.strerror or error}): set DYNLORA_CACHE to a "
            "writable folder with enough space."
        ) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left; called under the lock, so nobody is writing there."""
    for leftover in folder.parent.glob(f"{_PARTIAL}{folder.name}-*"):
        _log.info("removing an unfinished download, %s", leftover)
        shutil.rmtree(leftover, ignore_errors=True)


def _publish(staging: Path, folder: Path) -> None:
    """Flush the files to disk, then give the folder its name in one step."""
    for path in staging.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    staging.chmod(0o755)
    staging.rename(folder)


LOOKUP_S = 8.0
"""How long the hub may take to describe a repository; with it an unreachable hub is reported well within 15 s."""

REQUEST_S = 5.0
"""Time-out of one request of the hub's client."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
_TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
_WEIGHT_FILES = ("model.safetensors", "model-*-of-*.safetensors")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "*.model")


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
