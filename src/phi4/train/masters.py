"""AdamW on fp32 master copies, while the model computes in the dtype that it is served in.

Autocast would round weights in other places than a served model does; here both run the very same modules on the
very same bf16 values (docs/decisions/0013).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from phi4.train.parts import belongs_to
from phi4.train.stage import Stage


class Masters:
    """Master weights, their gradients and AdamW's moments, all fp32, for the parameters that train."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], stage: Stage, rounding: Mapping[str, torch.dtype] | None = None
    ) -> None:
        """Copies what trains.

        Args:
            parameters: by name.
            stage: says how they are updated.
            rounding: dtypes of which some of the parameters are to hold values, although they are wider themselves,
                so that they can be stored in it without a change.
        """
        self.parameters = dict(parameters)
        self.rounding = dict(rounding or {})
        self.masters = {name: nn.Parameter(p.detach().float().clone()) for name, p in self.parameters.items()}
        for master in self.masters.values():
            master.grad = torch.zeros_like(master)
        self.max_grad_norm = stage.max_grad_norm
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        for name, master in self.masters.items():
            decay = stage.weight_decay if is_matrix(master.shape) else 0.0
            groups[decay, rate_factor(stage, name)].append(master)
        self.adamw = torch.optim.AdamW(
            [{"params": own, "weight_decay": decay, "factor": factor} for (decay, factor), own in groups.items()],
            lr=stage.learning_rate,
            betas=(stage.beta1, stage.beta2),
            eps=stage.epsilon,
            fused=True,
        )

    @property
    def gradients(self) -> list[torch.Tensor]:
        """The accumulated gradients, fp32."""
        return [master.grad for master in self.masters.values() if master.grad is not None]

    def accumulate(self) -> None:
        """Moves the gradients of one row from the model's parameters to the masters."""
        pairs = [
            (self.masters[name].grad, parameter.grad.float())
            for name, parameter in self.parameters.items()
            if parameter.grad is not None
        ]
        if pairs:
            totals, own = zip(*pairs, strict=True)
            torch._foreach_add_(totals, own)
        for parameter in self.parameters.values():
            parameter.grad = None

    def update(self, learning_rate: float) -> float:
        """Clips, updates the masters, writes them into the model and clears the gradients.

        Returns:
            The norm of the gradient before clipping. If it is not finite, nothing is changed.
        """
        norms = torch.stack(torch._foreach_norm(self.gradients))
        total = torch.linalg.vector_norm(norms)
        norm = float(total)
        if norm == norm and norm != float("inf"):
            nn.utils.clip_grads_with_norm_(self.masters.values(), self.max_grad_norm, total)
            for group in self.adamw.param_groups:
                group["lr"] = learning_rate * group["factor"]
            self._step((norms > 0).tolist())
            self.publish()
        torch._foreach_zero_(self.gradients)
        return norm

    def _step(self, moves: Sequence[bool]) -> None:
        """Updates what has a gradient. A weight that the loss does not depend on stays, and does not decay either."""
        idle = [
            (master, gradient)
            for master, gradient, moved in zip(self.masters.values(), self.gradients, moves, strict=True)
            if not moved
        ]
        for master, _ in idle:
            master.grad = None
        self.adamw.step()
        for master, gradient in idle:
            master.grad = gradient

    def is_finite(self) -> bool:
        """Whether every weight is a number, as the model has it."""
        return all(bool(parameter.isfinite().all()) for parameter in self.parameters.values())

    @torch.no_grad()
    def publish(self) -> None:
        """Writes the masters into the model, rounded to its dtype or to that of `rounding`."""
        for name, parameter in self.parameters.items():
            parameter.copy_(self.masters[name].to(self.rounding.get(name, parameter.dtype)))

    def state(self) -> dict[str, torch.Tensor]:
        """Masters and moments by name: all that resuming needs."""
        tensors = {f"master.{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self.adamw.state[master].items():
                tensors[f"{key}.{name}"] = value
        return tensors

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Takes over what `state` returned, and writes it into the model."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[f"master.{name}"])
                if f"step.{name}" not in tensors:
                    continue
                keys = ("step", "exp_avg", "exp_avg_sq")
                self.adamw.state[master] = {key: tensors[f"{key}.{name}"].to(master.device) for key in keys}
        self.publish()


def rate_factor(stage: Stage, name: str) -> float:
    """What the learning rate is multiplied by for a parameter, by its name."""
    return next((factor for part, factor in stage.rate_factors.items() if belongs_to(name, part)), 1.0)


def is_matrix(shape: Sequence[int]) -> bool:
    """Whether a parameter is decayed: norms, biases and separators, vectors in whatever shape, are not."""
    return len(shape) == 2 or sum(size > 1 for size in shape) > 1
