"""An adapter at other strengths: what is measured, the export with the factor folded in, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
import transformers

from dynlora.errors import ConfigError
from dynlora.inference.compress import best_of, checked_strengths, strength_curve
from dynlora.inference.session import Examined, load_run
from dynlora.inference.writing import ablation, estimate, token_view, written
from tests.command_line import document, run
from tests.inference.averaged import averaged


@pytest.fixture(scope="module")
def examined(writer: Path) -> Examined:
    return Examined(writer)


def test_each_strength_is_the_loss_of_the_scaled_adapter(examined: Examined, writer: Path) -> None:
    curve = list(strength_curve(examined, [0.0, 0.5, 1.0], 30))
    sample = examined.sample(30)
    for point in curve:
        by_hand = load_run(writer)
        by_hand.adapters.scale(point.strength)
        assert point.loss == pytest.approx(by_hand.evaluate(sample)["loss"], rel=1e-5)
        assert point.low < point.loss < point.high
        assert point.metrics["perplexity"] == pytest.approx(np.exp(point.loss), rel=1e-4)
    base, _, whole = curve
    assert base.forgotten.forgotten == pytest.approx(0, abs=1e-6)
    assert (whole.difference, whole.difference_low, whole.difference_high) == (0, 0, 0)
    assert base.difference == pytest.approx(base.loss - whole.loss)
    assert not base.is_like_trained
    assert best_of(curve) is min(curve, key=lambda point: point.loss)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_the_best_strength_is_exported_folded_in(
    writer: Path, exported: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    report = document(run(writer.parent, "strength", writer.name, "--strengths", "0.75", "--out", str(out), "--json"))
    assert (report["best"], report["exported"]["strength"], report["rows"]) == (0.75, 0.75, 40)
    model = averaged(writer)
    with model.adapters.scaled(0.75):
        inputs = model.base.tokenizer(["a2:"], return_tensors="pt")
        with torch.no_grad():
            expected = model.base.model(**inputs).logits
    settings = json.loads((out / "adapter_config.json").read_text("utf-8"))
    trained = json.loads((exported(writer, "peft") / "adapter_config.json").read_text("utf-8"))
    assert settings == trained, "the factor is in B, and in no setting that a reader may ignore"
    base = transformers.AutoModelForCausalLM.from_pretrained(writer.parents[1] / "model")
    loaded = peft.PeftModel.from_pretrained(base, str(out)).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    card = (out / "README.md").read_text("utf-8")
    assert "multiplied by 0.75" in card
    assert "## Retention" in card
    assert "exactly" not in card


def test_the_command_says_each_strength_and_the_best(writer: Path) -> None:
    output = run(writer.parent, "strength", writer.name, "--strengths", "1,0", "--rows", "20").stdout
    lines = output.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["0", "1"]
    assert "Lowest held-out loss at strength 1, on 20 of 40 held-out examples." in lines[3]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--strengths", "0,x"), "--strengths 0,x: must be numbers separated by commas, such as 0,0.5,1"),
        (("--strengths", "0,nan"), "--strengths 0,nan: must be numbers separated by commas"),
        (("--strengths", "5"), "--strengths 5: must be from 0 (the base model) to 4; 1 is as trained"),
        (("--which", "first"), "first"),
    ],
)
def test_what_is_wrong_is_one_sentence(arguments: tuple[str, ...], sentence: str, writer: Path) -> None:
    refused = run(writer.parent, "strength", writer.name, *arguments)
    assert refused.exit_code == 2
    assert sentence in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_strengths_are_each_measured_once_in_rising_order() -> None:
    assert checked_strengths([1, 0.5, 1]) == [0.5, 1]
    with pytest.raises(ConfigError, match="51 strengths given; give 1 to 50"):
        checked_strengths([place / 100 for place in range(51)])


def test_a_text_is_written_at_a_strength_and_others_are_not_disturbed(examined: Examined) -> None:
    def start(mode: str, strength: float) -> list[int]:
        steps, _ = written(examined, mode, temperature=0, seed=0, new_tokens=8, strength=strength, text="a2:")
        return [message["id"] for message in steps]

    assert start("adapter", 0.0) == start("base", 1.0)
    assert start("base", 0.5) == start("base", 1.0)
    whole = start("adapter", 1.0)
    both = [
        written(examined, "adapter", temperature=0, seed=0, new_tokens=8, strength=strength, text="a2:")[0]
        for strength in (0.0, 1.0)
    ]
    in_turn = list(zip(*both, strict=False))
    assert [message["id"] for _, message in in_turn] == whole[: len(in_turn)]
    with pytest.raises(ConfigError, match=r"strength=4\.5: must be from 0"):
        start("adapter", 4.5)


def test_tokens_and_modules_are_those_of_the_strength(examined: Examined) -> None:
    prompt, ids = "a2:", examined.model.base.tokenizer("aa")["input_ids"]
    at_zero = token_view(examined, ids, 0.0, text=prompt)["tokens"]
    assert [row["adapter"] for row in at_zero] == pytest.approx([row["base"] for row in at_zero], abs=1e-5)
    half, whole = (estimate(examined, ids, strength, text=prompt)["adds"] for strength in (0.5, 1.0))
    assert half != whole
    steps, n = ablation(examined, ids, 0.0, text=prompt)
    effects = [abs(message["adds"]) for message in steps]
    assert len(effects) == n
    assert max(effects) < 1e-4
    assert not any(module._forward_hooks for module in examined.model.adapters)


def test_a_prediction_is_scaled(trained_run: Path) -> None:
    examined = Examined(trained_run)
    texts = ["the film was great", "a dull plot"]
    scaled = examined.answers(texts, None, strength=0.0)
    base = examined.answers(texts, None, "base")
    for one, other in zip(scaled, base, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
    assert examined.answers(texts, None, strength=0.5) != examined.answers(texts, None)
    zero = examined.explained(texts[0], None, 0.0)
    assert zero["contribution"][1:-1] == pytest.approx(zero["base_contribution"][1:-1], abs=1e-4)
    with pytest.raises(ConfigError, match="strength=-1: must be from 0"):
        examined.answers(texts, None, strength=-1)
