"""Gradient descent of the programs that train nano's tower alone."""

from collections.abc import Sequence

import torch
from torch import nn

WEIGHT_DECAY = 0.05
MAX_GRADIENT_NORM = 1.0


class Descent:
    """AdamW, whose rate rises at first and then falls to nothing in a straight line."""

    def __init__(
        self,
        trained: Sequence[nn.Parameter],
        undecayed: Sequence[nn.Parameter],
        *,
        learning_rate: float,
        beta2: float,
        warmup_steps: int,
        steps: int,
    ) -> None:
        """Lets the parameters have gradients.

        Args:
            trained: what trains.
            undecayed: what trains along and goes nowhere by itself: temperatures and their like.
            learning_rate: at its highest.
            beta2: how slowly the mean of squared gradients changes.
            warmup_steps: until then the rate rises.
            steps: in all.
        """
        self._trained = list(trained)
        for parameter in self._trained:
            parameter.requires_grad_(True)
        self._optimizer = torch.optim.AdamW(
            [{"params": self._trained}, {"params": list(undecayed), "weight_decay": 0.0}],
            learning_rate,
            betas=(0.9, beta2),
            weight_decay=WEIGHT_DECAY,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: min(1.0, (step + 1) / warmup_steps) * (1.0 - step / steps)
        )

    def step(self, loss: torch.Tensor) -> None:
        """Updates what trains once."""
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self._trained, MAX_GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
