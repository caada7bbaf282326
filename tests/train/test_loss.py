from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from phi4.train.loss import CHUNK_ROWS, chunked_cross_entropy, token_log_probabilities

VOCABULARY = 1000


class RowsOfScores(TorchDispatchMode):
    """Notes the most rows of any tensor with one column for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 2 and tensor.shape[1] == VOCABULARY:
                self.most = max(self.most, tensor.shape[0])
        return result


def problem(rows: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, 16, generator=generator).to(dtype).requires_grad_()
    head = torch.randn(VOCABULARY, 16, generator=generator).to(dtype)
    return hidden, head, torch.randint(VOCABULARY, (rows,), generator=generator)


@pytest.mark.parametrize("rows", [1, CHUNK_ROWS - 1, CHUNK_ROWS, 2 * CHUNK_ROWS + 3])
def test_loss_and_gradient_are_those_of_torch(rows: int) -> None:
    hidden, head, targets = problem(rows)
    other = hidden.detach().clone().requires_grad_()
    total, correct = chunked_cross_entropy(hidden, head, targets)
    scores = other @ head.T
    expected = functional.cross_entropy(scores, targets, reduction="sum")
    (total * 0.37).backward()
    (expected * 0.37).backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(hidden.grad, other.grad)
    assert int(correct) == int((scores.argmax(dim=1) == targets).sum())


@pytest.mark.parametrize("rows", [1, 2 * CHUNK_ROWS + 3])
def test_a_head_that_trains_gets_torchs_gradient_too(rows: int) -> None:
    hidden, head, targets = problem(rows)
    gradients = []
    for loss in (
        lambda head: chunked_cross_entropy(hidden, head, targets)[0],
        lambda head: functional.cross_entropy(hidden @ head.T, targets, reduction="sum"),
    ):
        own = head.clone().requires_grad_()
        (loss(own) * 0.37).backward()
        gradients.append(own.grad)
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_log_probabilities_and_their_gradients_are_those_of_torch() -> None:
    hidden, head, targets = problem(2 * CHUNK_ROWS + 3)
    weights = torch.linspace(-1, 1, len(targets))
    results = []
    for compute in (
        token_log_probabilities,
        lambda hidden, head, targets: -functional.cross_entropy(hidden @ head.T, targets, reduction="none"),
    ):
        own = hidden.detach().clone().requires_grad_(), head.clone().requires_grad_()
        values = compute(*own, targets)
        (values * weights).sum().backward()
        results.append((values, own[0].grad, own[1].grad))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_bf16_loses_no_more_than_the_rounding_of_its_gradient() -> None:
    hidden, head, targets = problem(300, torch.bfloat16)
    other = hidden.detach().float().requires_grad_()
    chunked_cross_entropy(hidden, head, targets)[0].backward()
    functional.cross_entropy((other @ head.float().T).bfloat16().float(), targets, reduction="sum").backward()
    assert hidden.grad is not None
    torch.testing.assert_close(hidden.grad.float(), other.grad, atol=0.05, rtol=0.05)


def test_scores_never_exist_for_more_rows_than_a_chunk() -> None:
    hidden, head, targets = problem(2 * CHUNK_ROWS + 3)
    with RowsOfScores() as seen:
        total, _ = chunked_cross_entropy(hidden, head, targets)
        total.backward()
    assert seen.most == CHUNK_ROWS


def test_the_best_of_all_scores_counts_as_correct() -> None:
    head = torch.eye(4)
    _, correct = chunked_cross_entropy(torch.eye(4)[[0, 1, 2]] * 5, head, torch.tensor([0, 1, 3]))
    assert int(correct) == 2
