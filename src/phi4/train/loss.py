"""Cross-entropy over a large vocabulary whose scores never exist for all rows at once."""

from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from phi4.model.linear import linear

# Rows whose scores exist together: 256 rows of 200,064 tokens take 200 MB in fp32.
CHUNK_ROWS = 256


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Computes the gradient with the loss, chunk by chunk, since the scores are at hand only then."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> Any:
        with_gradient, with_head_gradient, _ = ctx.needs_input_grad
        gradient = torch.empty_like(hidden) if with_gradient else hidden.new_empty(0)
        # Sums over many chunks would lose what bf16 cannot hold.
        head_gradient = torch.zeros_like(head, dtype=torch.float32) if with_head_gradient else None
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
            slopes = slopes.to(head.dtype)
            gradient[rows] = slopes @ head
            if head_gradient is not None:
                head_gradient += slopes.T @ hidden[rows]
        ctx.save_for_backward(gradient, None if head_gradient is None else head_gradient.to(head.dtype))
        return total, correct

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor, _: torch.Tensor) -> Any:
        gradient, head_gradient = ctx.saved_tensors
        head_slope = None if head_gradient is None else head_gradient * slope.to(head_gradient.dtype)
        return gradient * slope.to(gradient.dtype), head_slope, None


def chunked_cross_entropy(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums the cross-entropy of the head's scores.

    Args:
        hidden: final hidden states of the rows that have a target, [rows, hidden].
        head: the output embedding, [vocabulary, hidden], frozen or not.
        targets: [rows].

    Returns:
        The sum over all rows (fp32, with a gradient for `hidden`, and for `head` if it trains), and how many rows have
        the target as best token.
    """
    result: tuple[torch.Tensor, torch.Tensor] = _ChunkedCrossEntropy.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return result


def token_log_probabilities(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-probability of each target, fp32: [rows].

    For losses whose gradient depends on several rows together: scores are computed again in the backward pass.

    Args:
        hidden: final hidden states of the rows that have a target, [rows, hidden].
        head: the output embedding, [vocabulary, hidden].
        targets: [rows].
    """
    chunks = zip(hidden.split(CHUNK_ROWS), targets.split(CHUNK_ROWS), strict=True)
    return torch.cat([checkpoint(_log_probabilities, rows, head, own, use_reentrant=False) for rows, own in chunks])


def _log_probabilities(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    scores = linear(hidden, head).float()
    return -functional.cross_entropy(scores, targets, reduction="none")
