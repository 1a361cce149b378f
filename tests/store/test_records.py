"""JSON files beside `run.db` and in a runs folder: old ones are read, hostile ones are harmless.

The classes are found by existing: a new `Record` is tested once it has an example here.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

import dynlora
from dynlora.errors import CorruptRunError
from dynlora.store.jsontext import MAX_WHOLE
from dynlora.store.record import Count, Moment, Part, Record, Row, Share, Which, Whole
from dynlora.store.schema import MAX_JSON_DEPTH
from dynlora.text import is_text

ROOT = Path(dynlora.__file__).parent


def below(kind: type[Part]) -> Iterator[type[Part]]:
    for one in kind.__subclasses__():
        yield one
        yield from below(one)


for path in sorted(ROOT.rglob("*.py")):
    if "(Record):" in path.read_text("utf-8"):
        import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))

RECORDS = {
    kind.__name__: kind for kind in below(Record) if issubclass(kind, Record) and kind.__module__.startswith("dynlora.")
}

OLD = {
    "Notes": '{"tags": ["to keep", "sp\\u00e4ter"], "note": "two\\nlines"}\n',
    "Views": '{\n "views": [\n  {\n   "name": "good",\n   "query": "accuracy>0.8"\n  }\n ]\n}\n',
    "Trackers": '{\n "format": 1,\n "trackers": {\n  "mlflow": {\n   "place": "https://host/mlflow",\n'
    '   "run": "abc",\n   "step": 3,\n   "error": null\n  }\n }\n}\n',
    "Copied": '{\n "format": 1,\n "url": "ssh://host/runs/one",\n "revision": "1",\n "fingerprint": "2"\n}\n',
    "Origin": '{\n "format": 1,\n "run": "20260101-000000-00000001",\n "name": "lora",\n "which": "best",\n'
    ' "step": 40,\n "parameters": 10,\n "of": 20\n}\n',
    "Knockouts": '{"format": 1, "which": "last", "step": 60, "rows": 512, "loss": 0.4, "groups": ["long", "short"], '
    '"n_modules": 12, "effects": [{"modules": [1, 2], "loss": 0.5, "delta": 0.1, "low": 0.05, "high": 0.2, '
    '"changed": 0.25, "by_group": [0.1, null]}]}\n',
    "Effects": '{"format": 1, "which": "last", "step": 60, "effects": [[0.25, null], [0.125, 0.5]]}\n',
    "Compressed": '{"format": 1, "which": "last", "step": 3, "weighting": "loss", "rows": 40, "parameters": 20, '
    '"modules": ["a", "b"], "whole": {"loss": 1.0, "difference": 0.0, "low": 0.0, "high": 0.0, "metrics": '
    '{"accuracy": 0.5}}, "planned": 1, "sizes": [{"method": "global", "share": 0.5, "parameters": 10, "ranks": [1, 0], '
    '"chosen_on": {"loss": 1.0, "difference": 0.1, "low": 0.0, "high": 0.2, "metrics": {}}, '
    '"reported_on": {"loss": 1.0, "difference": 0.1, "low": 0.0, "high": 0.2, "metrics": {}}}]}\n',
    "Listing": '{"form": 5, "rows": {"one": ["v", {"status": "finished", "step": 3, "max_steps": 3, "error": null, '
    '"trend_of": "accuracy", "trend": [0.5], "heartbeat_age_s": null, "stalled_s": null, "other_host": false}, '
    '{"name": "one"}]}}',
    "ProcessNote": '{"pid": 4242, "start": 1764412345.25}',
    "TrainerRun": '{"run": "20260101-000000-00000001"}',
    "Launch": '{"pid": 4242, "start_time": 1764412345.25, "opened": 1}',
    "GatedAdapter": '{"format": 1, "base": "owner/base", "settings": {"adapter": {"rank": 4}, "seed": 0}}',
    "HelperJob": '{"format": 1, "kind": "advice", "command": ["advise", "--json"], "status": "failed", "progress": '
    '{"done": 2, "of": 5, "phase": "listening"}, "message": "", "result": {"a": 1}, "error": {"kind": "DataError", '
    '"message": "no rows"}, "pid": 4242, "start": 1764412345.25, "heartbeat": 1764412349.5}',
    "QueueOrder": '{"order": ["two", "one"]}',
    "Launched": '{"ids": ["20260101-000000-00000001"]}',
    "RateAnswer": '{\n "rate": 0.0057, "why": "", "low": 0.0045, "high": 0.0051, "level": "high", "steepest": 0.0095, '
    '"lowest": 0.017, "breaks": 0.03, "default": 0.001, "tests": [{"seed": 0, "rates": [0.001, 0.002], "losses": '
    '[1.5, null], "control": [1.5, 1.4]}], "look": {"method": "lora", "rank": 1, "steps": 2, "rows": 64, '
    '"seconds": 1.0}, "capacity": {"nats": 1.0, "irreducible": 0.0, "examples": 64, "bits": 92.3, '
    '"parameters": 50, "capacity": 100.0, '
    '"verdict": "tight"}}\n',
    "Answer": '{\n "ranks": {"a.query": 2}, "scaling": {"a.query": 2.0}, "parameters": 16, "budget": 16, '
    '"uniform_rank": 2, "task_type": "SEQ_CLS", "modules": [{"name": "a.query", "layer": 0, "kind": "query", '
    '"d_in": 4, "d_out": 4, "rank": 2, "gain_share": 1.0}], "families": [{"name": "query", "modules": 1, '
    '"mean_rank": 2.0, "parameters_share": 1.0, "gain_share": 1.0, "gain_per_parameter": 1.0, "low": 1.0, "high": 1.0, '
    '"can_go": false}], "layers": [{"without_layers": 1, "of": 4, "modules": 6, "gain_share": 0.5, "step_time": 0.8, '
    '"low": 0.7, "high": 0.9}], "confidence": {"correlation": null, "agreement": 1.0, "level": "high"}, '
    '"look": {"warm_steps": 1, "look_steps": 2, "rows": 24, "seconds": 1.0}}\n',
}
"""A file of each class as dynlora wrote it before there was the class."""


def keys_of(values: Any, before: Any) -> Any:
    """Return values without the keys that are not in `before`, in lists of the same length too."""
    if isinstance(values, dict) and isinstance(before, dict):
        return {key: keys_of(values[key], before[key]) for key in before if key in values}
    if isinstance(values, list) and isinstance(before, list) and len(values) == len(before):
        return [keys_of(*pair) for pair in zip(values, before, strict=True)]
    return values


def test_every_record_has_a_file_of_before_here() -> None:
    assert set(OLD) == set(RECORDS)


@pytest.mark.parametrize("name", OLD)
def test_a_file_of_before_is_read_and_written_under_the_same_keys(name: str, tmp_path: Path) -> None:
    kind, file = RECORDS[name], tmp_path / "file.json"
    file.write_text(OLD[name], "utf-8")
    record = kind.read(file)
    assert record is not None
    record.write(file)
    values = json.loads(OLD[name])
    assert keys_of(json.loads(file.read_text("utf-8")), values) == values
    assert kind.read(file) == record


@pytest.mark.parametrize("name", OLD)
def test_keys_of_a_later_version_are_ignored_and_another_format_is_not_read(name: str, tmp_path: Path) -> None:
    kind, file = RECORDS[name], tmp_path / "file.json"
    file.write_text(json.dumps({**json.loads(OLD[name]), "of a later version": [1]}), "utf-8")
    assert kind.read(file) == kind.from_values(json.loads(OLD[name]))
    file.write_text(json.dumps({**json.loads(OLD[name]), "format": kind.VERSION + 1}), "utf-8")
    assert (kind.read(file) is None) == bool(kind.VERSION)


@pytest.mark.parametrize("name", OLD)
def test_what_is_no_plain_file_of_its_size_is_none(name: str, tmp_path: Path) -> None:
    kind = RECORDS[name]
    (tmp_path / "real").write_text(OLD[name], "utf-8")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "large").write_bytes(OLD[name].encode() + b" " * min(kind.MAX_BYTES, 2**20))
    (tmp_path / "cut").write_bytes(OLD[name].encode()[:-4])
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    names = ["folder", "link", "cut", "pipe", "missing"] + ["large"] * (kind.MAX_BYTES <= 2**20)
    assert [kind.read(tmp_path / one) for one in names] == [None] * len(names)


class Renamed(Record):
    """A class whose first version had its text under another key."""

    VERSION: ClassVar[int] = 2

    text: str

    @classmethod
    def migrate(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"text": values["words"]} if values.get("format") == 1 else super().migrate(values)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"format": 1, "words": "a"}', "a"),
        ('{"format": 2, "text": "a"}', "a"),
        ('{"format": 1}', None),
        ('{"format": 3, "text": "a"}', None),
        ('{"format": 1, "words": 7}', None),
    ],
)
def test_an_earlier_version_is_migrated(content: str, text: str | None, tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(content, "utf-8")
    record = Renamed.read(tmp_path / "file.json")
    assert (None if record is None else record.text) == text


class Typed(Record):
    """One field of each kind."""

    whole: Whole = 0
    count: Count = 0
    share: Share = 0.0
    moment: Moment = 0.0
    which: Which = "last"
    flag: bool = False
    rows: Row[Count] = Field(default=(), max_length=2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((name, value) for name in ("whole", "count", "share", "moment") for value in ("1", True, None, [1], 2**54)),
        *((name, value) for name in ("share", "moment") for value in (math.nan, math.inf, -0.5)),
        *(("whole", value) for value in (1.0, -(2**53) - 1)),
        *(("count", value) for value in (1.0, -1, 2**53)),
        *(("which", value) for value in ("first", "last\n", "", 1)),
        *(("flag", value) for value in (0, 1, "true")),
        *(("rows", value) for value in ("12", {"1": 1}, [1, 2, 3], [-1], [True])),
        ("share", 1.5),
    ],
)
def test_no_value_is_made_to_fit(field: str, value: object) -> None:
    with pytest.raises(CorruptRunError):
        Typed.from_values({field: value})


def test_no_class_is_less_strict() -> None:
    rules = {(kind.model_config.get("strict"), kind.model_config.get("frozen")) for kind in (*below(Part), Part)}
    assert rules == {(True, True)}


def test_a_record_that_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    kind = RECORDS["QueueOrder"]
    record = kind.model_validate({"order": ["a" * 1000] * 2000})
    with pytest.raises(OSError, match="larger than"):
        record.write(tmp_path / "file.json")
    assert list(tmp_path.iterdir()) == []


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RECORDS["Copied"].from_values(json.loads(OLD["Copied"])).url = "elsewhere"  # pyright: ignore


TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30), st.sampled_from([10**400, -1, 0, MAX_WHOLE, MAX_WHOLE + 1]), st.floats()
)
PLAIN = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.sampled_from(["a" * 5000, "\ud800", "1", "../x", ""]))
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=6,
)
DEEP = ["[" * 300 + "]" * 300, "[" * 50_000, '{"a":' * 40_000]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside another."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a value with another one at a place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = put(value[path[0]], path[1:], new)
    return copy


@st.composite
def hostile_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the name of a class and the bytes of a file: a good one that was changed in one or two places, or any."""
    name = draw(st.sampled_from(sorted(OLD)))
    value = json.loads(OLD[name])
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(places(value))))
        match draw(st.integers(0, 3)):
            case 0 if path and isinstance(path[-1], str):
                value = put(value, path[:-1], {draw(TEXTS): draw(VALUES), **without(value, path)})
            case 1 if isinstance(item := at(value, path), list) and item:
                value = put(value, path, item * draw(st.integers(0, 60)))
            case _:
                value = put(value, path, draw(VALUES))
    data = json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        deep = draw(st.sampled_from(DEEP))
        data = data.replace(b"1", deep.encode(), 1)
    if draw(st.integers(0, 9)) == 0:
        data = data[: draw(st.integers(0, len(data)))]
    return name, data


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def without(value: Any, path: tuple[Any, ...]) -> dict[str, Any]:
    """Return the object that holds a place, without it."""
    return {key: item for key, item in at(value, path[:-1]).items() if key != path[-1]}


def check_bounds(value: Any, depth: int = 0) -> None:
    """Check that a value read from a file is one that everybody can hold, show and store."""
    assert depth <= MAX_JSON_DEPTH + 2
    if isinstance(value, str):
        assert is_text(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        assert abs(value) <= MAX_WHOLE
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_bounds(key)
            check_bounds(item, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_bounds(item, depth + 1)


def check_file(name: str, data: bytes, folder: Path) -> None:
    """Check that a file is no record or one within its bounds, which is written and read back equal."""
    kind, file = RECORDS[name], folder / f"{name}.json"
    file.write_bytes(data)
    record = kind.read(file)
    if record is not None:
        check_bounds(record.model_dump())
        record.write(file)
        assert kind.read(file) == record


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@settings(max_examples=150)
@given(file=hostile_files())
def test_a_hostile_file_is_no_record_or_a_whole_one(file: tuple[str, bytes], folder: Path) -> None:
    check_file(*file, folder)


@pytest.mark.torture
@settings(max_examples=10_000)
@given(file=hostile_files())
def test_hostile_files_are_no_records_or_whole_ones(file: tuple[str, bytes], folder: Path) -> None:
    check_file(*file, folder)


@given(name=st.sampled_from(sorted(OLD)), values=st.dictionaries(TEXTS, VALUES, max_size=4))
def test_values_that_do_not_fit_are_one_error(name: str, values: dict[str, Any]) -> None:
    kind = RECORDS[name]
    try:
        assert isinstance(kind.from_values({**json.loads(OLD[name]), **values}), kind)
        kind.from_values(values)
    except CorruptRunError:
        pass
