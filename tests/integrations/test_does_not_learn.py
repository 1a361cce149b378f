"""Set-ups that do not learn are named rightly, and healthy ones are silent, by step 20."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import dynlora
from dynlora import strategies
from dynlora.analysis.health import outcome
from dynlora.analysis.learning import MEANINGS, symptoms_of
from dynlora.analysis.run_reading import read_run
from dynlora.config import parse_config
from dynlora.integrations.transformers import RecordCallback
from dynlora.store import queries
from dynlora.store.summary import ADAPTER_DIR
from dynlora.training import run as training_run
from tests.custom_loop.test_attached import batch, classifier
from tests.custom_loop.test_trainer_callback import Rows, arguments
from tests.tiny import save_data, tiny_config

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),  # PEFT asks the old name
    pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning"),  # the point of one set-up
    pytest.mark.filterwarnings("ignore:dynlora. After:UserWarning"),
]

TARGETS = ["query", "value", "intermediate.dense"]


def adapted(folder: Path, **settings: Any) -> Any:
    """The tiny BERT with PEFT's LoRA."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(4)
    usual = {"r": 3, "lora_alpha": 6, "target_modules": TARGETS, "task_type": "SEQ_CLS"}
    return get_peft_model(classifier(folder), LoraConfig(**{**usual, **settings}))  # pyright: ignore


def factors(model: Any) -> list[Any]:
    """A and B of all modules."""
    return [parameter for name, parameter in model.named_parameters() if "lora_" in name]


def frozen(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    for parameter in factors(model):
        parameter.requires_grad_(False)
    return model, {}


def outside(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    own = {id(parameter) for parameter in factors(model)}
    head = [one for one in model.parameters() if one.requires_grad and id(one) not in own]
    return model, {"optimizers": (torch.optim.AdamW(head, lr=1e-2), None)}


def disabled(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    model.merge_adapter()
    return model, {}


def checkpointing(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    model.enable_input_require_grads = model.get_base_model().enable_input_require_grads = lambda: None
    return model, {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}


def detached(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    model.get_base_model().bert.encoder.layer[0].register_forward_hook(lambda *seen: _cut(seen[-1]))
    return model, {}


def _cut(output: Any) -> Any:
    return output.detach() if isinstance(output, torch.Tensor) else tuple(one.detach() for one in output)


def no_scaling(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder, lora_alpha=0), {}


def both_zero(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    for parameter in factors(model):
        torch.nn.init.zeros_(parameter)
    return model, {}


def no_rate(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    head = [one for name, one in model.named_parameters() if one.requires_grad and "lora_" not in name]
    groups = [{"params": factors(model), "lr": 0.0}, {"params": head, "lr": 1e-2}]
    return model, {"optimizers": (torch.optim.AdamW(groups), None)}


class Skipping(torch.optim.AdamW):
    """An optimizer that takes no step, as a scaler skips each one while gradients are not finite."""

    def step(self, closure: Any = None) -> None:
        """Leave the weights."""


def skipped(folder: Path) -> tuple[Any, dict[str, Any]]:
    model = adapted(folder)
    trained = [one for one in model.parameters() if one.requires_grad]
    return model, {"optimizers": (Skipping(trained, lr=1e-2), None)}


def rounded(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder).to(torch.bfloat16), {"learning_rate": 1e-5}


def small(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder), {"learning_rate": 1e-7}


def large(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder, lora_alpha=3000), {"learning_rate": 1e-2}


def healthy(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder), {}


def warmed_up(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder), {"max_steps": 22, "warmup_steps": 22, "learning_rate": 1e-3}


def stabilised(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder, use_rslora=True, lora_dropout=0.1), {"gradient_accumulation_steps": 2}


def from_singular_vectors(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder, init_lora_weights="pissa"), {}


def one_block(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder, layers_to_transform=[1]), {"learning_rate": 2e-4}


def checkpointing_well(folder: Path) -> tuple[Any, dict[str, Any]]:
    return adapted(folder), {
        "gradient_checkpointing": True,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
    }


Setup = Callable[[Path], tuple[Any, dict[str, Any]]]

BROKEN: list[tuple[Setup, str, bool]] = [
    (frozen, "frozen", True),
    (outside, "outside", True),
    (disabled, "disabled", True),
    (checkpointing, "checkpointing", True),
    (detached, "no_gradient", False),
    (no_scaling, "no_scaling", True),
    (both_zero, "zero_gradient", True),
    (no_rate, "no_rate", True),
    (skipped, "unmoved", True),
    (rounded, "rounded", True),
    (small, "small", True),
    (large, "large", True),
]
"""Set-ups in PEFT and the Trainer, the symptom of each, and whether all modules have it."""

HEALTHY: list[Setup] = [healthy, warmed_up, stabilised, from_singular_vectors, one_block, checkpointing_well]


def recorded(setup: Setup, base: Path, folder: Path) -> dynlora.Run:
    """Train 20 steps with transformers' Trainer and return the run."""
    from transformers import Trainer, TrainingArguments

    model, options = setup(base)
    optimizers = options.pop("optimizers", (None, None))
    settings = arguments(folder / "out", **{"save_strategy": "no", "eval_strategy": "no", "max_steps": 20, **options})
    callback = RecordCallback("mine", folder / "runs", keep_adapter=False)
    Trainer(
        model, TrainingArguments(**settings), train_dataset=Rows(), callbacks=[callback], optimizers=optimizers
    ).train()
    assert callback.folder is not None
    assert not callback.is_broken
    return dynlora.open_run(callback.folder)


def symptoms(run: Any) -> list[Any]:
    """What the run's event says."""
    [payload] = run.events("learning")["payload"]
    return symptoms_of(payload)


@pytest.mark.parametrize(("setup", "kind", "all_modules"), BROKEN, ids=lambda one: getattr(one, "__name__", ""))
def test_what_does_not_learn_is_named(
    setup: Setup, kind: str, all_modules: bool, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="dynlora: After 20 steps") as warned:
        run = recorded(setup, tiny_bert, tmp_path)
    [symptom] = symptoms(run)
    assert symptom.kind == kind
    assert (len(symptom.modules) == symptom.of) == all_modules
    [text] = [str(one.message) for one in warned if "After 20 steps" in str(one.message)]
    assert MEANINGS[kind].remedy in text
    findings = outcome(read_run(run.folder).evidence).findings
    assert MEANINGS[kind].title in [finding.title for finding in findings]


@pytest.mark.parametrize("setup", HEALTHY, ids=lambda one: one.__name__)
def test_what_learns_is_silent(setup: Setup, tiny_bert: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "dynlora")
        run = recorded(setup, tiny_bert, tmp_path)
    assert symptoms(run) == []
    assert "the adapters learn" in outcome(read_run(run.folder).evidence).passed
    assert not (run.folder / ADAPTER_DIR).exists(), "none was to be kept"


# --- our own loop


def attached(folder: Path, **options: Any) -> Any:
    """The tiny BERT in a loop of one's own; plain LoRA where nothing else is asked for."""
    return dynlora.attach(classifier(folder), **{"strategy": "lora", "budget": 3, "steps": 20, "lr": 1e-2, **options})


def own_factors(loop: Any) -> list[Any]:
    """A and B of all modules."""
    return [tensor for module in loop.adapters for tensor in module.trained_tensors()]


def loop_outside(loop: Any) -> None:
    own = {id(tensor) for tensor in own_factors(loop)}
    for group in loop.optimizer.param_groups:
        group["params"] = [one for one in group["params"] if id(one) not in own]


def loop_detached(loop: Any) -> None:
    loop.model.bert.encoder.layer[0].register_forward_hook(lambda *seen: _cut(seen[-1]))


def loop_no_rate(loop: Any) -> None:
    for group in loop.optimizer.param_groups:  # a schedule that nobody meant
        group["lr"] = 0.0


def loop_fast_head(loop: Any) -> None:
    """A head at the rate that is usual for one does not hide how slow the adapters are."""
    loop.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1e-2})


def loop_disabled(loop: Any) -> None:
    for module in loop.adapters:
        module.enabled = False


LOOPS: list[tuple[Callable[[Any], None], str, dict[str, Any]]] = [
    (loop_outside, "outside", {}),
    (loop_disabled, "disabled", {}),
    (loop_detached, "no_gradient", {}),
    (loop_no_rate, "no_rate", {}),
    (loop_fast_head, "small", {"lr": 1e-7}),
]
"""What is done to a loop of one's own after `attach`, the symptom, and options of `attach`."""


def steps_taken(loop: Any, steps: int = 20) -> None:
    """Take steps in a loop of one's own."""
    for step in range(steps):
        loop.model(**batch(step)).loss.backward()
        loop.step()


@pytest.mark.parametrize(("spoil", "kind", "options"), LOOPS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_loop_of_ones_own_is_warned(
    spoil: Callable[[Any], None], kind: str, options: dict[str, Any], tiny_bert: Path
) -> None:
    loop = attached(tiny_bert, **options)
    spoil(loop)
    with pytest.warns(UserWarning, match="dynlora: After 20 steps") as warned:
        steps_taken(loop)
    assert [one.kind for one in loop.first_steps.symptoms] == [kind]
    assert MEANINGS[kind].remedy in "".join(str(one.message) for one in warned)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "dynamic", "warmup_steps": 2, "allocate_every": 2, "final_steps": 2, "moves": 4},
        {"strategy": "adalora"},
        {"steps": 100, "lr": 2e-4},
        {"strategy": "lora", "budget": 1},
    ],
    ids=["lora", "dynamic", "adalora", "slow", "rank 1"],
)
def test_a_loop_that_learns_is_silent(options: dict[str, Any], tiny_bert: Path) -> None:
    loop = attached(tiny_bert, **{"calibration": [batch(100)], **options})
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "dynlora")
        steps_taken(loop)
    assert loop.first_steps.symptoms == []


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(name, marks=() if at % 3 == 0 else pytest.mark.torture)  # that all learn: the contract
        for at, name in enumerate(sorted(strategies.registry()))
    ],
)
def test_every_method_learns_at_the_default_rates(strategy: str, tiny_bert: Path, tmp_path: Path) -> None:
    rates = {f"train__{name}": getattr(parse_config({}).train, name) for name in ("lr", "head_lr")}
    config = tiny_config(tiny_bert, save_data(tmp_path), strategy={"name": strategy}, train__steps=40, **rates)
    outcome_of = training_run.train(config, tmp_path / "runs", progress=False)
    assert outcome_of.state == "finished", outcome_of.error
    assert symptoms(dynlora.open_run(outcome_of.folder)) == []


def test_our_loop_says_it_in_the_log(tiny_bert: Path, tmp_path: Path) -> None:
    config = tiny_config(tiny_bert, save_data(tmp_path), strategy={"name": "lora"}, train__steps=20, train__lr=1e-8)
    folder = training_run.train(config, tmp_path / "runs", progress=False).folder
    run = dynlora.open_run(folder)
    assert [one.kind for one in symptoms(run)] == ["small"]
    lines = queries.logs_frame(folder)
    warned = lines.loc[lines["level"] == "warning", "message"]
    assert warned.str.contains("at this pace the update ends below").sum() == 1
