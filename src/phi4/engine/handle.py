"""A request on its way: how its tokens reach the one who asked."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from queue import SimpleQueue

from phi4.engine.request import GeneratedToken, Request
from phi4.engine.sampler import LogProbabilities

# A token, the error that ended the request, or None at its end.
Event = GeneratedToken | Exception | None


class Handle:
    """Iterate for the tokens as they come, from any thread or with `async for`; all `n` answers come mixed.

    Iterating ends when all answers are finished or the request is cancelled, and raises the error that ended it. Each
    token is handed out once.

    Attributes:
        request: what was asked.
        adapter: the LoRA of the conversation.
        submitted: when, as `time.perf_counter` tells it.
        cached_tokens: how many tokens of the prompt were found in the cache instead of being computed; known when the
            first token is there. Of `n` answers the first one counts: the others find the prompt in any case.
        prompt_log_probabilities: what the model thought of each token of the prompt, if the request asked for that;
            None for the first one, before which there is nothing, and up to `Request.scored_from`. Complete when the
            first token of the first answer is there.
    """

    def __init__(
        self,
        request: Request,
        adapter: str | None,
        index: int = 0,
        events: SimpleQueue[tuple[int, Event]] | None = None,
    ) -> None:
        """Makes a queue, unless events shall go with an index to one that several handles share."""
        self.request = request
        self.adapter = adapter
        self.submitted = time.perf_counter()
        self.cached_tokens = 0
        unscored = 0 if request.prompt_logprobs is None else min(request.scored_from, len(request.inputs.token_ids))
        self.prompt_log_probabilities: list[LogProbabilities | None] = [None] * unscored
        self._index = index
        self._events: SimpleQueue[tuple[int, Event]] = SimpleQueue() if events is None else events
        self._notify: Callable[[], object] | None = None
        self._cancelled = False
        self._cancelled_choices: set[int] = set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the whole request was cancelled."""
        return self._cancelled

    def is_wanted(self, choice: int) -> bool:
        """Whether an answer is still waited for; the engine asks this."""
        return not self._cancelled and choice not in self._cancelled_choices

    def cancel(self, choice: int | None = None) -> None:
        """Ends the request, or one of its `n` answers; its rows leave before the next step.

        Does nothing to what has ended. Tokens that were there before may still be read.
        """
        if choice is not None:
            self._cancelled_choices.add(choice)
            return
        self._cancelled = True
        self.put(None)

    def keep_prompt(self, scores: Sequence[LogProbabilities]) -> None:
        """Takes what the model thought of the next tokens of the prompt; the engine calls this."""
        self.prompt_log_probabilities += scores

    def put(self, event: Event) -> None:
        """Hands an event out; the engine calls this."""
        self._events.put((self._index, event))
        if self._notify is not None:
            self._notify()

    def __iter__(self) -> Iterator[GeneratedToken]:
        while (event := self._events.get()[1]) is not None:
            if isinstance(event, Exception):
                raise event
            yield event

    async def __aiter__(self) -> AsyncIterator[GeneratedToken]:
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(arrived.set)
            except RuntimeError:  # the loop is closed: nobody is there to read the rest
                self._cancelled = True

        self._notify = notify
        while True:
            arrived.clear()
            while not self._events.empty():
                _, event = self._events.get()
                if event is None:
                    return
                if isinstance(event, Exception):
                    raise event
                yield event
            await arrived.wait()
