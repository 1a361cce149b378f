"""Configs as files and as `key=value` on the command line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from dynlora.addresses import is_url, without_secrets
from dynlora.config import ALL_ROWS, LogConfig, RunConfig, nearest_key, parse_config, section_of
from dynlora.errors import ConfigError, system_message
from dynlora.renamed_settings import with_earlier_defaults, without_written_defaults
from dynlora.safe_files import why_not_a_file

MAX_CONFIG_BYTES = 1_000_000
"""A config file larger than this is refused unread."""

MAX_VALUES = 100_000
"""Values that a YAML text may stand for: a few lines of aliases can stand for more than any memory holds."""

LONGEST_NUMBER = 100
"""Characters of a number; a longer one is text, which no setting takes for a number."""


class DuplicateKeyError(ValueError):
    """A key is given twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: a key given twice is refused, and `1:30` is text where YAML 1.1 counts in sixties."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Return a mapping whose keys are all different."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                name, line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    where = f"line {line}" if lines[name] == line else f"lines {lines[name]} and {line}"
                    raise DuplicateKeyError(f"{where}: {key.value[:60]} is given twice; keep one of them")
                lines[name] = line
        return node


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float | str:
    """Return a number; one that is counted in sixties, or of any length, as the text that it is."""
    text = str(node.value)
    if ":" in text or len(text) > LONGEST_NUMBER:
        return text
    return loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _number)


def _load(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        DuplicateKeyError: when a key is given twice.
        yaml.YAMLError: when it is not YAML.
        ValueError: for an impossible value, such as a date.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a YAML file and apply `key=value` overrides.

    Raises:
        ConfigError: when the file cannot be read, is no mapping, or a value breaks a rule.

    Examples:
        >>> config = dynlora.load_config(overrides=["adapter.rank=2", "seed=1"])
        >>> config.adapter.rank, config.seed
        (2, 1)
    """
    values = read_yaml(Path(path)) if path is not None else {}
    for override in overrides:
        set_key(values, *split_override(override))
    return parse_config(values)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping a YAML file holds; what a run's folder leaves out is as it was when the run was made.

    Raises:
        ConfigError: when the file is missing, too large, not YAML or no mapping.
    """
    data = _config_bytes(path)
    try:
        values = _load(data.decode("utf-8"))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"--config {path}: {_problem(error)}") from None
    if values is None:
        return {}
    if _is_too_much(values):
        raise ConfigError(f"--config {path}: expands to more than {MAX_VALUES:,} values; write it without aliases")
    if not isinstance(values, dict):
        kind = {"str": "text", "list": "a list"}.get(type(values).__name__, "one value")
        raise ConfigError(f"--config {path}: is {kind}; write keys such as `seed: 0`")
    return as_made(values) if (path.parent / STORE).is_file() else values


def _config_bytes(path: Path) -> bytes:
    """Return what a config file holds.

    Raises:
        ConfigError: when it is missing, no file, too large or cannot be read.
    """
    try:
        if problem := why_not_a_file(path):
            raise ConfigError(f"--config {path}: {problem}, such as config.yaml of a run")
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"--config {path}: larger than {MAX_CONFIG_BYTES:,} bytes; give a config, not data")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"--config {system_message(error, str(path))}") from None


def check_data_path(config: RunConfig) -> None:
    """Refuse data that is an address: it would be taken for a path.

    Raises:
        ConfigError: when the data is named by one.
    """
    if is_url(config.data.path):
        address = without_secrets(str(config.data.path))
        raise ConfigError(f"data.path={address}: must be a file or folder of this machine; download it first")


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Return the config with local paths made absolute: a resume, or a queued run, starts in another folder.

    Raises:
        ConfigError: when the data is named by an address.
    """
    check_data_path(config)
    values = config.model_dump()
    if config.data.path:
        values["data"]["path"] = os.path.abspath(Path(os.path.expanduser(config.data.path)))
    if (Path(os.path.expanduser(config.model.name)) / "config.json").is_file():
        values["model"]["name"] = os.path.abspath(Path(os.path.expanduser(config.model.name)))
    for name in (RANKS_FROM, START_FROM):
        source = config.strategy.fields.get(name)
        if isinstance(source, str) and Path(os.path.expanduser(source)).exists():
            values["strategy"][name] = os.path.abspath(Path(os.path.expanduser(source)))
    return parse_config(values)


STORE = "run.db"
"""File of a run's folder that says that it is one."""

METHOD = "strategy.name"
"""Setting that names the method."""

RANKS_FROM = "ranks_from"
"""Setting of a method that names a run, a folder or a file."""

START_FROM = "start_from"
"""Setting of a method that names the folder of an adapter."""


def with_run_folder(config: RunConfig, runs_dir: Path) -> RunConfig:
    """Return the config with the id of a run whose ranks are taken replaced by the run's folder."""
    source = config.strategy.fields.get(RANKS_FROM)
    is_name = isinstance(source, str) and source == Path(source).name and not Path(source).exists()
    if not is_name or not (runs_dir / str(source) / STORE).is_file():
        return config
    values = config.model_dump()
    values["strategy"][RANKS_FROM] = os.path.abspath(runs_dir / str(source))
    return parse_config(values)


def read_run_config(folder: Path) -> RunConfig:
    """Return the config a run was made with.

    A run's folder may be untrusted: its config is a file of its own, never a link to one elsewhere.

    Raises:
        ConfigError: when the file is a link, cannot be read, is that of another kind, or a value breaks a rule.
    """
    path = folder / "config.yaml"
    if path.is_symlink():
        raise ConfigError(f"run {folder.name}: config.yaml is a link; replace it by the file itself")
    values = read_yaml(path)
    if "kind" in values:
        raise ConfigError(f"run {folder.name}: is a {values['kind']!s:.20} run; give a run that was trained")
    return parse_config(as_made(values))


def as_made(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a run as they were when it was made, where the default of a setting is another one now.

    Runs made before `log.eval_rows` was a setting took all held-out examples at every evaluation, and those made before
    `log.generate_interim` all prompts. Adapters had a rate of 0.001, and a head without one of its own that of the
    adapters. A method's defaults that changed are those of `renamed_settings`.
    """
    made, log, strategy, train = dict(values), values.get("log"), values.get("strategy"), values.get("train")
    if "kind" in values:
        return made
    if isinstance(strategy, Mapping):
        made["strategy"] = with_earlier_defaults(strategy)
    if train is None or isinstance(train, Mapping):
        made["train"] = {"lr": 1e-3, "head_lr": None, **(train or {})}
    if isinstance(log, Mapping):
        prompts = log.get("generate_rows", LogConfig.model_fields["generate_rows"].default)
        made["log"] = {"eval_rows": ALL_ROWS, "generate_interim": prompts, **log}
    return made


def _is_too_much(value: Any) -> bool:
    """Say whether a value, its aliases written out, is more than `MAX_VALUES`; one that holds itself is."""
    left, seen = [value], 0
    while left and seen + len(left) <= MAX_VALUES:
        seen += 1
        item = left.pop()
        if isinstance(item, Mapping):
            left += [*item, *item.values()]
        elif isinstance(item, list | tuple | set):
            left += item
    return bool(left)


def _problem(error: Exception) -> str:
    """Return what is wrong with the text of a configuration, in which line, and the remedy."""
    if isinstance(error, DuplicateKeyError):
        return str(error)
    if isinstance(error, UnicodeDecodeError):
        line = error.object.count(b"\n", 0, error.start) + 1
        return f"line {line}: is not UTF-8 text; save the file as UTF-8"
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or (str(error).splitlines() or [type(error).__name__])[0]
    where = problem if mark is None else f"line {mark.line + 1}: {problem}"
    return f"not YAML ({where}); see config.yaml of any run"


def split_override(text: str) -> tuple[str, Any]:
    """Split `train.lr=1e-3` into the key and the parsed value.

    Raises:
        ConfigError: when there is no `=` or no key.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: not of the form key=value; write for example --set train.steps=100")
    return key.strip(), parse_value(raw)


def parse_value(raw: str) -> Any:
    """Read one value as YAML, and numbers such as 1e-3 that YAML 1.1 takes for text; what is quoted stays text."""
    try:
        value = _load(raw) if raw.strip() else None
    except DuplicateKeyError as error:
        raise ConfigError(f"{raw[:60]}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError):  # an impossible date is a ValueError
        return raw
    if _is_too_much(value):
        return raw
    if isinstance(value, str) and not raw.lstrip().startswith(('"', "'")):
        with suppress(ValueError):
            number = float(value)
            is_too_large = math.isinf(number) and any(map(str.isdigit, value))
            return value if math.isnan(number) or is_too_large else number
    return value


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return plain values as YAML that reads back equal; escaped where it would not, as for a lone line separator."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    try:
        if _load(text) == values:
            return text
    except yaml.YAMLError:
        pass
    return yaml.safe_dump(dict(values), sort_keys=False)


def value_text(value: Any) -> str:
    """Return one value as `parse_value` reads it back."""
    if isinstance(value, str) and parse_value(value) == value:
        return value
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(value, default_style=style, default_flow_style=True, width=10**9)
    text = text.removesuffix("\n").removesuffix("\n...")
    if "\n" in text:  # a line break inside of a list: escaped where everything is quoted
        text = yaml.safe_dump(value, default_style='"', default_flow_style=True, width=10**9).removesuffix("\n")
    return text


def set_key(values: dict[str, Any], key: str, value: Any) -> None:
    """Put `value` at a dotted key, making sections on the way.

    Another method takes the defaults that a run wrote down for its own out of the section.

    Raises:
        ConfigError: when the key runs through a value, or names a section.
    """
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        inner = values[section]
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}={value}: {section} is a value, not a section; {nearest_key(key)}")
        values = inner
    if last in values and isinstance(values[last], dict) and not isinstance(value, dict):
        inner = section_of(key)
        example = f", such as {key}.{next(iter(inner.model_fields))}" if inner is not None else ""
        raise ConfigError(f"--set {key}={value}: {key} is a section; set one of its keys{example}")
    if key == METHOD and values.get(last) != value:
        for name in set(values) - set(without_written_defaults(values)):
            del values[name]
    values[last] = value
