"""From a request that came in to answers that are on their way, the first token there."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack

from phi4.engine.request import Request
from phi4.server.answers import AnswerPiece, Answers
from phi4.server.service import Service


class Opened:
    """Answers on their way. Whoever holds this must close it: that ends what is still running, and lets others in.

    Attributes:
        answers: one for each prompt, with its `n` choices.
    """

    def __init__(
        self, answers: Sequence[Answers], pieces: AsyncIterator[tuple[int, AnswerPiece]], resources: ExitStack
    ) -> None:
        self.answers = answers
        self.pieces = pieces
        self.close = resources.close

    async def collect(self) -> list[list[AnswerPiece]]:
        """Reads everything: the pieces of each choice, those of the first prompt before those of the next."""
        collected: list[list[AnswerPiece]] = [[] for one in self.answers for _ in range(one.num_choices)]
        async for index, piece in self.pieces:
            collected[index].append(piece)
        return collected


async def open_answers(
    service: Service,
    prepare: Callable[[], Sequence[Request]],
    *,
    stop: Sequence[str],
    model: str | None,
    arrived: float,
) -> Opened:
    """Lets a request in, prepares its prompts beside the event loop, hands them to the engine, waits for a token.

    Args:
        service: answers.
        prepare: makes the engine's requests, one for each prompt.
        stop: strings that end an answer.
        model: the model that the client named.
        arrived: when the request came, as `time.perf_counter` tells it.

    Raises:
        RefusedError: the server is busy or about to stop, or another model is meant.
        InputError: something in the request cannot be used.
        CapacityError: it is too large.
        ClosedError: the server stops.
    """
    with ExitStack() as stack:
        ticket = stack.enter_context(service.admission.enter())
        starting = _Starting(service, stop, model)
        stack.callback(starting.cancel)
        answers = await service.prepare(lambda: starting.start(prepare))
        pieces = _one_after_the_other(answers)
        first = await anext(pieces)
        ticket.begin()
        service.metrics.first_token_seconds.observe(time.perf_counter() - arrived)
        return Opened(answers, _put_in_front(first, pieces), stack.pop_all())
    raise AssertionError("the context hides no error")


class _Starting:
    """Requests that a thread hands to the engine, while the client may hang up at any moment."""

    def __init__(self, service: Service, stop: Sequence[str], model: str | None) -> None:
        self._service = service
        self._stop = stop
        self._model = model
        self._answers: list[Answers] = []
        self._is_cancelled = False

    def start(self, prepare: Callable[[], Sequence[Request]]) -> list[Answers]:
        """Prepares requests and hands them over."""
        for request in prepare():
            self._answers.append(self._service.answer(request, self._stop, self._model))
            # Looked at after the answer is in the list, and set before the list is read: one of the two sees it.
            if self._is_cancelled:
                self.cancel()
                break
        return self._answers

    def cancel(self) -> None:
        """Ends what was handed over, and what will yet be."""
        self._is_cancelled = True
        for one in self._answers:
            one.cancel()


async def _one_after_the_other(answers: Sequence[Answers]) -> AsyncIterator[tuple[int, AnswerPiece]]:
    """All pieces, each with its place among all choices of all prompts. The engine runs all prompts meanwhile."""
    begin = 0
    for one in answers:
        async for piece in one:
            yield begin + piece.choice, piece
        begin += one.num_choices


async def _put_in_front(
    first: tuple[int, AnswerPiece], rest: AsyncIterator[tuple[int, AnswerPiece]]
) -> AsyncIterator[tuple[int, AnswerPiece]]:
    yield first
    async for piece in rest:
        yield piece
