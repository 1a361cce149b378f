"""One text under the lens: contributions, gates and modules, each against the model asked by hand; perturbed texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dynlora.engine.data.perturb import KINDS, perturbed
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation.explain import explain, margins
from dynlora.engine.evaluation.inference import AdaptedModel
from dynlora.errors import ConfigError
from dynlora.inference.session import MAX_CHARACTERS, Examined, checked_texts, load_run
from tests.inference.averaged import averaged
from tests.tiny import tiny_config

TEXT = "the film was great and the plot lovely"


@pytest.fixture(scope="module")
def examined(trained_run: Path) -> Examined:
    """The trained run under examination."""
    return Examined(trained_run)


def test_a_word_adds_what_hiding_it_takes(examined: Examined) -> None:
    explanation = explain(examined.model, TEXT)
    assert [piece.text for piece in explanation.pieces if piece.part == 0] == TEXT.split()
    assert [piece.start for piece in explanation.pieces if piece.part == 0][:3] == [0, 4, 9]
    own = [piece.part is None for piece in explanation.pieces]
    assert np.isnan(explanation.contribution[own]).all()
    assert np.isfinite(explanation.contribution[~np.array(own)]).all()

    encoded = examined.model.base.tokenizer(TEXT, return_tensors="pt")
    place = [piece.text for piece in explanation.pieces].index("great")
    encoded["attention_mask"][0, place] = 0
    with torch.inference_mode():
        answer = examined.model.base.model(**encoded).logits.softmax(-1)[0].numpy()
    column = int(explanation.answer.argmax())
    expected = np.log(answer[column]) - np.log1p(-answer[column])
    assert explanation.margin - explanation.contribution[place] == pytest.approx(expected, abs=1e-4)


def test_a_module_adds_what_its_absence_takes(examined: Examined) -> None:
    explanation = explain(examined.model, TEXT)
    for index in (0, 5):
        with examined.model.adapters.disabled([index]):
            alone = examined.model.predict([TEXT])
        assert explanation.without[index] == pytest.approx(
            margins(examined.model, alone, int(explanation.answer.argmax()))[0]
        )
        assert explanation.flipped[index] == (alone.prediction[0] != explanation.answer.argmax())


def lean(model: AdaptedModel, column: int, by: float) -> None:
    """Change the log-odds of one class of two for every text, with and without adapters."""
    with torch.no_grad():
        model.base.model.get_parameter("classifier.bias")[column] += by


def test_the_effects_are_those_of_the_text_alone(examined: Examined) -> None:
    effects = explain(examined.model, TEXT).effects
    rows = Rows([TEXT], None, examined.model.task.no_labels(1), None)
    assert effects == pytest.approx(examined.model.effects(examined.model.tokens(rows))[0])
    assert (effects > 0).any()


def test_a_module_without_which_the_answer_is_another_is_said_to_flip_it(trained_run: Path) -> None:
    model = load_run(trained_run)
    before = explain(model, TEXT)
    strongest = int(np.abs(before.without - before.margin).argmax())
    boundary = (before.margin + before.without[strongest]) / 2  # the log-odds at which only some of them matter
    lean(model, int(before.answer.argmax()), -boundary)
    explanation = explain(model, TEXT)
    answer = int(explanation.answer.argmax())
    sign = 1 if answer == before.answer.argmax() else -1
    assert explanation.margin == pytest.approx(sign * (before.margin - boundary), abs=1e-4)
    assert explanation.flipped[strongest]
    assert not explanation.flipped.all()
    for index, flipped in enumerate(explanation.flipped):
        with model.adapters.disabled([index]):
            alone = model.predict([TEXT])
        assert flipped == (alone.prediction[0] != answer)
        assert flipped == (explanation.without[index] < 0), "of two classes the other one is answered below even odds"


@pytest.mark.parametrize("text", [TEXT, "the plot was dull and the cast broken"])
def test_a_word_adds_to_the_base_what_hiding_it_takes_there(text: str, examined: Examined) -> None:
    explanation = explain(examined.model, text)
    column = int(explanation.answer.argmax())
    encoded = examined.model.base.tokenizer(text, return_tensors="pt")
    n = len(explanation.pieces)
    rows = {name: values.repeat(n, 1) for name, values in encoded.items()}
    rows["attention_mask"].fill_diagonal_(0)  # row i lacks token i
    with torch.inference_mode(), examined.model.adapters.disabled():
        logits = [examined.model.base.model(**batch).logits.double().numpy() for batch in (encoded, rows)]
    whole, hidden = (values[:, column] - values[:, 1 - column] for values in logits)
    own = np.array([piece.part is None for piece in explanation.pieces])
    assert np.isnan(explanation.base_contribution[own]).all()
    assert explanation.base_contribution[~own] == pytest.approx((whole - hidden)[~own], abs=1e-4)
    assert np.abs(explanation.base_contribution[~own] - explanation.contribution[~own]).max() > 0.01, (
        "not those of the adapter"
    )


def test_a_word_of_the_base_speaks_for_the_answer_of_the_adapter(trained_run: Path) -> None:
    model = load_run(trained_run)
    before = explain(model, TEXT)
    column = int(before.answer.argmax())
    with model.adapters.disabled():
        bare = margins(model, model.predict([TEXT]), column)[0]
    assert bare < before.margin
    lean(model, column, -(bare + before.margin) / 2)
    explanation = explain(model, TEXT)
    assert int(explanation.answer.argmax()) == column
    with model.adapters.disabled():
        assert int(model.predict([TEXT]).prediction[0]) != column, "else both would be asked for the same class"
    assert explanation.base_contribution == pytest.approx(before.base_contribution, abs=1e-4, nan_ok=True)


def test_gates_are_those_of_the_prediction_and_the_base_moves_nothing(examined: Examined) -> None:
    explanation = explain(examined.model, TEXT)
    gate = examined.model.predict([TEXT]).gate
    assert gate is not None
    assert explanation.gate == pytest.approx(gate[0])
    assert explanation.token_gate is None
    assert explanation.moved is not None
    assert explanation.moved.shape == (2, len(explanation.pieces))
    assert (explanation.moved > 0).any()
    with examined.model.adapters.disabled():
        still = explain(examined.model, TEXT)
    assert still.moved == pytest.approx(np.zeros_like(explanation.moved))


def test_pairs_know_which_text_a_token_is_from(examined: Examined) -> None:
    explanation = explain(examined.model, "great film", "dull plot")
    assert [piece.text for piece in explanation.pieces if piece.part == 1] == ["dull", "plot"]


def test_gates_one_a_token_are_shown_token_by_token(tiny_bert: Path, tiny_data: Path, tmp_path: Path) -> None:
    import dynlora

    config = tiny_config(tiny_bert, tiny_data, strategy={"name": "dynamic", "gates": "token"}, train__steps=10)
    explanation = Examined(dynlora.train(config, tmp_path, progress=False).folder).explained(TEXT, None)
    table = np.array(explanation["token_gate"], dtype=float)
    assert table.shape == (len(explanation["without"]), len(explanation["tokens"]))
    assert table.mean(1) == pytest.approx(explanation["gate"], abs=1e-5)


def test_frozen_gates_answer_as_baked_ones(examined: Examined, trained_run: Path) -> None:
    frozen = examined.answers([TEXT], None, "frozen")[0]["probabilities"]
    baked = averaged(trained_run)
    assert frozen == pytest.approx(baked.answers([TEXT])[0]["probabilities"], abs=1e-5)
    bare = examined.answers([TEXT], None, "base")[0]["probabilities"]
    with baked.adapters.disabled():
        assert bare == pytest.approx(baked.answers([TEXT])[0]["probabilities"], abs=1e-6)


def test_a_shift_of_nothing_changes_nothing(examined: Examined) -> None:
    shift = examined.shifted("typos", 0.0, rows=24)
    assert shift["changed"] == 0
    assert shift["before"] == shift["after"]
    moved = examined.shifted("cut", 0.8, rows=24)
    assert moved["after"]["metrics"]["loss"] != moved["before"]["metrics"]["loss"]
    assert len(moved["after"]["gate"]) == len(examined.model.adapters)


def test_groups_add_up_to_the_whole(examined: Examined) -> None:
    groups = examined.by_group(rows=60)
    sizes = np.array([part["rows"] for part in groups["groups"].values()])
    losses = np.array([part["metrics"]["loss"] for part in groups["groups"].values()])
    assert sizes.sum() == groups["whole"]["rows"] == 60
    assert (sizes * losses).sum() / 60 == pytest.approx(groups["whole"]["metrics"]["loss"], abs=1e-5)


def test_other_data_needs_the_same_labels_in_any_order(examined: Examined, tiny_data: Path, tmp_path: Path) -> None:
    same = examined.elsewhere({"path": str(tiny_data), "max_length": 16})
    assert same["rows"] == 80
    assert same["metrics"]["accuracy"] == pytest.approx(
        examined.model.evaluate(examined.data.held_out)["accuracy"], abs=1e-6
    )
    lines = (tiny_data / "validation.csv").read_text().replace(",good,", ",yes,").replace(",bad,", ",no,")
    other = tmp_path / "other.csv"
    other.write_text(lines)
    with pytest.raises(ConfigError, match="its labels are no, yes, the run's bad, good"):
        examined.elsewhere({"path": str(other)})


@pytest.mark.parametrize("texts", [[], [""], ["  "], ["x" * (MAX_CHARACTERS + 1)], ["x"] * 501])
def test_texts_that_cannot_be_asked_are_refused(texts: list[str]) -> None:
    with pytest.raises(ConfigError, match="text"):
        checked_texts(texts, None)


@given(st.sampled_from(sorted(KINDS)), st.text(max_size=80), st.floats(0, 1))
def test_a_perturbation_is_the_same_again_whatever_stands_beside(kind: str, text: str, strength: float) -> None:
    alone = perturbed([text], kind, strength, 3)
    assert perturbed(["another", text], kind, strength, 3)[1:] == alone
    assert not text.strip() or alone[0].strip()


@given(st.sampled_from(["typos", "upper", "negated"]), st.text(max_size=80))
def test_a_perturbation_of_nothing_leaves_the_text(kind: str, text: str) -> None:
    assert perturbed([text], kind, 0.0, 0) == [text]


def test_perturbations_by_hand() -> None:
    assert perturbed(["one two three four"], "cut", 0.5, 0) == ["one two"]
    assert perturbed(["this film is fine"], "negated", 1.0, 0) == ["this film is not fine"]
    assert perturbed(["what a film"], "negated", 1.0, 0) == ["It is not true that what a film"]
    assert perturbed(["so good"], "upper", 1.0, 0) == ["SO GOOD"]
    mistyped = perturbed(["wonderful"], "typos", 1.0, 0)[0]
    assert mistyped != "wonderful"
    assert abs(len(mistyped) - len("wonderful")) <= 1
    for kind, strength in (("nonsense", 0.5), ("cut", 1.5), ("cut", float("nan"))):
        with pytest.raises(ConfigError):
            perturbed(["x"], kind, strength, 0)
