"""The ranks of a run, the evidence for them, and a LoraConfig that PEFT builds the same adapters from."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from dynlora.analysis import ranks_to_use
from dynlora.analysis.frames import described
from dynlora.store import queries
from tests.summaries import summary_with

KINDS = ("query", "value")


def modules() -> pd.DataFrame:
    rows = [(f"layer.{layer}.{kind}", layer, kind, 8, 8, 16) for layer in range(3) for kind in KINDS]
    frame = pd.DataFrame(rows, columns=["name", "layer", "kind", "d_in", "d_out", "max_rank"])
    return described(frame.astype({"layer": "Int64"}))


def effects(known: dict[int, tuple[float, float]]) -> pd.DataFrame:
    rows = [(position, (low + high) / 2, low, high) for position, (low, high) in known.items()]
    return pd.DataFrame(rows, columns=["position", "delta", "low", "high"])


def evidence_of(
    ranks: list[int],
    known: dict[int, tuple[float, float]] | None = None,
    *others: list[int],
    start: list[float] | None = None,
) -> Any:
    frame = modules()
    names = frame.sort_values("position")["name"].tolist()
    norms: dict[str, np.ndarray | None] = {"delta_norm": np.arange(6.0), "effective_rank": None}
    first = np.full(6, 4.0) if start is None else np.array(start)
    return ranks_to_use.evidence(
        frame,
        dict(zip(names, ranks, strict=True)),
        first,
        effects(known or {}),
        500 if known else 0,
        norms,
        [dict(zip(names, other, strict=True)) for other in others],
    )


@pytest.mark.parametrize(
    ("status", "step", "first", "are_final"),
    [("finished", 9, 12, True), ("stopped", 12, 12, False), ("stopped", 13, 12, True), ("stopped", 5, None, True)],
)
def test_a_run_stopped_before_a_rank_could_move_offers_no_ranks(
    status: str, step: int, first: int | None, are_final: bool, trained_run: Path
) -> None:
    update = {"status": status, "step": step, "first_reallocation": first}
    summary = queries.run_summary(trained_run).model_copy(update=update)
    assert ranks_to_use.are_final(summary) is are_final


def test_kinds_are_ordered_by_the_rank_they_ended_with() -> None:
    evidence = evidence_of([2, 8, 1, 8, 0, 5], {0: (0.1, 0.3), 1: (-0.1, 0.1), 2: (-0.3, -0.1)})
    kinds = ranks_to_use.by_kind(evidence).set_index("kind")
    assert list(kinds.index) == ["value", "query"]
    assert (kinds.loc["query", "rank"], kinds.loc["query", "least"], kinds.loc["query", "most"]) == (1, 0, 2)
    assert kinds["share"].sum() == pytest.approx(1)
    assert (kinds.loc["query", "helping"], kinds.loc["query", "measured"]) == (1, 2)
    assert kinds.loc["value", "norm"] == pytest.approx((1 + 3 + 5) / 3)
    assert "most rank went to value (mean 7), least to query (1)" in ranks_to_use.headline(evidence)
    assert "effective rank" not in ranks_to_use.kinds_table(evidence), "nothing was recorded"
    assert "1 module helps (95 % CI above 0), 1 harms, 1 is not shown" in ranks_to_use.confidence(evidence)


def test_kinds_of_equal_mean_rank_tie() -> None:
    even = ranks_to_use.headline(evidence_of([2, 4, 4, 4, 6, 4], start=[0, 1, 0, 1, 1, 0]))
    assert "The mean rank of every kind is 4; single modules have ranks from 2 to 6" in even
    rows = modules().assign(label=["a", "a", "b", "b", "c", "c"])
    evidence = ranks_to_use.evidence(
        rows,
        dict(zip(rows["name"], [5, 5, 5, 5, 1, 1], strict=True)),
        np.full(6, 6.0),
        effects({}),
        0,
        {"delta_norm": None, "effective_rank": None},
    )
    assert "a and b (tie at mean 5), least to c (1)" in ranks_to_use.headline(evidence)


def test_ranks_that_were_set_before_training_have_not_moved() -> None:
    assert ranks_to_use.headline(evidence_of([2, 8, 1, 8, 0, 5], start=[2, 8, 1, 8, 0, 5])).endswith(
        ", as set before training."
    )
    unknown = evidence_of([2, 8, 1, 8, 0, 5], start=[float("nan")] * 6)
    assert "start" not in ranks_to_use.headline(unknown)


def test_confidence_names_what_is_not_shown_to_help() -> None:
    evidence = evidence_of([2, 8, 1, 8, 1, 5], {n: (0.1, 0.2) for n in range(5)} | {5: (-0.1, 0.1)})
    assert evidence.is_measured
    confidence = ranks_to_use.confidence(evidence)
    assert "5 modules help (95 % CI above 0), 1 is not shown to help when turned off alone (value 2)" in confidence
    assert "One seed" in confidence
    caption = ranks_to_use.confidence(evidence_of([4] * 6), "This run has no saved adapter.")
    assert "Run the module ablation" in ranks_to_use.confidence(evidence_of([4] * 6))
    assert "Run the module ablation" not in caption


def test_seeds_that_agree_say_so_and_ranks_that_never_moved_claim_nothing() -> None:
    ranks = [2, 8, 1, 7, 3, 5]
    assert ranks_to_use.agreement_of_seeds(evidence_of(ranks, None, ranks, ranks)) == pytest.approx(1)
    assert "between 3 seeds with a Spearman correlation of +1.00" in ranks_to_use.confidence(
        evidence_of(ranks, None, ranks, ranks)
    )
    still = evidence_of([4] * 6, None, [4] * 6)
    assert ranks_to_use.agreement_of_seeds(still) is None
    assert "gives no reason to prefer others" in ranks_to_use.headline(still)
    assert "The same ranks in 2 seeds." in ranks_to_use.confidence(still)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # of PEFT, in transformers 5
def test_the_code_makes_peft_build_the_adapters_of_the_run(trained_run: Path) -> None:
    from peft import get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers import AutoModelForSequenceClassification

    summary = queries.run_summary(trained_run)
    settings = ranks_to_use.lora_settings(summary, summary.ranks)
    assert settings is not None
    assert settings.is_scaling_known
    names: dict[str, Any] = {}
    exec(ranks_to_use.code(settings), names)
    assert names["config"].task_type == "SEQ_CLS"
    assert summary.model is not None
    base = AutoModelForSequenceClassification.from_pretrained(summary.model, num_labels=2)
    model = get_peft_model(base, names["config"])
    built = {
        name.removeprefix("base_model.model."): (layer.r["default"], layer.scaling["default"])
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }
    scaling = json.loads((trained_run / "adapter" / "state.json").read_text())
    assert {name: rank for name, (rank, _) in built.items()} == {n: r for n, r in summary.ranks.items() if r}
    assert len(set(summary.ranks.values())) > 1, "the run moved rank, or this shows nothing"
    for name, (_, built_scaling) in built.items():
        assert built_scaling == pytest.approx(summary.scaling[name])
        assert re.search(rf'"{re.escape(name)}"', json.dumps(scaling))
    read = yaml.safe_load(ranks_to_use.axolotl(settings))
    for theirs, ours in {"r": "r", "alpha": "lora_alpha", "rank_pattern": "rank_pattern"}.items():
        assert read[f"lora_{theirs}"] == getattr(names["config"], ours)
    assert read.get("lora_alpha_pattern", {}) == names["config"].alpha_pattern
    assert set(read["lora_target_modules"]) == names["config"].target_modules


def test_alphas_with_a_fraction_are_named_as_what_axolotl_refuses() -> None:
    summary = {"config": {"adapter": {"rank": 4, "alpha": 6}}, "scaling": {}, "peft_task_type": None}
    whole, broken = (
        ranks_to_use.lora_settings(summary_with(summary), ranks) for ranks in ({"a": 4, "b": 2}, {"a": 4, "b": 3})
    )
    assert whole is not None
    assert broken is not None
    assert "refuses" not in ranks_to_use.axolotl(whole)
    assert ranks_to_use.axolotl(broken).startswith("# Axolotl refuses alphas with a fraction")
    read = yaml.safe_load(ranks_to_use.axolotl(broken))
    assert (read["lora_alpha"], read["lora_alpha_pattern"]) == (4.5, {"a": 6})


def test_a_run_that_recorded_no_scaling_says_so_and_takes_its_settings() -> None:
    summary = summary_with({"config": {"adapter": {"rank": 4, "alpha": 16}}})
    settings = ranks_to_use.lora_settings(summary, {"a": 4, "b": 2, "c": 4, "d": 0})
    assert settings is not None
    assert (settings.r, settings.lora_alpha, settings.target_modules) == (4, 16, ["a", "b", "c"])
    assert (settings.rank_pattern, settings.alpha_pattern) == ({"b": 2}, {"b": 8})
    code = ranks_to_use.code(settings)
    assert "did not record its scaling" in code
    assert "task_type" not in code
    compile(code, "config", "exec")
    assert ranks_to_use.lora_settings(summary, {"a": 0}) is None


def test_names_of_a_hostile_run_stay_text_in_the_code() -> None:
    name = 'x\'); import os  # \n"""'
    settings = ranks_to_use.lora_settings(summary_with({"config": {}}), {name: 2})
    assert settings is not None
    import ast

    (_, made) = [node for node in ast.parse(ranks_to_use.code(settings)).body if not isinstance(node, ast.Expr)]
    (targets,) = [k.value for k in made.value.keywords if k.arg == "target_modules"]  # pyright: ignore
    assert ast.literal_eval(targets) == [name]
