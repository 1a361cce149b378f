"""What goes wrong in language modelling, each with a test that would have caught it."""

from __future__ import annotations

import functools
import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

import dynlora
from dynlora.assets import template_trial
from dynlora.contracts.harness import tiny_decoder
from dynlora.contracts.tiny_runs import END, TEMPLATE, byte_tokenizer
from dynlora.engine.data.batches import IGNORED, tokenize
from dynlora.engine.data.text_data import Rows
from dynlora.engine.evaluation import generate
from dynlora.engine.evaluation.evaluate import predict, summarise
from dynlora.engine.evaluation.generate import Limits, write
from dynlora.engine.model.gates import Gates
from dynlora.errors import DataError
from dynlora.tasks import labels as tasks_labels
from dynlora.tasks import token_loss, token_rows
from dynlora.tasks.causal_lm import CausalLM
from dynlora.tasks.token_rows import by_template
from tests.tiny_lm import DECODERS

TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you"},
]


def rows(text: list[str], pair: list[str] | None = None, **fields: list[Any]) -> Rows:
    """Return rows to write."""
    return Rows(text, pair, np.zeros(len(text), np.int64), None, fields)


def learned(tokenizer: Any, one: list[int], target: list[int]) -> str:
    """Return the text that counts of a row."""
    return tokenizer.decode([token for token, label in zip(one, target, strict=True) if label != IGNORED])


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("pad_is_end", [False, True])
def test_the_end_is_learned_even_where_padding_is_the_end_token(pad_is_end: bool, begins: bool) -> None:
    tokenizer = byte_tokenizer(pad_is_end=pad_is_end, begins=begins)
    tokens = tokenize(tokenizer, rows(["a:", "long prompt:"], ["yes", "n"]), 64, CausalLM())
    assert tokens.targets is not None
    batch = tokens.batch([0, 1])
    for row, text in enumerate(("yes", "n")):
        assert learned(tokenizer, tokens.features[row]["input_ids"], tokens.targets[row]) == text + END
        last = int(tokens.length[row])
        assert batch["labels"][row, last - 1] == tokenizer.eos_token_id
        assert (batch["labels"][row, last:] == IGNORED).all()
        assert batch["attention_mask"][row].sum() == last
    assert tokens.label.tolist() == [4, 2]


def test_a_text_alone_is_learned_whole_but_for_its_first_token() -> None:
    tokenizer = byte_tokenizer(begins=True)
    tokens = tokenize(tokenizer, rows(["ab"]), 64, CausalLM())
    assert tokens.targets is not None
    assert tokens.features[0]["input_ids"][0] == tokenizer.bos_token_id
    assert tokens.targets[0][0] == IGNORED
    assert learned(tokenizer, tokens.features[0]["input_ids"], tokens.targets[0]) == "ab" + END


def test_a_conversation_counts_from_the_generation_prompt_to_the_end_token() -> None:
    tokenizer = byte_tokenizer()
    for loss_on, text in (
        ("completion", "See you<|end|>"),
        ("assistant", "Hello<|end|>See you<|end|>"),
        ("all", "user>Hi<|end|>\n<assistant>Hello<|end|>\n<user>Bye<|end|>\n<assistant>See you<|end|>"),
    ):
        tokens = tokenize(tokenizer, rows(["?"], messages=[TALK]), 200, CausalLM((), loss_on, "messages"))
        assert tokens.targets is not None
        assert learned(tokenizer, tokens.features[0]["input_ids"], tokens.targets[0]) == text
        assert tokens.features[0]["input_ids"][-1] == tokenizer.eos_token_id, "nothing after the end"
    prompt = CausalLM((), "completion", "messages").prompt(tokenizer, rows(["?"], ["See you"], messages=[TALK]), 0)
    assert tokenizer.decode(prompt.ids).endswith("<assistant>")


@pytest.mark.parametrize(
    ("template", "loss_on", "message"),
    [
        (None, "completion", "has no chat template; use an instruction-tuned model, or data.prompt"),
        (TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", ""), "assistant", "does not mark"),
    ],
)
def test_a_template_that_cannot_do_it_is_one_sentence(template: str | None, loss_on: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        tokenize(byte_tokenizer(template=template), rows(["?"], messages=[TALK]), 64, CausalLM((), loss_on, "messages"))


FAILING = (
    "{% if %}",
    "{{ raise_exception('roles must alternate') }}",
    "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ messages[0].content + 1 }}",
    "{{ messages | nothing }}",
)
UNBOUNDED = (
    "{{ 'a' * 2000000000 }}",
    "{{ 'a' | center(2000000000) }}",
    "{% generation %}{{ messages * 1000000000 }}{% endgeneration %}",
    "{{ raise_exception('no') }}{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% if j %}{% endif %}{% endfor %}{% endfor %}",
    "{{ 9 ** (9 ** 9) }}",
)


@pytest.mark.parametrize("loss_on", ["completion", "assistant"])
@pytest.mark.parametrize("template", FAILING)
def test_a_template_that_fails_is_named_as_the_cause(template: str, loss_on: str) -> None:
    """The method was blamed, and another one asked for."""
    tokenizer = byte_tokenizer(template=f"{template}{{% generation %}}{{% endgeneration %}}")
    with pytest.raises(DataError, match=r"^model\.name: the chat template of its tokenizer cannot write .* \(\w+"):
        tokenize(tokenizer, rows(["?"], messages=[TALK]), 64, CausalLM((), loss_on, "messages"))


@pytest.mark.parametrize("template", UNBOUNDED)
def test_what_a_template_makes_is_bounded_in_size_and_time(template: str) -> None:
    """A template of one line filled the memory, or never ended."""
    with pytest.raises(DataError, match=r"^model\.name: the chat template of its tokenizer needs more than 1,000,000"):
        by_template(byte_tokenizer(template=template), TALK, tokenize=False)


PIECES = st.sampled_from(
    [
        *(piece for template in (*FAILING, TEMPLATE) for piece in template.partition("%}")),
        *(
            "{{ messages }}",
            "{{ 'a' * 999 }}",
            "{% for m in messages %}",
            "{% endfor %}",
            "{{ m.content }}",
            "{% break %}",
        ),
        *("{% set x = namespace(a=1) %}", "{{ strftime_now('%Y') }}", "{% generation %}", "{% endgeneration %}", "{#"),
    ]
)


def check_template(pieces: list[str], noise: str) -> None:
    """Check that a template writes a conversation down, or is refused."""
    with suppress(DataError):
        text = by_template(byte_tokenizer(template="".join(pieces) + noise or "-"), TALK, tokenize=False)
        assert isinstance(text, str)


TEMPLATES = given(pieces=st.lists(PIECES, max_size=5), noise=st.text(max_size=5))
test_any_template_is_used_or_refused = settings(max_examples=10)(TEMPLATES(check_template))


@pytest.mark.torture
def test_any_template_is_used_or_refused_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, each limit apart, which a process of its own holds: none of the pieces is without a bound."""
    monkeypatch.setattr(token_rows, "is_bounded", lambda template: template_trial._tried(template) == 0)
    monkeypatch.setitem(sys.modules, "resource", None)
    settings(max_examples=10_000)(TEMPLATES(check_template))()


def test_assistant_turns_are_asked_for_of_conversations_only() -> None:
    with pytest.raises(DataError, match=r"data\.loss_on=assistant: the data has no conversations"):
        tokenize(byte_tokenizer(), rows(["a"], ["b"]), 64, CausalLM((), "assistant", "completion"))


def test_tokens_that_would_merge_at_the_seam_are_counted_and_kept_apart() -> None:
    from tokenizers import Tokenizer, models

    tokenizer = byte_tokenizer()
    backend = tokenizer.backend_tokenizer
    vocabulary = {**backend.get_vocab(with_added_tokens=False), "ab": 259}
    merging = Tokenizer.from_str(backend.to_str())
    merging.model = models.BPE(vocabulary, [("a", "b")])  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer._tokenizer = merging
    encoded = CausalLM().encode_rows(tokenizer, rows(["xa", "x"], ["b", "b"]), 64)
    alone = tokenizer("xa", add_special_tokens=False)["input_ids"]
    assert encoded.features[0]["input_ids"][: len(alone)] == alone
    assert encoded.notes == (
        "In 1 of 2 examples tokens of prompt and completion would merge; they are tokenised apart, as at generation.",
    )


def test_completions_that_are_cut_off_are_counted_and_none_at_all_is_refused() -> None:
    tokenizer = byte_tokenizer()
    encoded = CausalLM().encode_rows(tokenizer, rows(["ab", "abcdefgh"], ["yes", "no"]), 6)
    assert encoded.counts is not None
    assert encoded.counts.tolist() == [4, 0]
    assert encoded.notes[0].startswith("1 of 2 examples lose their whole completion at data.max_length=6")
    with pytest.raises(DataError, match=r"data\.max_length=6: all completions are cut off"):
        CausalLM().encode_rows(tokenizer, rows(["abcdefgh"], ["no"]), 6)


@pytest.mark.parametrize("architecture", [*DECODERS, "gemma2"])
def test_losses_are_shifted_once_and_those_of_the_model_itself(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gemma2 bends its logits after the head: it keeps them whole."""
    monkeypatch.setattr(token_loss, "PIECE_NUMBERS", 259 * 16)
    model, task = tiny_decoder(architecture), CausalLM()
    tokens = tokenize(byte_tokenizer(), rows(["a", "a longer prompt"], ["bcd" * 9, "e"]), 64, task)
    batch = tokens.batch([0, 1])
    labels = batch.pop("labels")
    embedding = model.get_input_embeddings().weight
    output = task.forward(model, batch)
    ours = task.batch_loss(output, labels)
    (our_gradient,) = torch.autograd.grad(ours, embedding, retain_graph=True)
    theirs = model(**batch, labels=labels).loss
    torch.testing.assert_close(ours, theirs)
    if not model.config.tie_word_embeddings:
        (their_gradient,) = torch.autograd.grad(theirs, embedding)
        torch.testing.assert_close(our_gradient, their_gradient)
    each = [model(**{k: v[i : i + 1] for k, v in batch.items()}, labels=labels[i : i + 1]).loss for i in (0, 1)]
    torch.testing.assert_close(task.example_loss(output, labels), torch.stack(each))


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(0, 70),
    piece=st.sampled_from([1, 16, 33, 64]),
    bias=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_loss_in_pieces_is_the_loss_and_so_is_its_gradient(n: int, piece: int, bias: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight, states = torch.randn(50, 8, generator=generator), torch.randn(n, 8, generator=generator, requires_grad=True)
    own = torch.randn(50, generator=generator) if bias else None
    targets, factor = torch.randint(0, 50, (n,), generator=generator), torch.randn(n, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_loss, "PIECE_NUMBERS", 50 * piece)
        loss = token_loss._FrozenHead.apply(states, weight, own, targets)
        (gradient,) = torch.autograd.grad((loss * factor).sum(), states)
    whole = F.cross_entropy(F.linear(states, weight, own), targets, reduction="none")
    (expected,) = torch.autograd.grad((whole * factor).sum(), states)
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(gradient, expected)


def test_perplexity_is_of_all_tokens_and_not_the_mean_of_batches() -> None:
    model, task = tiny_decoder(), CausalLM()
    tokens = tokenize(byte_tokenizer(), rows(["a", "a", "b"], ["b" * 30, "c", "dd"]), 64, task)
    forward: Any = task.forward
    by_size = [predict(model, forward, tokens, task, batch_size=size, autocast=torch.no_grad) for size in (1, 3)]
    one, all_at_once = (summarise(predictions, tokens.label, task) for predictions in by_size)
    assert one["perplexity"] == pytest.approx(all_at_once["perplexity"], rel=1e-5)
    losses, counts = by_size[0].output[:, 0], by_size[0].output[:, 2]
    assert one["perplexity"] == pytest.approx(np.exp(losses.sum() / counts.sum()))
    assert one["loss"] == pytest.approx(np.log(one["perplexity"]))
    assert one["tokens"] == 31 + 2 + 3
    np.testing.assert_allclose(by_size[0].loss, losses / counts, rtol=1e-6)


@pytest.mark.parametrize("architecture", DECODERS)
def test_prompts_together_and_alone_are_continued_alike(architecture: str) -> None:
    """Padding on the right, or positions that count padding, would change what follows."""
    model, tokenizer = tiny_decoder(architecture), byte_tokenizer()
    prompts = [tokenizer(text)["input_ids"] for text in ("a", "abc def", "a somewhat longer prompt", "zz")]
    limits = Limits(10, 64)
    alone = [write(model, tokenizer, [prompt], limits)[0] for prompt in prompts]
    assert write(model, tokenizer, prompts, limits) == alone


def test_settings_of_the_checkpoint_do_not_reach_greedy_texts() -> None:
    model, tokenizer = tiny_decoder(), byte_tokenizer()
    prompts, limits = [tokenizer("abc")["input_ids"]], Limits(12, 64)
    plain = write(model, tokenizer, prompts, limits)
    model.generation_config.update(do_sample=True, temperature=9.0, repetition_penalty=5.0, max_length=5, num_beams=3)
    assert write(model, tokenizer, prompts, limits) == plain
    assert model.generation_config.temperature == 9.0


def test_texts_end_at_the_end_token_and_at_both_limits() -> None:
    model, tokenizer = tiny_decoder(), byte_tokenizer()
    prompt = tokenizer("abcdef")["input_ids"]
    assert len(write(model, tokenizer, [prompt], Limits(5, 64))[0].ids) == 5
    assert len(write(model, tokenizer, [prompt], Limits(50, 9))[0].ids) == 3
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] = model.get_output_embeddings().weight.sum(0) * 9
    drawn = write(model, tokenizer, [prompt] * 2, Limits(20, 64, temperature=1.0, seed=3))
    assert drawn == write(model, tokenizer, [prompt] * 2, Limits(20, 64, temperature=1.0, seed=3))


@pytest.mark.parametrize("mode", ["module", "rank", "token"])
def test_gates_of_a_token_know_nothing_of_those_after_it(mode: str) -> None:
    gates = Gates(3, 6, 0, mode=mode, max_rank=2, is_causal=True)
    gates.ranks = lambda: [2, 1, 0]
    torch.nn.init.normal_(gates.weight)
    embedded, mask = torch.randn(2, 7, 6), torch.ones(2, 7)
    mask[1, :3] = 0  # on the left
    other = embedded.clone()
    other[:, 5:] = 9.0

    def columns(values: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        gates._columns, gates._mask = (), kept
        gates._see_embedding(gates, (), values)
        return torch.stack([torch.as_tensor(gates.column(index)) for index in range(3)])

    whole = columns(embedded, mask)
    assert whole.shape == ((3, 2, 7, 2) if mode == "rank" else (3, 2, 7))
    torch.testing.assert_close(columns(other, mask)[:, :, :5], whole[:, :, :5])
    with gates.writing():
        pieces = [columns(embedded[:, start:end], mask[:, :end]) for start, end in ((0, 4), (4, 5), (5, 7))]
    torch.testing.assert_close(torch.cat(pieces, 2), whole)


@pytest.mark.parametrize(
    ("answer", "written", "right"),
    [
        ("19", "12 + 7 = 19\n#### 19", True),
        ("19", "#### 18", False),
        ("19", "so it is 19.", True),
        ("1,234", "#### 1234", True),
        ("0.5", "The answer is 1/2", True),
        ("19", "", False),
        ("Paris", " paris. ", True),
        ("Paris", "Answer: Paris!", True),
        ("Paris", "It is Paris", False),
        ("-3", "#### -3", True),
        ("19", "#### 1\n#### 19 apples", True),
    ],
)
def test_an_answer_is_checked_by_its_value_after_the_last_marker(answer: str, written: str, right: bool) -> None:
    assert tasks_labels.is_right(answer, written) is right


@pytest.mark.parametrize("is_tied", [True, False])
def test_a_decoder_in_a_loop_of_ones_own_keeps_its_head(is_tied: bool) -> None:
    model = tiny_decoder(tied=is_tied)
    attached = dynlora.attach(model, strategy="dynamic", gates="module", budget=2, steps=8, lr=2e-2)
    assert not model.get_output_embeddings().weight.requires_grad
    assert attached.adapters.gates is not None
    assert attached.adapters.gates.is_causal
    batch = tokenize(byte_tokenizer(), rows(["a:", "b:"], ["xy", "zz"]), 64, CausalLM()).batch([0, 1])
    losses = []
    for _ in range(8):
        loss = model(**batch).loss
        loss.backward()
        attached.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.3


one_decoder = functools.cache(tiny_decoder)


@settings(max_examples=50)
@given(lengths=st.lists(st.integers(1, 9000), max_size=80), new=st.integers(1, 8192), total=st.integers(1, 8192))
def test_as_many_prompts_are_continued_at_once_as_memory_allows(lengths: list[int], new: int, total: int) -> None:
    prompts = [range(length) for length in lengths]
    count = generate.batch_size(one_decoder(), prompts, Limits(new, total))
    prompt = max(lengths, default=1)
    longest = max(prompt + 1, min(total, prompt + new))
    assert 1 <= count <= generate.TOGETHER
    assert count == 1 or count * longest <= generate.TOKENS_TOGETHER
    assert count == generate.TOGETHER or (count + 1) * longest > generate.TOKENS_TOGETHER


def test_long_prompts_are_continued_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = one_decoder(), byte_tokenizer()
    prompts = [[5 + n] * (3 + n) for n in range(5)]
    together = write(model, tokenizer, prompts, Limits(4, 64))
    sizes: list[int] = []
    continued = generate._continued
    monkeypatch.setattr(generate, "TOKENS_TOGETHER", 2 * 11)
    monkeypatch.setattr(
        generate,
        "_continued",
        lambda model, tokenizer, few, *more: sizes.append(len(few)) or continued(model, tokenizer, few, *more),
    )
    assert write(model, tokenizer, prompts, Limits(4, 64)) == together
    assert sizes == [2, 2, 1]
