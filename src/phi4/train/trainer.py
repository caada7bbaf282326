"""The training loop: batch, forward, backward, step."""

import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from phi4.checkpoint.training import list_checkpoints, load_training, save_training
from phi4.data.batches import Batches, Row
from phi4.data.example import Example
from phi4.errors import TrainingError
from phi4.model.decoder import Phi4Mini
from phi4.model.multimodal import Phi4Multimodal
from phi4.train.distributed import Group
from phi4.train.interrupt import Interrupt
from phi4.train.log import RunLog
from phi4.train.masters import Masters
from phi4.train.objectives import ObjectiveLoss
from phi4.train.parts import digest_frozen
from phi4.train.stage import Stage
from phi4.train.validate import validate

# Records that are named of those that were left out.
SHOWN_SKIPPED = 3


@dataclass(frozen=True)
class StepReport:
    """What one update did.

    Attributes:
        losses: mean loss of each objective, by the data set that it was met in first.
        correct: share of terms that were predicted exactly, likewise.
        figures: means of what else objectives report, by "DATASET/FIGURE".
        gradient_norm: before clipping.
        num_tokens: packed tokens, over all processes.
        num_skipped: draws that could not be used since training began or was resumed, over all processes.
    """

    losses: Mapping[str, float]
    correct: Mapping[str, float]
    figures: Mapping[str, float]
    gradient_norm: float
    num_tokens: int
    num_skipped: int


class Trainer:
    """Trains the parts of one stage and keeps the run's checkpoints."""

    def __init__(
        self,
        stage: Stage,
        model: Phi4Mini | Phi4Multimodal,
        trained: Mapping[str, torch.nn.Parameter],
        objectives: Mapping[str, ObjectiveLoss],
        batches: Batches,
        valid: Mapping[str, Sequence[Example]],
        run: Path,
        identity: Mapping[str, str],
        pack_dtype: torch.dtype,
        group: Group,
    ) -> None:
        """Sets everything up; nothing is computed yet.

        Args:
            stage: what to do.
            model: already frozen but for `trained`.
            trained: the model's parameters that train, by name.
            objectives: of each data set.
            batches: where rows come from; one stream for each row of a step.
            valid: examples of each data set that are held out for validation.
            run: the folder of checkpoints and logs.
            identity: digests of recipe, base and data, which a checkpoint must share to be continued.
            pack_dtype: what the result is stored in; the model's weights are values of it, in whatever it computes.
            group: the processes that share the work.
        """
        self.stage, self.model, self.objectives, self.batches = stage, model, objectives, batches
        self.valid, self.run, self.identity, self.group = valid, run, dict(identity), group
        own = {
            f"objective.{name}.{key}": parameter
            for name, module in _distinct(objectives).items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        self.masters = Masters({**trained, **own}, stage, dict.fromkeys(trained, pack_dtype))
        self.trained_names = frozenset(trained)
        self.frozen_digest = digest_frozen(model, self.trained_names)
        self.streams = range(group.rank, stage.rows_per_step, group.size)
        self.step = 0
        self.tokens = 0

    def resume(self) -> None:
        """Continues from the run's last checkpoint, if it has one.

        Raises:
            TrainingError: the checkpoint belongs to another recipe, base or data set.
        """
        checkpoints = list_checkpoints(self.run)
        if not checkpoints:
            return
        tensors, state = load_training(checkpoints[-1])
        before = {"precision of products": "exact", **state["identity"]}  # runs of earlier versions had no other
        changed = [key for key in self.identity if before.get(key) != self.identity[key]]
        if changed:
            raise TrainingError(
                f"{checkpoints[-1]} was made with another {' and another '.join(changed)}; resume with what the run "
                "began with, or begin a new run in another folder"
            )
        self.masters.restore(tensors)
        self.batches.restore(state["batches"])
        self.step = state["step"]
        # Runs of earlier versions did not count.
        self.tokens = state.get("tokens", 0)

    def train(self, interrupt: Interrupt, log: RunLog | None) -> None:
        """Runs until the stage's last step, or until a signal asks for an end, and leaves a checkpoint either way.

        Args:
            interrupt: looked at after each step.
            log: of the first process.

        Raises:
            TrainingError: the loss is not finite.
            CheckpointError: a checkpoint cannot be written.
        """
        began, first, tokens = time.monotonic(), self.step, 0
        while self.step < self.stage.steps and not self._stopping(interrupt):
            result = self._update()
            self.step += 1
            tokens += result.num_tokens
            self.tokens += result.num_tokens
            if log is not None:
                self._report(log, result, tokens / (time.monotonic() - began))
            if self.step % self.stage.valid_every == 0 or self.step == self.stage.steps:
                self._validate(log)
            if self.step % self.stage.save_every == 0 and self.step < self.stage.steps:
                self.save()
        if self.step > first:
            self.save()

    def save(self) -> None:
        """Writes a checkpoint, from the first process.

        Raises:
            TrainingError: a weight is no number any more.
            CheckpointError: it cannot be written.
        """
        if not self.masters.is_finite():
            raise TrainingError(self._not_finite("a trained weight is no number any more", "nothing of it is saved"))
        state = self.batches.state()
        state["draws"] = self.group.maximum(state["draws"])
        if self.group.is_first:
            noted = {"identity": self.identity, "batches": state, "tokens": self.tokens}
            save_training(self.run, self.step, self.masters.state(), noted)

    def gather_skipped(self) -> tuple[Counter[str], tuple[str, ...]]:
        """What was left out since training began or was resumed, over all processes; each of them must ask.

        Returns:
            How many draws, by data set and kind of error, and the first few records, each with its error.
        """
        own = json.dumps([self.batches.skipped, self.batches.first_skipped])
        processes = [json.loads(text) for text in self.group.gather(own)]
        counts = sum((Counter(skipped) for skipped, _ in processes), Counter[str]())
        # In a small data set the first draws may all be of one record.
        distinct = dict.fromkeys(record for _, first in processes for record in first)
        return counts, tuple(distinct)[:SHOWN_SKIPPED]

    def check_frozen(self) -> None:
        """Proves that nothing changed but what the stage trains.

        Raises:
            TrainingError: a frozen tensor has other bits than before.
        """
        after = digest_frozen(self.model, self.trained_names)
        if after != self.frozen_digest:
            raise TrainingError(
                f"frozen weights changed during training: digest {self.frozen_digest} before, {after} after; "
                "nothing is written"
            )

    def _stopping(self, interrupt: Interrupt) -> bool:
        return self.group.any(interrupt.signal is not None)

    def _update(self) -> StepReport:
        rows = {stream: self.batches.next_row(stream) for stream in self.streams}
        counts = self._counts(list(rows.values()))
        # Of each objective: loss, terms that are right, and its own figures.
        totals = {name: [0.0, 0.0, *(0.0 for _ in self.objectives[name].figures)] for name in counts}
        self.model.train()
        for stream, row in rows.items():
            # Dropout depends on the row alone, so that resuming and sharing out rows change nothing.
            torch.manual_seed((self.stage.seed * 1_000_003 + self.step) * 4096 + stream)
            for name, examples in self._by_objective(row).items():
                loss = self.objectives[name](self.model, examples)
                if loss.total.requires_grad:
                    (loss.total / counts[name]).backward()
                own = (float(loss.total.detach()), loss.correct, *loss.figures)
                totals[name] = [total + value for total, value in zip(totals[name], own, strict=True)]
            self.masters.accumulate()
        self.group.sum(self.masters.gradients)
        summed = iter(self._sum([[value for own in totals.values() for value in own]])[0])
        sums = {name: [next(summed) for _ in own] for name, own in totals.items()}
        means = {name: [value / counts[name] for value in own] for name, own in sums.items() if counts[name]}
        losses = {name: loss for name, (loss, *_) in means.items()}
        if not all(math.isfinite(loss) for loss in losses.values()):
            raise TrainingError(self._not_finite(f"the loss is {losses}"))
        norm = self.masters.update(self.stage.learning_rate_at(self.step))
        if not math.isfinite(norm):
            raise TrainingError(self._not_finite(f"the gradient's norm is {norm}"))
        shares = {name: share for name, (_, share, *_) in means.items()}
        figures = {
            f"{name}/{figure}": value
            for name, (_, _, *values) in means.items()
            for figure, value in zip(self.objectives[name].figures, values, strict=True)
        }
        num_tokens = sum(row.num_tokens for row in rows.values())
        ((all_tokens, all_skipped),) = self._sum([[num_tokens, self.batches.skipped.total()]])
        return StepReport(losses, shares, figures, norm, int(all_tokens), int(all_skipped))

    def _not_finite(self, what: str, consequence: str = "no weight was changed by it") -> str:
        saved = list_checkpoints(self.run)
        return (
            f"step {self.step}: {what}; {consequence}. "
            f"{f'The last checkpoint is {saved[-1]}' if saved else 'There is no checkpoint yet'}; "
            "lower the learning rate or look at the data"
        )

    def _by_objective(self, row: Row) -> dict[str, list[Example]]:
        """Groups a row's examples by objective, under the name of the first data set with that objective."""
        names = {id(module): name for name, module in _distinct(self.objectives).items()}
        groups: dict[str, list[Example]] = {}
        for dataset, example in zip(row.datasets, row.examples, strict=True):
            groups.setdefault(names[id(self.objectives[dataset])], []).append(example)
        return groups

    def _counts(self, rows: Sequence[Row]) -> dict[str, float]:
        """The terms of each objective in this step, over all processes."""
        distinct = _distinct(self.objectives)
        groups = [self._by_objective(row) for row in rows]
        own = [[sum(module.count(group.get(name, ())) for group in groups)] for name, module in distinct.items()]
        return {name: total for name, (total,) in zip(distinct, self._sum(own), strict=True)}

    def _sum(self, values: Sequence[Sequence[float]]) -> list[list[float]]:
        tensor = torch.tensor(values, dtype=torch.float64)
        self.group.sum([tensor])
        return tensor.tolist()

    def _report(self, log: RunLog, result: StepReport, tokens_per_second: float) -> None:
        scalars = {f"train/{name}/loss": loss for name, loss in result.losses.items()}
        scalars |= {f"train/{name}/accuracy": share for name, share in result.correct.items()}
        scalars |= {f"train/{name}": value for name, value in result.figures.items()}
        scalars["learning_rate"] = self.stage.learning_rate_at(self.step - 1)
        scalars["gradient_norm"] = result.gradient_norm
        scalars["tokens"] = self.tokens
        scalars["tokens_per_second"] = tokens_per_second
        scalars["skipped"] = result.num_skipped
        log.report(self.step, scalars)
        losses = "  ".join(f"{name} {loss:.3f}" for name, loss in result.losses.items())
        skipped = f"  {result.num_skipped:,} skipped" if result.num_skipped else ""
        log.advance(self.step, f"{losses}  {tokens_per_second:,.0f} tokens/s{skipped}")

    def _validate(self, log: RunLog | None) -> None:
        scores = validate(self.model, self.objectives, self.valid, self.stage.tokens_per_row)
        if log is not None:
            scalars = {f"valid/{name}/loss": score.loss for name, score in scores.items()}
            log.report(self.step, scalars | {f"valid/{name}/accuracy": s.accuracy for name, s in scores.items()})


def _distinct(objectives: Mapping[str, ObjectiveLoss]) -> dict[str, ObjectiveLoss]:
    """Each objective once, under the first data set that has it."""
    first: dict[int, str] = {}
    for name, module in objectives.items():
        first.setdefault(id(module), name)
    return {name: objectives[name] for name in first.values()}
