"""A task: where its rows lie, what is asked about each, and what the answers are worth."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from phi4.engine.sampling import Sampling
from phi4.eval.rows import SourceRow
from phi4.processing.messages import Message

# How statistics that were added over the records become the metric's value (`metrics.total`).
Total = Literal["ratio", "perplexity", "bits", "bleu", "chrf"]


@dataclass(frozen=True, eq=False)
class Item:
    """One row of a data set as it is put to the model.

    Attributes:
        id: names it among the rows of its task.
        messages: the conversation to answer, for `Generate`.
        tools: functions that the model may call in it.
        preface: what stands once in front of examples and context, for `Choose`.
        context: the text that the choices continue, for `Choose`.
        choices: continuations whose log-likelihoods are compared, or for `Roll` the one text to score.
        right: place of the right one among `choices`.
        references: right answers, any of which will do.
        worked: the right answer as an example shows it, with its reasoning, for `Generate`.
        group: examples before it are of the same group, such as a subject.
        details: what else the metric needs: unit tests, instructions.
    """

    id: str
    messages: tuple[Message, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    preface: str = ""
    context: str = ""
    choices: tuple[str, ...] = ()
    right: int = 0
    references: tuple[str, ...] = ()
    worked: str = ""
    group: str = ""
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def modalities(self) -> frozenset[str]:
        """Names of the modalities of its media."""
        return frozenset(part.modality for message in self.messages for part in message.media)


@dataclass(frozen=True)
class Reply:
    """What the model gave for an item.

    Attributes:
        texts: its answers, one for each that was asked for.
        log_likelihoods: natural logarithm of the probability of each choice.
    """

    texts: tuple[str, ...] = ()
    log_likelihoods: tuple[float, ...] = ()


@dataclass(frozen=True)
class Generate:
    """The model answers the conversation.

    Attributes:
        sampling: greedy unless it says otherwise; `n` answers each.
        stop: strings that end an answer.
    """

    sampling: Sampling
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choose:
    """The model says how probable each choice is behind the context; nothing but the text itself is shown to it."""


@dataclass(frozen=True)
class Roll:
    """The model says how probable a whole text is, in pieces as long as its context where the text is longer."""


Ask = Generate | Choose | Roll


@dataclass(frozen=True)
class Metric:
    """A number that says how good answers are.

    Attributes:
        name: such as "exact match".
        statistics: what one record adds; the value is made of the sums over the records.
        total: how it is made.
        higher_is_better: which way is good.
        check: raises InputError where this machine lacks what the statistics need, before anything is asked.
    """

    name: str
    statistics: Callable[[Item, Reply], Sequence[float]]
    total: Total = "ratio"
    higher_is_better: bool = True
    check: Callable[[], object] | None = None


@dataclass(frozen=True)
class Rows:
    """Where a task's rows lie and how one becomes an item.

    Attributes:
        fields: what a row has, in a line, for whoever has files of another layout.
        read: makes an item of a row.
        repository: of the data on the Hub; None where a path must be given.
        files: pattern of the files with the right split, relative to the repository or to a local folder.
        columns: names of the columns of a table without a header.
        beside: pattern of other files that `read` opens.
        examples: pattern of the files with the rows that may stand before a question; None where there are none.
    """

    fields: str
    read: Callable[[SourceRow], Item]
    repository: str | None = None
    files: str = "*test*"
    columns: tuple[str, ...] = ()
    beside: str | None = None
    examples: str | None = None


@dataclass(frozen=True)
class Task:
    """What is measured, and how.

    Attributes:
        name: by which the command line knows it.
        ask: what the model does with an item.
        metrics: the first one is the task's result.
        rows: where its items come from; None where they are held-out records of the project's own shards.
        modalities: those of its media.
        shots: how many examples stand before each question.
    """

    name: str
    ask: Ask
    metrics: tuple[Metric, ...]
    rows: Rows | None = None
    modalities: frozenset[str] = frozenset()
    shots: int = 0
