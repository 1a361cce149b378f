"""Adapter folders of any seed, right ones and damaged ones, and what the installed PEFT does with one.

A right folder is written by PEFT itself. Damages change its configuration, its tensors or its files, up to two at once.
Left out is what no folder tells without its base model: whether sizes fit the model, a block that it does not have, a
missing tensor of `modules_to_save` that another layer has. So are booleans as numbers, which we refuse and PEFT reads.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import peft
import torch
from safetensors.numpy import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

Tensors = dict[str, np.ndarray]

HANGING_S = 8.0
"""After so long a load that has not ended counts as refused."""

KINDS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PREFIX = "base_model.model."


class Net(nn.Module):
    """An embedding, convolutions and linear modules, in two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(64, 6)
        self.blocks = nn.ModuleList(
            [nn.ModuleDict({"conv1": nn.Conv1d(6, 6, 3, padding=1), "fc": nn.Linear(6, 6)}) for _ in range(2)]
        )
        self.conv2d = nn.Conv2d(1, 3, 3, padding=1)
        self.head = nn.Linear(18, 5)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        x = self.emb(input_ids)
        for block in self.blocks:
            x = torch.tanh(block["fc"](block["conv1"](x.mT).mT))  # pyright: ignore[reportIndexIssue]
        return self.head(self.conv2d(x[:, None]).permute(0, 2, 1, 3).flatten(2))


def base_model(name: str) -> nn.Module:
    """Return the base model that a folder is for, always with the same numbers."""
    torch.manual_seed(0)
    if name == "net":
        return Net().eval()
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        attention_bias=True,
    )
    return LlamaForCausalLM(config).eval()


# --- right folders, as PEFT writes them


def _targets(draw: Random) -> dict[str, Any]:
    """Return one of the ways in which a configuration names modules."""
    some = draw.sample(KINDS, draw.randint(1, 4))
    return draw.choice(
        [
            {"target_modules": some},
            {"target_modules": some},
            {"target_modules": f"model\\.layers\\.[01]\\..*\\.({'|'.join(some)})"},
            {"target_modules": f".*(?:{'|'.join(some)})$"},
            {"target_modules": "all-linear"},
            {"target_modules": [f"model.layers.{i}.self_attn.{kind}_proj" for i in range(2) for kind in "qkv"]},
            {"target_modules": [f"self_attn.{kind}_proj" for kind in "qo"]},
            {"target_modules": some, "layers_to_transform": draw.choice([1, [1], [0, 1], []])},
            {
                "target_modules": some,
                "layers_to_transform": [0],
                "layers_pattern": draw.choice(["layers", ["layer.?"]]),
            },
            {
                "target_modules": KINDS,
                "exclude_modules": draw.choice([["q_proj", "layers.1.mlp.up_proj"], r".*\.1\..*"]),
            },
            {"target_modules": ["q_proj", "embed_tokens"]},
            {"target_modules": ["v_proj", "lm_head"]},
        ]
    )


def _patterns(draw: Random) -> dict[str, Any]:
    """Return patterns of ranks and alphas, names and regular expressions."""
    keys = [
        "q_proj",
        "^model.layers.1.self_attn.v_proj",
        r"layers\.1\..*",
        r"self_attn\.(k|v)_proj",
        "1.mlp.up_proj",
        ".*",
    ]
    return {
        "rank_pattern": {key: draw.randint(1, 6) for key in draw.sample(keys, 2)},
        "alpha_pattern": {key: draw.choice([1, 3, 7.5, 16]) for key in draw.sample(keys, 2)},
    }


def _lora(draw: Random) -> Any:
    settings: dict[str, Any] = {
        "r": draw.choice([2, 4, 6]),
        "lora_alpha": draw.choice([1, 8, 16, 2.5]),
        "task_type": draw.choice([None, "CAUSAL_LM", "CAUSAL_LM", "FEATURE_EXTRACTION", "SEQ_2_SEQ_LM"]),
        **_targets(draw),
    }
    for _ in range(draw.randint(0, 2)):
        settings |= draw.choice(
            [
                _patterns(draw),
                _patterns(draw),
                {"use_rslora": True},
                {"use_dora": True},
                {"lora_bias": True},
                {"bias": draw.choice(["all", "lora_only"])},
                {"modules_to_save": draw.choice([["lm_head"], ["norm"], ["post_attention_layernorm", "lm_head"]])},
                {"trainable_token_indices": draw.choice([[1, 5], {"embed_tokens": [0, 2, 3]}])},
                {
                    "init_lora_weights": draw.choice(
                        [False, "gaussian", "olora", "orthogonal", "pissa_niter_2", "pissa"]
                    )
                },
                {"lora_dropout": 0.1, "fan_in_fan_out": True},
                {"alora_invocation_tokens": [1, 2]},
            ]
        )
    return peft.LoraConfig(**settings)


def _net(draw: Random) -> Any:
    return peft.LoraConfig(
        r=draw.choice([2, 3]),
        target_modules=draw.sample(["conv1", "fc", "conv2d", "emb", "head"], draw.randint(1, 4)),
        bias=draw.choice(["none", "all"]),
        use_rslora=draw.random() < 0.3,
    )


def _adalora(draw: Random) -> Any:
    return peft.AdaLoraConfig(
        init_r=4, target_r=2, total_step=10, lora_alpha=draw.choice([8, 16]), target_modules=draw.sample(KINDS, 2)
    )


def _other(draw: Random) -> Any:
    kind, settings = draw.choice(
        [
            ("LoHaConfig", {}),
            ("LoKrConfig", {}),
            ("IA3Config", {"feedforward_modules": []}),
            ("VeraConfig", {"target_modules": ["q_proj"]}),
            ("HRAConfig", {}),
            ("FourierFTConfig", {"n_frequency": 8}),
            ("LNTuningConfig", {"target_modules": ["norm"]}),
            ("PromptTuningConfig", {"num_virtual_tokens": 3, "task_type": "CAUSAL_LM"}),
        ]
    )
    targets = {} if kind == "PromptTuningConfig" else {"target_modules": ["q_proj", "v_proj"]}
    return getattr(peft, kind)(**(targets | settings))


def _right(draw: Random, folder: Path) -> str:
    """Write a folder with PEFT and return the name of its base model."""
    make = draw.choices([_lora, _net, _adalora, _other], [7, 2, 1, 1])[0]
    base = "net" if make is _net else "llama"
    torch.manual_seed(draw.randrange(10**6))
    model = peft.get_peft_model(base_model(base), make(draw))  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "trainable_tokens_delta" in name or parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(str(folder))
    return base


# --- damages


@dataclass
class Contents:
    """An adapter folder before it is written.

    Attributes:
        config, tensors: of its two files.
        rewritten: text of the configuration, changed last.
        file: name of the file of tensors.
        hangs: whether PEFT's load is to be cut.
    """

    config: dict[str, Any]
    tensors: Tensors
    rewritten: list[Callable[[str], str]] = field(default_factory=list)
    file: str = "adapter_model.safetensors"
    hangs: bool = False

    def factors(self) -> list[str]:
        """Return the names of factors."""
        return [name for name in self.tensors if re.search(r"\.lora_(embedding_)?[AB]", name)] or list(self.tensors)

    def rename(self, change: Callable[[str], str], names: list[str] | None = None) -> None:
        """Change the names of tensors, all unless some are given."""
        some = set(self.tensors if names is None else names)
        self.tensors = {change(name) if name in some else name: value for name, value in self.tensors.items()}


Damage = Callable[[Contents, Random], None]


def _sets(**choices: list[Any]) -> Damage:
    """Return what sets settings, each to one of some values."""

    def damage(contents: Contents, draw: Random) -> None:
        contents.config |= {key: draw.choice(values) for key, values in choices.items()}

    return damage


def _one_module(contents: Contents, draw: Random) -> list[str]:
    """Return the names of one module's factors."""
    module = draw.choice(contents.factors()).rpartition(".lora_")[0]
    return [name for name in contents.tensors if name.startswith(f"{module}.lora_")]


def _reshape(change: Callable[[np.ndarray], np.ndarray], every: bool = False) -> Damage:
    """Return what changes the shape of a factor, or of all."""

    def damage(contents: Contents, draw: Random) -> None:
        names = contents.factors()
        for name in names if every else [draw.choice(names)]:
            if contents.tensors[name].ndim == 2:
                contents.tensors[name] = np.ascontiguousarray(change(contents.tensors[name]))

    return damage


def _rank_more(contents: Contents, draw: Random) -> None:
    names = _one_module(contents, draw)
    for name in names if draw.random() < 0.5 else names[:1]:
        value = contents.tensors[name]
        if "_A" in name:
            contents.tensors[name] = np.concatenate([value, value[:1]])
        elif "_B" in name and value.ndim > 1:
            contents.tensors[name] = np.concatenate([value, value[:, :1]], axis=1)


def _drop(pick: Callable[[Contents, Random], list[str]]) -> Damage:
    """Return what leaves tensors out."""

    def damage(contents: Contents, draw: Random) -> None:
        for name in pick(contents, draw):
            del contents.tensors[name]

    return damage


def _rename(*changes: Callable[[str], str], one: bool = False) -> Damage:
    """Return what renames tensors by one of some changes: those of one module, or all."""

    def damage(contents: Contents, draw: Random) -> None:
        contents.rename(draw.choice(changes), _one_module(contents, draw) if one else None)

    return damage


def _doubled(contents: Contents, draw: Random) -> None:
    value = draw.choice([7, json.dumps(contents.config.get("r", 8))])
    contents.rewritten.append(lambda text: text.replace("{", "{" + f'"r": {value}, ', 1))
    contents.rewritten.append(lambda text: text[: text.rindex("}")] + f', "r": {value}' + "}")


def _hanging(contents: Contents, draw: Random) -> None:
    if "layers" not in " ".join(contents.factors()):  # on names of a few letters every pattern ends
        return
    pattern = r"(([a-z_.]|[0-9._a-z])+)+!"
    contents.config |= draw.choice(
        [{"target_modules": pattern}, {"rank_pattern": {pattern: 4}}, {"alpha_pattern": {pattern: 4}}]
    )
    if isinstance(contents.config["target_modules"], str):
        contents.config |= {"layers_to_transform": None, "layers_pattern": None}
    contents.hangs = True


def _added(*names: str) -> Damage:
    """Return what adds a tensor of one of some names."""

    def damage(contents: Contents, draw: Random) -> None:
        contents.tensors[draw.choice(names)] = np.ones((3, 3), np.float32)

    return damage


def _moved(contents: Contents, draw: Random) -> None:
    contents.file = draw.choice(["adapters.safetensors", "lora.safetensors"])


def _rewrites(change: Callable[[str], str]) -> Damage:
    return lambda contents, draw: contents.rewritten.append(change)


DAMAGES: dict[str, Damage] = {
    "one factor missing": _drop(lambda contents, draw: [draw.choice(contents.factors())]),
    "no lora_A": _drop(lambda contents, draw: [name for name in contents.tensors if "_A" in name]),
    "one module missing": _drop(_one_module),
    "all but biases missing": _drop(lambda contents, draw: contents.factors()[:-1]),
    "others missing": _drop(lambda contents, draw: [n for n in contents.tensors if n not in contents.factors()]),
    "a factor transposed": _reshape(np.transpose),
    "all factors transposed": _reshape(np.transpose, every=True),
    "4-D factors": _reshape(lambda value: value[..., None, None], every=True),
    "a 3-D factor": _reshape(lambda value: value[None]),
    "a flat factor": _reshape(np.ravel),
    "a rank more": _rank_more,
    "half as precise": _reshape(lambda value: value.astype(np.float16), every=True),
    "r": _sets(r=[7, 0, -1, 4.5, 4.0, "4", None, True, 2, 4, 6, [4], 10**30], init_r=[4, 5, 0, 4.0]),
    "alpha": _sets(lora_alpha=[0, -3, 1e30, 7.25, "8", None, 10**400, 10**12]),
    "rank_pattern": _sets(
        rank_pattern=[
            *({"q_proj": 5}, {".*": 3}, {"v_proj": 4.5}, {"(": 4}, {"v_proj": 0}),
            *({}, None, [], {"zzz": 9}, {"": 3}),
        ]
    ),
    "alpha_pattern": _sets(
        alpha_pattern=[{".*proj": 5}, {"[": 3}, {"v_proj": "4"}, {}, None, [], {"zzz": 9}, {"self_attn.q_proj": 2}]
    ),
    "peft_type": _sets(peft_type=["NEW_THING", "lora", None, [], "LORA", "ADALORA", "IA3", 3]),
    "task_type": _sets(task_type=["EVIL", "causal_lm", None, "SEQ_2_SEQ_LM", 3, []]),
    "target_modules": _sets(
        target_modules=[
            *([], [["q_proj"]], "", "[", 3, {}, ["q_proj"], ["nowhere"]),
            *(None, ["q_proj", 3], [None], ["proj"]),
        ]
    ),
    "every module a target": _sets(
        target_modules=[KINDS, [*KINDS, "nowhere"], r".*_proj", ["fc", "emb", "conv1", "conv2d"]]
    ),
    "layers": _sets(layers_to_transform=[0, [0], "0", [], 7, None], layers_pattern=[None, "layers", "h", "[", []]),
    "exclude_modules": _sets(exclude_modules=["[", r".*q_proj", ["q_proj"], [[]], [], 3, "nowhere"]),
    "bias": _sets(bias=["none", "all", "lora_only", "some", None, "any_only"]),
    "modules_to_save": _sets(modules_to_save=["lm_head", ["lm_head"], None, [], 3, ["q_proj"]]),
    "trainable tokens": _sets(trainable_token_indices=[[1, 5], [1], None, {"embed_tokens": [1, 5]}]),
    "init": _sets(
        init_lora_weights=[
            *(True, False, None, "PISSA", "pissa", "corda"),
            *("loftq", "eva", "orthogonal", "odd", 3, "lora_ga"),
        ]
    ),
    "variants": _sets(
        use_dora=[True, False, "false", None], use_rslora=[True, False, "no", 0], lora_bias=[True, False, False]
    ),
    "dropout": _sets(lora_dropout=[0, 1, 0.5, -1, 2, "0.1", None]),
    "megatron": _sets(megatron_config=[{"a": 1}, None, {}], megatron_core=["os", "megatron.core", None]),
    "sub-configurations": _sets(
        **{key: [None, None, False, 3] for key in ("velora_config", "eva_config", "arrow_config", "use_bdlora")}
    ),
    "unknown settings": _sets(from_the_future=[1], runtime_config=[{}], total_step=[None, 10], tinit=[0, 20]),
    "names without the prefix": _rename(lambda name: name.removeprefix(PREFIX)),
    "another prefix": _rename(
        lambda name: PREFIX + name if name.startswith(PREFIX) else name,
        lambda name: name.replace("base_model.model.", "base_model."),
        lambda name: f"x.{name}",
    ),
    "an adapter's name": _rename(
        lambda name: name.replace(".weight", ".myadapter.weight"),
        lambda name: re.sub(r"(lora_[AB])\.", r"\1.default.", name),
        lambda name: re.sub(r"(lora_[AB])\.weight", r"\1", name),
    ),
    "one module renamed": _rename(
        lambda name: name.replace("_proj", "_projx"),
        lambda name: name.replace("layers", "../../layers"),
        lambda name: name.replace("layers.", "layers.."),
        one=True,
    ),
    "names of others": _rename(
        lambda name: "lora_unet_" + name.replace(".", "_").replace("_lora_A_weight", ".lora_down.weight"),
        lambda name: name.replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b"),
        lambda name: name.replace(PREFIX, "transformer."),
    ),
    "a tensor more": _added(
        "stray", "base_model.model.stray", f"{PREFIX}lm_head.lora_magnitude_vector", f"{PREFIX}a.lora_A.weight",
        f"{PREFIX}model.layers.0.self_attn.q_proj.lora_C.weight", f"{PREFIX}model.norm.scale",
    ),
    "a byte order mark": _rewrites(lambda text: "\ufeff" + text),
    "r twice": _doubled,
    "no JSON": _rewrites(lambda text: text[:-3]),
    "a list": _rewrites(lambda text: f"[{text}]"),
    "a number of 5000 digits": _rewrites(lambda text: text.replace("{", '{"r": ' + "1" * 5000 + ",", 1)),
    "another file name": _moved,
    "a slow pattern": _hanging,
}  # fmt: skip
"""What is done to a right folder, by name."""

OF_ALL_METHODS = [
    *(
        "peft_type",
        "task_type",
        "a byte order mark",
        "no JSON",
        "a list",
        "a number of 5000 digits",
        "another file name",
    ),
    *("names without the prefix", "megatron", "unknown settings"),
]
"""Damages that can be told of every method: of methods other than LoRA only names and settings are read."""


@dataclass(frozen=True)
class Generated:
    """A folder that was written.

    Attributes:
        folder: of the adapter.
        base: name of its base model.
        damages: what was done to it.
        hangs: whether PEFT may never end on it.
    """

    folder: Path
    base: str
    damages: tuple[str, ...]
    hangs: bool


def generate(seed: int, folder: Path) -> Generated:
    """Write the folder of a seed: a third of them is right, the others have one or two damages."""
    draw = Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while True:  # settings that PEFT itself refuses together are drawn again
            with contextlib.suppress(ValueError, NotImplementedError, TypeError, RuntimeError, AttributeError):
                base = _right(draw, folder)
                break
    path = folder / "adapter_config.json"
    contents = Contents(json.loads(path.read_text("utf-8")), load_file(folder / "adapter_model.safetensors"))
    names = list(DAMAGES) if contents.config["peft_type"] in ("LORA", "ADALORA") else OF_ALL_METHODS
    damages = [names[seed % len(names)], draw.choice(names)][: seed % 3]
    for name in damages:
        with contextlib.suppress(IndexError):  # a damage before has left nothing of it
            DAMAGES[name](contents, draw)
    text = json.dumps(contents.config, indent=2)
    for change in contents.rewritten:
        text = change(text)
    path.write_text(text, "utf-8")
    (folder / "adapter_model.safetensors").unlink()
    save_file(contents.tensors, folder / contents.file)
    return Generated(folder, base, tuple(damages), contents.hangs)


# --- what PEFT does


RIGHT, REFUSES, WRONG = "reads it right", "refuses it", "reads it wrong"
"""As `dynlora check` says."""


@cache
def tokens() -> torch.Tensor:
    """Return what all models are asked."""
    return torch.arange(24).reshape(2, 12)


@torch.no_grad()
def numbers(model: nn.Module) -> torch.Tensor:
    """Return what a model answers."""
    answer = model(input_ids=tokens())
    return getattr(answer, "logits", answer)


def _loaded(generated: Generated, seed: int) -> tuple[nn.Module, Any]:
    """Load a folder with PEFT and return the model, and which names it did not find or did not use."""
    model = base_model(generated.base)
    torch.manual_seed(seed)
    loaded = peft.PeftModel.from_pretrained(model, str(generated.folder))  # pyright: ignore[reportArgumentType]
    return loaded.eval(), loaded.load_adapter(str(generated.folder), "default")


def peft_itself(generated: Generated) -> tuple[str, str, torch.Tensor | None]:
    """Return what PEFT does with a folder, in a word and in a sentence, and what the model answers then.

    Right is: without an error, every tensor is used, no tensor of a module that the file holds is missing, and what the
    model answers does not depend on a seed.
    """
    if generated.hangs:
        return (*_in_a_child(generated), None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model, keys = _loaded(generated, 1)
            again, _ = _loaded(generated, 2)
            answers = [numbers(one) for one in (model, again)]
        except Exception as error:
            return REFUSES, f"{type(error).__name__}: {error}"[:300], None
    stored = load_file(generated.folder / "adapter_model.safetensors")
    held = {name.rpartition(".lora_")[0] for name in stored if ".lora_" in name}
    missing = [name for name in keys.missing_keys if name.rpartition(".lora_")[0] in held]
    unused = [name for name in keys.unexpected_keys if name != "prompt_embeddings"]  # they have a place of their own
    if unused or missing:
        return WRONG, f"not used {unused[:3]}, missing {missing[:3]}", None
    if not stored or not torch.allclose(*answers, rtol=1e-3, atol=1e-3, equal_nan=True):
        return WRONG, "its numbers depend on the seed", None
    return RIGHT, "", answers[0]


def _in_a_child(generated: Generated) -> tuple[str, str]:
    """Return what PEFT does with a folder that may take for ever."""
    command = [sys.executable, "-m", "tests.peft_adapter.generated", str(generated.folder), generated.base]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        try:
            verdict, _ = child.communicate(timeout=HANGING_S)
            return verdict.splitlines()[0], ""
        except subprocess.TimeoutExpired:
            child.kill()
            return REFUSES, "does not end"


if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdout.write(peft_itself(Generated(Path(sys.argv[1]), sys.argv[2], (), False))[0] + "\n")
