"""Batches: examples packed into rows, in an order that can be taken up again anywhere."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from phi4.data.ahead import Ahead
from phi4.data.example import Example, run_of_tokens
from phi4.data.order import Order
from phi4.data.record import Record
from phi4.errors import CapacityError, DataError, InputError

# Changes a record at random before it is encoded; the generator depends on the draw alone.
Augment = Callable[[Record, np.random.Generator], Record]
Encode = Callable[[Record], Example]

# A few unusable records in a large collection are normal; more are a mistake.
MAX_SKIPPED = 0.01
MIN_DRAWS = 200


@dataclass(frozen=True, eq=False)
class Row:
    """Several conversations that are laid end to end and computed at once; none sees another.

    Attributes:
        examples: in the order of their segments.
        datasets: the name of the data set that each example comes from.
    """

    examples: tuple[Example, ...]
    datasets: tuple[str, ...]

    @property
    def num_tokens(self) -> int:
        """Length of the row."""
        return sum(example.num_tokens for example in self.examples)


@dataclass(frozen=True, eq=False)
class Drawn:
    """What became of one draw.

    Attributes:
        dataset: name of the data set that it is from.
        example: the record, ready for training, or None.
        reason: why there is no example: the kind of error.
        details: which record it is, and the error.
    """

    dataset: str
    example: Example | None
    reason: str = ""
    details: str = ""


class Batches:
    """Rows for training, from several streams.

    Stream s takes the draws s, s + num_streams, s + 2 * num_streams, ... and packs them into its own rows: an example
    that does not fit begins the next row. So the rows do not depend on how many processes share the streams. What
    cannot be used is skipped and counted.

    Attributes:
        skipped: how many examples this process left out, by data set and kind of error.
        first_skipped: the first three of them and why.
    """

    def __init__(
        self,
        datasets: Mapping[str, Sequence[Record]],
        weights: Mapping[str, float],
        encode: Mapping[str, Encode],
        num_streams: int,
        tokens_per_row: int,
        seed: int,
        augment: Augment | None = None,
        workers: int = 0,
        streams: Sequence[int] | None = None,
    ) -> None:
        """Begins every stream at its first draw.

        Args:
            datasets: by name.
            weights: of each data set's draws among all.
            encode: makes an example of a record of each data set, such as `encode_example` for one processor.
            num_streams: rows of one step over all processes.
            tokens_per_row: no row is longer.
            seed: of the order and of augmentation.
            augment: changes records before they are encoded.
            workers: processes that prepare examples ahead; 0 prepares each in its turn. The rows are the same.
            streams: those that this process reads; None reads all.

        Raises:
            DataError: a data set is empty or has no weight, or a number is out of range.
        """
        if num_streams < 1 or tokens_per_row < 1:
            raise DataError(f"num_streams is {num_streams} and tokens_per_row {tokens_per_row}; both are at least 1")
        sizes = {name: len(records) for name, records in datasets.items()}
        self._order = Order(sizes, weights, seed)
        self._datasets = dict(datasets)
        self._encode = dict(encode)
        self._augment = augment
        self._settings = {
            "sizes": dict(sorted(sizes.items())),
            "weights": {name: float(weight) for name, weight in sorted(weights.items())},
            "num_streams": num_streams,
            "tokens_per_row": tokens_per_row,
            "seed": seed,
        }
        self._num_streams = num_streams
        self._tokens_per_row = tokens_per_row
        self._seed = seed
        self._workers = workers
        self._draws = [0] * num_streams
        self._streams = range(num_streams) if streams is None else streams
        # What prepares the draws of these streams, once one was read.
        self._drawn: dict[int, Callable[[], Drawn]] = {}
        # An example that did not fit into its stream's last row; its draw is not counted yet.
        self._waiting: dict[int, tuple[Example, str]] = {}
        self.skipped: Counter[str] = Counter()
        self.first_skipped: list[str] = []
        self._num_encoded = 0

    def next_row(self, stream: int) -> Row:
        """Returns the next row of a stream.

        Raises:
            DataError: a record cannot be read, or more than one in a hundred of at least 200 had to be skipped.
        """
        examples: list[Example] = []
        datasets: list[str] = []
        room = self._tokens_per_row
        while True:
            waits = stream in self._waiting
            example, dataset = self._waiting.pop(stream) if waits else self._next_example(stream)
            length = example.num_tokens
            if length > room:
                self._waiting[stream] = example, dataset
                return Row(tuple(examples), tuple(datasets))
            examples.append(example)
            datasets.append(dataset)
            room -= length
            self._draws[stream] += 1

    def state(self) -> dict[str, Any]:
        """Returns where every stream stands, as JSON can hold it.

        A process knows of the streams that it reads; the furthest of all processes is right for each stream.
        """
        return {**self._settings, "draws": list(self._draws)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues every stream where it stood when `state` was taken.

        Raises:
            DataError: the state is of other data, weights, sizes or seed.
        """
        changed = [
            f"{key} {state.get(key)} → {value}" for key, value in self._settings.items() if state.get(key) != value
        ]
        draws = state.get("draws")
        if changed or not isinstance(draws, list) or len(draws) != self._num_streams:
            raise DataError(
                f"training cannot go on with other data than it began with: {'; '.join(changed) or 'draws are missing'}"
            )
        self._draws = list(draws)
        self._waiting = {}
        self._drawn = {}

    def _next_example(self, stream: int) -> tuple[Example, str]:
        """The stream's next record that can be used, and the name of its data set; counts the draws of others."""
        self._check_skipped()
        if not self._drawn:
            self._drawn = self._begin()
        while True:
            drawn = self._drawn[stream]()
            self._num_encoded += 1
            if drawn.example is not None:
                return drawn.example, drawn.dataset
            self.skipped[f"{drawn.dataset}: {drawn.reason}"] += 1
            self.first_skipped = [*self.first_skipped, f"{drawn.dataset}, {drawn.details}"][:3]
            self._draws[stream] += 1
            self._check_skipped()

    def _begin(self) -> dict[int, Callable[[], Drawn]]:
        """For each stream, what returns its next draw, from where it stands."""
        firsts = [stream + self._draws[stream] * self._num_streams for stream in self._streams]
        if self._workers:
            ahead = Ahead(self._prepare, firsts, self._num_streams, self._workers)
            return {stream: partial(ahead.next, place) for place, stream in enumerate(self._streams)}
        return {
            stream: map(self._prepare, count(first, self._num_streams)).__next__
            for stream, first in zip(self._streams, firsts, strict=True)
        }

    def _prepare(self, k: int) -> Drawn:
        """Makes an example of the k-th draw, or says why there is none."""
        draw = self._order.draw(k)
        record = self._datasets[draw.dataset][draw.index]
        try:
            return Drawn(draw.dataset, self._encode_draw(record, draw.dataset, k))
        except (InputError, CapacityError, DataError) as error:
            return Drawn(draw.dataset, None, type(error).__name__, f"record {record.id!r}: {error}")

    def _encode_draw(self, record: Record, dataset: str, k: int) -> Example:
        generator = np.random.Generator(np.random.Philox(key=np.array([self._seed, k], dtype=np.uint64)))
        if self._augment is not None:
            record = self._augment(record, generator)
        example = self._encode[dataset](record)
        length = example.num_tokens
        if length <= self._tokens_per_row:
            return example
        if not example.divisible:
            raise CapacityError(f"the example has {length} tokens, more than the {self._tokens_per_row} of a row")
        start = int(generator.integers(length - self._tokens_per_row + 1))
        return run_of_tokens(example, start, self._tokens_per_row)

    def _check_skipped(self) -> None:
        num_skipped = self.skipped.total()
        if self._num_encoded >= MIN_DRAWS and num_skipped > MAX_SKIPPED * self._num_encoded:
            raise DataError(
                f"{num_skipped} of {self._num_encoded} records cannot be used; the first are: "
                + "; ".join(self.first_skipped)
            )
