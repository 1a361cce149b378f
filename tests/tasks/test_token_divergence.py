"""KL divergence of tokens, by hand and against PyTorch's, with its gradient, for every kind of head."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dynlora.tasks import token_loss
from dynlora.tasks.token_loss import TokenOutput, next_tokens, token_divergence
from tests.tiny_lm import tiny_decoder

LABELS = torch.tensor([[-100, 3, 4, -100], [-100, -100, 2, 5]])


def output(hidden: Tensor, head: nn.Linear, *, is_plain: bool) -> TokenOutput:
    return TokenOutput(hidden, head, head.weight if is_plain else None, head.bias if is_plain else None)


def whole(teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of KL(teacher || student) of each text from whole logits, as PyTorch has it."""
    each = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    return (each[:, :-1] * (labels[:, 1:] >= 0)).sum(1)


def test_by_hand() -> None:
    head = nn.Linear(2, 2, bias=False).requires_grad_(False)
    head.weight.copy_(torch.eye(2))
    p, q = torch.tensor([0.75, 0.25]), torch.tensor([0.5, 0.5])
    hidden = [torch.stack([one.log(), one.log()]).unsqueeze(0) for one in (p, q)]
    teacher, student = (output(one, head, is_plain=True) for one in hidden)
    sums, counts = token_divergence(teacher, student, torch.tensor([[-100, 1]]))
    assert sums.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert counts.tolist() == [1]


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_sums_and_gradient_are_pytorchs_in_pieces_of_any_size(
    is_plain: bool, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    head = nn.Linear(6, 11, bias=bias).requires_grad_(False)
    wanted, hidden = torch.randn(2, 4, 6), torch.randn(2, 4, 6, requires_grad=True)
    labels = LABELS.repeat(20, 1)
    wanted, many = wanted.repeat(20, 1, 1), hidden.repeat(20, 1, 1)
    expected = whole(head(wanted), head(many), labels)
    (gradient,) = torch.autograd.grad(expected.sum(), hidden)
    monkeypatch.setattr(token_loss, "PIECE_NUMBERS", 11 * 16)
    sums, counts = token_divergence(
        output(wanted, head, is_plain=is_plain), output(many, head, is_plain=is_plain), labels
    )
    assert counts.tolist() == [2, 2] * 20
    torch.testing.assert_close(sums, expected)
    torch.testing.assert_close(torch.autograd.grad(sums.sum(), hidden)[0], gradient)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"])
def test_models_of_both_kinds_of_head_agree_with_their_whole_logits(architecture: str) -> None:
    teacher, student = (tiny_decoder(architecture, seed).eval() for seed in (1, 2))
    student.requires_grad_(False)
    ids = torch.tensor([[2, 5, 9, 0], [2, 7, 7, 3]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = torch.where(torch.arange(4) > 0, ids, -100)
    with torch.no_grad():
        sums, _ = token_divergence(next_tokens(teacher, batch), next_tokens(student, batch), labels)
        expected = whole(teacher(**batch).logits, student(**batch).logits, labels)
        nothing, _ = token_divergence(next_tokens(teacher, batch), next_tokens(teacher, batch), labels)
    torch.testing.assert_close(sums, expected)
    assert nothing.abs().max() < 1e-5
