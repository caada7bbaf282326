"""Cross-entropy over a large vocabulary whose scores never exist for all rows at once."""

from typing import Any

import torch
from torch.nn import functional

from phi4.model.linear import linear

# Rows whose scores exist together: 256 rows of 200,064 tokens take 200 MB in fp32.
CHUNK_ROWS = 256


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradient with the loss, chunk by chunk, since the scores are at hand only then."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> Any:
        with_gradient = ctx.needs_input_grad[0]
        gradient = torch.empty_like(hidden) if with_gradient else hidden.new_empty(0)
        total = hidden.new_zeros((), dtype=torch.float32)
        correct = torch.zeros((), dtype=torch.long, device=hidden.device)
        for start in range(0, hidden.shape[0], CHUNK_ROWS):
            rows = slice(start, start + CHUNK_ROWS)
            logits = linear(hidden[rows], head).float()
            log_probabilities = torch.log_softmax(logits, dim=-1)
            total += functional.nll_loss(log_probabilities, targets[rows], reduction="sum")
            correct += (logits.argmax(dim=-1) == targets[rows]).sum()
            if not with_gradient:
                continue
            slopes = log_probabilities.exp_()
            slopes[torch.arange(slopes.shape[0], device=slopes.device), targets[rows]] -= 1.0
            gradient[rows] = slopes.to(head.dtype) @ head
        ctx.save_for_backward(gradient)
        return total, correct

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor, _: torch.Tensor) -> Any:
        (gradient,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None, None


def chunked_cross_entropy(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums the cross-entropy of a frozen head's scores.

    Args:
        hidden: final hidden states of the rows that have a target, [rows, hidden].
        head: the frozen output embedding, [vocabulary, hidden].
        targets: [rows].

    Returns:
        The sum over all rows (fp32, with a gradient for `hidden`), and how many rows have the target as best token.
    """
    result: tuple[torch.Tensor, torch.Tensor] = _ChunkedCrossEntropy.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return result
