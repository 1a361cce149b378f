"""An exported adapter sent to the Hugging Face hub: all of it in one commit, after a look at what is there.

The hub's client reads the token from `HF_TOKEN` or from the file of `hf auth login`. No message and no file holds it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dynlora.assets.hub import is_hub_id
from dynlora.errors import ConfigError, RemoteError
from dynlora.text import printable

OURS = "dynlora"
"""Tag of a repository that an export of dynlora was sent to; others are not written to."""

MARKS = {"peft": "adapter_config.json", "merged": "model.safetensors"}
"""The file that each format has and the other has not."""

FIRST = (".gitattributes",)
"""Files that the hub itself puts into a new repository."""


@dataclass(frozen=True)
class Repository:
    """Where an export is sent.

    Attributes:
        name: `owner/name`.
        private: whether a new one is private.
        commit: the last one there; None where the repository is made.
    """

    name: str
    private: bool
    commit: str | None


def find_repository(name: str, *, format: str, private: bool) -> Repository:
    """Look whether an export can be sent to a repository; nothing is sent or made.

    Args:
        name: `owner/name`.
        format: peft or merged.
        private: make it private where it is not there yet.

    Raises:
        ConfigError: when the name is none, the hub does not know the user, or something else is there.
        RemoteError: when the hub cannot be reached.
    """
    if not is_hub_id(name) or "/" not in name:
        raise ConfigError(f"--push-to {printable(name)!r}: must be owner/name of letters, digits, '-', '_' and '.'")
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if get_token() is None:
        raise ConfigError(f"--push-to {name}: the hub asks who you are; run `hf auth login`, or set HF_TOKEN")
    with _reached(name):
        HfApi().whoami()
        try:
            info = HfApi().model_info(name)
        except RepositoryNotFoundError:
            return Repository(name, private, None)
    _check_content(name, info, format)
    if private and info.private is False:
        raise ConfigError(f"--private: {name} is there and public; make it private on its page, or leave --private out")
    return Repository(name, bool(info.private), info.sha)


def _check_content(name: str, info: Any, format: str) -> None:
    """Refuse a repository that holds something else, or another format."""
    files = [sibling.rfilename for sibling in info.siblings or []]
    if all(file in FIRST for file in files):
        return
    if OURS not in (info.tags or []):
        raise ConfigError(f"--push-to {name}: holds something that dynlora did not write; give another name")
    other = next(kind for kind in MARKS if kind != format)
    if MARKS[other] in files:
        raise ConfigError(f"--push-to {name}: holds an export in the format {other}; give another name, or --format")


def send_folder(folder: Path, repository: Repository, message: str) -> dict[str, str]:
    """Send the files of a folder in one commit, and return repo, url and commit.

    Raises:
        ConfigError: when the user may not write there.
        RemoteError: when the hub cannot be reached, or the repository was changed meanwhile.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    api = HfApi()
    files = [CommitOperationAdd(path.name, str(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    with _reached(repository.name):
        if repository.commit is None:
            api.create_repo(repository.name, private=repository.private)
        done = api.create_commit(
            repository.name, files, commit_message=printable(message, 200), parent_commit=repository.commit
        )
    return {"repo": repository.name, "url": f"{api.endpoint}/{repository.name}", "commit": done.oid}


@contextmanager
def _reached(name: str) -> Generator[None]:
    """A `with` block in which what the hub's client raises is a sentence without the token."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        yield
    except OfflineModeIsEnabled:
        raise ConfigError(f"--push-to {name}: HF_HUB_OFFLINE is set; unset it to send something") from None
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise ConfigError(
                f"--push-to {name}: the hub does not let you write there; use a token that may, or a name of your own"
            ) from None
        raise RemoteError(f"--push-to {name}: the hub refused it ({_said(error, get_token())}); try again") from None
    except Exception as error:  # of httpx, of the hub's client, and of what it uses to upload
        raise RemoteError(
            f"--push-to {name}: the hub cannot be used ({_said(error, get_token())}); check the network, then try again"
        ) from None


def _said(error: BaseException, token: str | None) -> str:
    """Return what a library says, or what it says was the cause, one line without the token."""
    error = error.__cause__ or error
    lines = str(error).strip().splitlines()
    text = (lines[0] if lines else "").replace(token or "\0", "***")
    return f"{type(error).__name__}: {printable(text, 200).rstrip('.')}"
