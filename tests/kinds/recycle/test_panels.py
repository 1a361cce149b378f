"""What the Recycle page says, against recycles that are easy to check by hand, and the examples people paste."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dynlora.errors import ConfigError, DynloraError
from dynlora.kinds.recycle import result
from dynlora.kinds.recycle.panels import inversion
from dynlora.kinds.recycle.panels.few_shot import FewShotAccuracy, FewShotResult
from dynlora.kinds.recycle.result import Recycle
from dynlora.store import queries
from dynlora.viz import trials
from dynlora.viz.kit import theme
from tests.kinds.recycle.written import RESULTS, interval, written_recycle
from tests.viz.drawn import traces_of

RESULTS_FOLDER = Path(__file__).parents[3] / "benchmarks" / "results"


def averaged(*means: float) -> dict[str, Any]:
    """Return accuracies where averaging the adapters has these at 1 and 5 examples per class."""
    shots = {shots: interval(mean) for shots, mean in zip(("1", "5"), means, strict=True)}
    return {"accuracy": {**RESULTS["accuracy"], "averaged": shots}}


def gaps(one: float, five: float) -> dict[str, Any]:
    """Return differences from another way at 1 and 5 examples per class."""
    return {"meta": {"5": interval(five), "1": interval(one)}}


LOSS = {"against_base": {"meta": {"5": interval(-0.2)}}}


@pytest.mark.parametrize(
    ("changed", "words", "unsaid"),
    [
        ({}, "beats the base model at 1 example per class: +5.0 points (95 % CI +4.0 to +6.0)", "Averag"),
        ({"against_base": gaps(0, 0)}, "not significantly different from the base model", "beats"),
        (LOSS, "worse than the base model at 5 examples per class: −20.0", "beats"),
        (LOSS, "Use the base model.", "Averag"),
        (averaged(0.9, 0.95) | LOSS, "Averaging the adapters, without training, is better", "Use the base model"),
        ({"against_base": gaps(0.025, 0.018)}, "+2.5 points (95 % CI +1.5 to +3.5); at 5: +1.8 points", "worse"),
        ({"against_base": gaps(0.05, -0.02)}, "It is worse at 5 examples per class: −2.0 points", "Averag"),
        (averaged(0.9, 0.95), "90.0 % against 75.0 %; at 5: 95.0 % against 80.0 %", "Average of the adapters"),
        (averaged(0.75, 0.95), "Average of the adapters is better at 5 examples per class: 95.0 %", "Averaging"),
        (
            averaged(0.73, 0.8) | {"against_averaged": gaps(0.018, -0.02)},
            "It beats the average of the adapters too, at 1 example per class: +1.8 points (95 % CI +0.8 to +2.8).",
            "Averaging",
        ),
    ],
)
def test_the_conclusion_follows_the_intervals(changed: dict[str, Any], words: str, unsaid: str, tmp_path: Path) -> None:
    recycle = Recycle.read(written_recycle(tmp_path, recycle_results={**RESULTS, **changed}))
    conclusion = f"{recycle.headline()} {recycle.basis()}"
    assert words in conclusion
    assert unsaid not in conclusion


def test_the_evidence_on_the_page_is_what_was_recorded() -> None:
    seeds = json.loads((RESULTS_FOLDER / "recycle-smollm2-seeds.json").read_text())["figures"]
    alone = json.loads((RESULTS_FOLDER / "recycle-clinc150-minilm.json").read_text())["figures"]
    gain = "by {0} points (95 % CI {1} to {2}, " + f"{len(seeds['seeds'])} seeds)"
    for recorded, sentence in (
        (seeds["over_seeds"]["against_averaged"]["1"], gain),
        (alone["methods"]["inverted"]["1"]["against averaged"], "+{0} points ({1} to +{2}, one seed)"),
    ):
        numbers = [f"{100 * value:.1f}".replace("-", "\N{MINUS SIGN}") for value in recorded]
        assert sentence.format(*numbers) in result.EVIDENCE
    assert f"average of {alone['setting']['teachers']} adapters of minilm" in result.EVIDENCE
    assert {seeds["seeds"][seed]["test"]["classes"] for seed in seeds["seeds"]} == {60}
    assert "on 60 new intents" in result.EVIDENCE


def test_classes_that_their_teacher_does_not_see_are_named(tmp_path: Path) -> None:
    folder = written_recycle(tmp_path)
    frame = result.agreement_frame(Recycle.read(folder), folder)
    assert frame["class"].tolist() == ["happy", "bad", "good", "angry"]
    assert frame["agreement"].tolist() == [0.5, 1.0, 1.0, 1.0]


def test_methods_are_shown_in_order_with_their_intervals(tmp_path: Path) -> None:
    frame = result.accuracy_frame(Recycle.read(written_recycle(tmp_path)).accuracy)
    assert frame["name"].tolist()[:3] == ["Meta-LoRA", "Base model", "Meta-LoRA on noise (control)"]
    drawn = FewShotAccuracy().figure(FewShotResult(frame, frame.iloc[:0]), theme.LIGHT)
    assert [list(trace.x) for trace in traces_of(drawn)] == [[0.75, 0.7, 0.6], [0.8, 0.8, 0.7]]


@pytest.mark.parametrize("count", [1, 12])
def test_any_number_of_shots_has_panels(count: int, tmp_path: Path) -> None:
    many = {str(shots): interval(0.5) for shots in range(1, count + 1)}
    recycle = Recycle.read(written_recycle(tmp_path, recycle_results={**RESULTS, "accuracy": {"meta": many}}))
    frame = result.accuracy_frame(recycle.accuracy)
    assert len(traces_of(FewShotAccuracy().figure(FewShotResult(frame, frame.iloc[:0]), theme.LIGHT))) == count


def test_a_band_of_accuracies_is_within_what_can_be(tmp_path: Path) -> None:
    frame = result.episodes_frame(queries.scalars_frame(written_recycle(tmp_path)))
    assert frame["step"].tolist() == [5, 6, 7, 8]
    assert frame["high"].max() <= 1.0
    assert (frame["low"] <= frame["mean"]).all()


def test_words_are_escaped(tmp_path: Path) -> None:
    recycle = Recycle.read(written_recycle(tmp_path))
    drawn = inversion.words_html(recycle.inverted[0], theme.LIGHT)
    assert "&lt;b&gt;film" in drawn
    assert "<b>" not in drawn


def test_a_value_of_another_kind_counts_as_none(tmp_path: Path) -> None:
    odd = {"accuracy": {"meta": {"one": interval(1.0), "1": {"mean": "high"}}, "base": 3}, "test": [1], "methods": 7}
    recycle = Recycle.read(
        written_recycle(
            tmp_path, recycle={"teachers": [3, {"classes": "x"}]}, recycle_results=odd, prototypes=[{"x": None, "y": 1}]
        )
    )
    assert (recycle.accuracy, recycle.places, dict(recycle.tested)) == ((), (), {})
    assert [teacher.classes for teacher in recycle.sources] == [(), ()]


def test_pasted_examples_are_label_colon_text() -> None:
    assert trials.pasted("a: one: two\n\n b :three ") == [["one: two", "a"], ["three", "b"]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("a: one\nb", "line 2: write the label"),
        ("a: one\na: two", "are of 1 class"),
        ("", "are of 0 class"),
        ("\n".join(f"{n % 2}: x" for n in range(600)), "600 examples: give at most 500"),
    ],
)
def test_examples_that_cannot_be_used_are_refused_in_a_sentence(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trials.pasted(words)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b"text,label\none,a\ntwo,b\n"),
        ("a.csv", b"Label;Text\na;one\nb;two\n"),
        ("a.csv", "\ufeffn;text;label\n1;one;a\n2;two;b\n".encode("utf-16")),
        ("a.jsonl", b'{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n'),
    ],
)
def test_a_small_file_gives_examples(name: str, data: bytes) -> None:
    assert trials.of_file(name, data) == [["one", "a"], ["two", "b"]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"text,class\none,a\n", "no column label; it has text and class; rename"),
        (b"\xff\xfe\x00bad", "no rows"),
        (b"text,label\none,\ntwo,b\n", "is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_in_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(DynloraError, match=message):
        trials.of_file("a.csv", data)


def test_more_texts_than_the_page_takes_are_refused() -> None:
    assert trials.asked_texts("one\n\ntwo") == ["one", "two"]
    with pytest.raises(ConfigError, match="give at most 100"):
        trials.asked_texts("x\n" * 101)
