"""A strategy in a loop of one's own: refused where it cannot work, saved and loaded to the bit, exported for PEFT."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynlora
from dynlora.api import Attached
from dynlora.errors import ConfigError, CorruptRunError
from dynlora.peft_adapter.read import read_header
from dynlora.strategies.lora import Lora
from tests.tiny_lm import tiny_decoder

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # PEFT asks the old name

STEPS = 12
MOVES = {"warmup_steps": 2, "allocate_every": 2, "final_steps": 2, "moves": 4}


def classifier(folder: Path) -> Any:
    """The tiny BERT with a head for two classes."""
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)


def batch(seed: int, words: int = 20) -> dict[str, Tensor]:
    """Random tokens with labels that they tell."""
    ids = torch.randint(5, words, (8, 6), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (ids[:, 0] > words // 2).long()}


def attached_to(model: Any, **options: Any) -> Attached:
    """Attach with ranks that move often."""
    given = {"strategy": "dynamic", "budget": 3, "steps": STEPS, "lr": 1e-2, "calibration": [batch(100)], **options}
    return dynlora.attach(model, **{**(MOVES if given["strategy"] == "dynamic" else {}), **given})


def trained(attached: Attached, first: int, last: int) -> list[float]:
    """Take steps; return their losses."""
    attached.model.train()
    losses = []
    for step in range(first, last):
        torch.manual_seed(step)  # of the dropout that the model brings along: its state is the loop's to keep
        loss = attached.model(**batch(step)).loss + attached.penalty()
        loss.backward()
        attached.step()
        losses.append(loss.item())
    return losses


def logits(model: Any) -> Tensor:
    """What the model says of a batch."""
    model.eval()
    with torch.no_grad():
        return model(**{name: value for name, value in batch(200).items() if name != "labels"}).logits


@pytest.mark.parametrize(
    "options",
    [{"dropout": 0.1}, {"gates": "rank"}, {"gates": "scale"}, {"strategy": "adalora"}, {"strategy": "lora"}],
    ids=["dynamic", "gates of components", "learned scales", "adalora", "lora"],
)
def test_what_was_saved_goes_on_to_the_bit(tiny_bert: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    whole = attached_to(classifier(tiny_bert), **options)
    losses = trained(whole, 0, STEPS)

    half = attached_to(classifier(tiny_bert), **options)
    trained(half, 0, STEPS // 2)
    half.save(tmp_path / "state")
    again = attached_to(classifier(tiny_bert), **options)
    again.load(tmp_path / "state")
    assert again.index == STEPS // 2
    assert trained(again, STEPS // 2, STEPS) == losses[STEPS // 2 :]
    assert again.adapters.ranks == whole.adapters.ranks
    assert torch.equal(logits(again.model), logits(whole.model))


def test_a_state_of_other_arguments_or_none_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    saved = attached_to(classifier(tiny_bert))
    saved.save(tmp_path / "state")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("of months")
    for folder, kind in ((tmp_path / "mine", "not an empty folder"), (tmp_path / "mine" / "notes.txt", "a file")):
        with pytest.raises(ConfigError, match=f"^save: {folder}: exists and is {kind}; give another name"):
            saved.save(folder)
    with pytest.raises(ConfigError, match=r"load: the state was saved with budget=3, and this is 2; use the same"):
        attached_to(classifier(tiny_bert), budget=2).load(tmp_path / "state")
    with pytest.raises(ConfigError, match=r"strategy\.moves=4"):
        attached_to(classifier(tiny_bert), moves=2).load(tmp_path / "state")
    with pytest.raises(CorruptRunError):
        saved.load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "options",
    [
        {"gates": "off"},
        {"gates": "scale"},
        {"strategy": "lora", "scale": "learned"},
        {"gates": "module"},
        {"gates": "rank"},
    ],
    ids=["no gates", "scale", "lora with a scale", "module", "component"],
)
def test_peft_loads_what_was_exported(tiny_bert: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    from peft import PeftModel

    attached = attached_to(classifier(tiny_bert), **options)
    trained(attached, 0, STEPS)
    before = logits(attached.model)
    folder = attached.export(tmp_path / "adapter", [batch(300), batch(301)])
    assert torch.equal(logits(attached.model), before), "it trains on unchanged"
    loaded = logits(PeftModel.from_pretrained(classifier(tiny_bert), folder))
    gates = attached.adapters.gates
    if gates is None:
        torch.testing.assert_close(loaded, before, rtol=0, atol=1e-5)
        return
    attached.model.eval()
    sums = torch.zeros_like(gates.bias)
    with torch.no_grad(), gates.adding_up(sums) if gates.mode == "rank" else nullcontext():
        for seed in (300, 301):
            attached.model(**batch(seed))
            if gates.mode != "rank" and gates.values is not None:
                sums += gates.values.sum(0)
    with gates.holding(sums / 16):
        torch.testing.assert_close(loaded, logits(attached.model), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="not an empty folder"):
        attached.export(tmp_path / "adapter", [batch(300)])


def test_gates_are_averaged_over_something(tiny_bert: Path, tmp_path: Path) -> None:
    attached = attached_to(classifier(tiny_bert), gates="module", calibration=[])
    with pytest.raises(ConfigError, match=r"export: the strategy has gates.*give batches="):
        attached.export(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_a_decoder_is_exported_in_every_form_of_an_adapter(tmp_path: Path) -> None:
    from peft import PeftModel

    attached = dynlora.attach(tiny_decoder(), strategy="dynamic", gates="off", budget=2, steps=4, lr=1e-2)
    ids = torch.randint(5, 200, (4, 9), generator=torch.Generator().manual_seed(0))
    for _ in range(4):
        attached.model(input_ids=ids, labels=ids).loss.backward()
        attached.step()
    with torch.no_grad():
        expected = attached.model(input_ids=ids).logits
    for ranks in ("as-trained", "uniform"):
        loaded = PeftModel.from_pretrained(tiny_decoder(), attached.export(tmp_path / ranks, ranks=ranks))
        with torch.no_grad():
            torch.testing.assert_close(loaded(input_ids=ids).logits, expected, rtol=0, atol=1e-5)
    assert len(set(read_header(tmp_path / "uniform").ranks.values())) == 1 < len(set(attached.adapters.ranks))
    assert read_header(attached.export(tmp_path / "mlx", form="mlx")).layout == "mlx"
    for form, names in {"gguf": ["adapter.gguf"], "ollama": ["Modelfile", "adapter.gguf"]}.items():
        assert sorted(path.name for path in attached.export(tmp_path / form, form=form).iterdir()) == names
    with pytest.raises(ConfigError, match="is no adapter; export peft, and merge it"):
        attached.export(tmp_path / "merged", form="merged")
    with torch.no_grad():
        assert torch.equal(attached.model(input_ids=ids).logits, expected), "it trains on unchanged"


def test_what_cannot_work_is_refused_in_a_sentence(tiny_bert: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = classifier(tiny_bert)
    attached = attached_to(model, steps=STEPS)
    with pytest.raises(ConfigError, match=r"attach: the model has dynlora's adapters already, as at bert\.encoder"):
        attached_to(model)
    trained(attached, 0, STEPS)
    with pytest.raises(ConfigError, match=rf"attach\(steps={STEPS}\): all steps were taken"):
        attached.step()
    theirs = get_peft_model(classifier(tiny_bert), LoraConfig(target_modules=["query"]))  # pyright: ignore
    with pytest.raises(ConfigError, match=r"attach: the model is one of PEFT's.*give the base model"):
        attached_to(theirs)
    with pytest.raises(ConfigError, match=r"attach: the model is wrapped in DataParallel; give the model inside"):
        dynlora.attach(nn.DataParallel(classifier(tiny_bert)), steps=STEPS)
    for other in (None, "minilm"):
        with pytest.raises(ConfigError, match=rf"attach\(model={other!r}\): must be a torch\.nn\.Module"):
            dynlora.attach(other, steps=STEPS)  # pyright: ignore[reportArgumentType]


def network(**where: Any) -> nn.Sequential:
    """Two linear modules, named 0 and 2."""
    return nn.Sequential(nn.Linear(8, 8, **where), nn.Tanh(), nn.Linear(8, 2, **where))


def of_inference() -> nn.Module:
    """A model that was made where nothing can be trained."""
    with torch.inference_mode():
        return network()


def holding(value: float) -> nn.Module:
    """A model with one weight that is no number."""
    model = network()
    model.get_parameter("0.weight").data[3, 2] = value
    return model


@pytest.mark.parametrize(
    ("made", "arguments", "message"),
    [
        (of_inference, {}, r"weight 0\.weight was made in torch\.inference_mode\(\)"),
        (partial(network, device="meta"), {}, r"weight 0\.weight is on the device meta"),
        (partial(holding, -math.inf), {}, r"weight 0\.weight has numbers that are not finite"),
        (lambda: nn.Sequential(nn.LazyLinear(3)), {}, r"weight 0\.weight has no shape yet"),
        (lambda: nn.Sequential(nn.Tanh()), {}, r"targets=0: no linear module has this name; the model has none"),
        (lambda: nn.Sequential(nn.Linear(0, 3)), {"targets": ["0"]}, r"attach\(model=Sequential\): cannot be used"),
        (network, {"strategy": None}, r"attach\(strategy=None\): must be the name of a method"),
        (network, {"strategy": Lora}, r"attach\(strategy=<class.*Lora'>\): must be the name of a method"),
        (network, {"calibration": None}, r"attach\(calibration=\.\.\.\): cannot be used \(TypeError"),
        (network, {"calibration": {"input_ids": 3}}, r"attach\(calibration=\.\.\.\): cannot be used \(ValueError"),
        (
            tiny_decoder,
            {"gates": "module", "targets": None, "calibration": [{"nothing": torch.ones(2)}]},
            r"attach\(model=LlamaForCausalLM\): cannot be used \(ValueError.*calibration that it takes",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*zero-element")  # torch, of the module without inputs
def test_what_cannot_be_trained_is_refused_by_dynlora_not_by_torch(
    made: Callable[[], nn.Module], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dynlora.attach(made(), **{"steps": STEPS, "budget": 2, "gates": "off", "targets": ["0", "2"], **arguments})


def test_what_is_no_path_is_refused_in_a_sentence() -> None:
    attached: Any = dynlora.attach(network(), steps=STEPS, budget=2, gates="off", targets=["0", "2"])
    api: Any = dynlora
    for given, call in {
        "folder": attached.save,
        " folder": attached.load,
        "folder ": attached.export,
        " folder ": api.load,
        "runs_dir": partial(attached.record, "mine"),
        " runs_dir": partial(api.train, {}),
        "target": partial(api.speculate, "draft"),
        "data": lambda data: api.speculate("draft", "target", data=data),
    }.items():
        with pytest.raises(ConfigError, match=rf"{given.strip()}=3: must be a path"):
            call(3)


def test_a_bare_encoder_is_adapted_in_its_blocks_and_frozen_elsewhere(tiny_bert: Path, tmp_path: Path) -> None:
    """It was taken for its own head: unfrozen, and refused for want of linear modules."""
    from peft import PeftModel
    from transformers import AutoModel

    def encoder() -> Any:
        return AutoModel.from_pretrained(tiny_bert)

    attached = attached_to(encoder(), gates="off", calibration=[])
    assert attached.head == []
    assert {name.rpartition(".")[2] for name, one in attached.model.named_parameters() if one.requires_grad} == {
        "lora_A",
        "lora_B",
    }
    assert {info.layer for info in (module.info for module in attached.adapters)} == {0, 1}
    ids = batch(0)["input_ids"]
    for _ in range(STEPS):
        attached.model(input_ids=ids).last_hidden_state.square().mean().backward()
        attached.step()
    loaded = PeftModel.from_pretrained(encoder(), attached.export(tmp_path / "adapter")).eval()
    with torch.no_grad():
        ours = attached.model.eval()(input_ids=ids).last_hidden_state
        torch.testing.assert_close(loaded(input_ids=ids).last_hidden_state, ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dropout": 1}, "dropout=1: must be less than 1"),
        ({"steps": 1e308}, "steps=1e+308: must be a smaller"),
        ({"steps": True}, "steps=True: must not be true"),
        ({"lr": math.nan}, "lr=nan: must be a finite number"),
        ({"budget": 0}, "budget=0: must be at least 1"),
        ({"targets": 3}, "targets=3: must be a list"),
    ],
)
def test_numbers_that_cannot_be_are_refused_as_settings_are(arguments: dict[str, Any], message: str) -> None:
    model = tiny_decoder()
    before = [name for name, _ in model.named_modules()]
    with pytest.raises(ConfigError, match=re.escape(message)):
        dynlora.attach(model, **{"steps": STEPS, **arguments})
    assert [name for name, _ in model.named_modules()] == before
