"""Puts items to a model, many at a time, and takes down what it gives."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain

from phi4.assistant import Assistant
from phi4.engine.handle import Handle
from phi4.engine.request import Request
from phi4.errors import CapacityError, DataError, InputError
from phi4.eval.likelihood import Continuation, encode_continuation, encode_windows, score_continuations
from phi4.eval.task import Ask, Choose, Generate, Item, Reply
from phi4.processing.stop import StopScanner
from phi4.processing.tokenizer import TextStream, Tokenizer

# Items that are asked together; their media are in memory, those of the others are not.
ITEMS_AT_ONCE = 32


def ask_items(assistant: Assistant, ask: Ask, items: Sequence[Item]) -> Iterator[Reply]:
    """Asks a group of items together and yields the replies in their order.

    Raises:
        DataError: an item cannot be put to this model.
    """
    if isinstance(ask, Generate):
        return _generate(assistant, ask, items)
    return _score(assistant, ask, items)


def _generate(assistant: Assistant, ask: Generate, items: Sequence[Item]) -> Iterator[Reply]:
    requests = [_request(assistant, ask, item) for item in items]
    try:
        for texts in answer_together(assistant, [(request, ask.stop) for request in requests]):
            yield Reply(texts=texts)
    except (InputError, CapacityError) as error:
        raise DataError(f"one of the items {items[0].id!r} to {items[-1].id!r} cannot be answered: {error}") from error


def _request(assistant: Assistant, ask: Generate, item: Item) -> Request:
    try:
        return Request(assistant.processor.prepare(item.messages, item.tools or None), ask.sampling)
    except (InputError, CapacityError) as error:
        raise DataError(f"item {item.id!r} cannot be answered: {error}") from error


def answer_together(assistant: Assistant, asked: Sequence[tuple[Request, Sequence[str]]]) -> Iterator[tuple[str, ...]]:
    """Answers requests together and yields the texts of each, in their order, without end token and stop string.

    Args:
        assistant: the model.
        asked: requests, at least one, each with the strings that end an answer to it and are no part of it.

    Raises:
        InputError, CapacityError: as `Engine.submit` does.
    """
    handles: list[Handle] = []
    # A thread for each, so that a stop string ends its answer at once and not when it is read.
    with ThreadPoolExecutor(len(asked)) as pool:
        try:
            for request, _ in asked:
                handles.append(assistant.engine.submit(request))
            read = partial(_read_texts, tokenizer=assistant.processor.tokenizer)
            yield from pool.map(read, handles, (stop for _, stop in asked))
        finally:
            # Whoever interrupts must not wait for the rest of the group.
            for handle in handles:
                handle.cancel()


def _read_texts(handle: Handle, stop: Sequence[str], tokenizer: Tokenizer) -> tuple[str, ...]:
    """Waits for all answers to a request."""
    choices = range(handle.request.sampling.n)
    streams, scanners = [TextStream(tokenizer) for _ in choices], [StopScanner(stop) for _ in choices]
    texts, stopped = ["" for _ in choices], set[int]()
    for token in handle:
        scanner = scanners[token.choice]
        if token.choice in stopped:
            continue
        if token.finish_reason != "stop":
            texts[token.choice] += scanner.feed(streams[token.choice].push(token.token_id))
        if scanner.stopped:
            stopped.add(token.choice)
            handle.cancel(token.choice)
        elif token.finish_reason is not None:
            texts[token.choice] += scanner.flush()
    return tuple(texts)


def _score(assistant: Assistant, ask: Ask, items: Sequence[Item]) -> Iterator[Reply]:
    """Log-likelihoods of the choices of each item, each of which may be in several pieces."""
    encoded = [[_encode(assistant, ask, item, choice) for choice in item.choices] for item in items]
    pieces = [*chain.from_iterable(chain.from_iterable(encoded))]
    try:
        scores = iter(score_continuations(assistant.engine, pieces))
    except CapacityError as error:
        raise DataError(f"one of the items {items[0].id!r} to {items[-1].id!r} is too long: {error}") from error
    for choices in encoded:
        yield Reply(log_likelihoods=tuple(sum(next(scores).log_likelihood for _ in choice) for choice in choices))


def _encode(assistant: Assistant, ask: Ask, item: Item, choice: str) -> list[Continuation]:
    tokenizer = assistant.processor.tokenizer
    try:
        if isinstance(ask, Choose):
            return [encode_continuation(tokenizer, item.context, choice, assistant.loaded.generation.prefix_id)]
        # The token that the engine generates behind a piece needs a place too.
        return encode_windows(tokenizer, choice, assistant.loaded.generation.prefix_id, max_scored_tokens(assistant))
    except InputError as error:
        raise DataError(f"item {item.id!r} cannot be scored: {error}") from error


def max_scored_tokens(assistant: Assistant) -> int:
    """How many tokens of a text are scored at once, with one token before and one behind them."""
    return assistant.loaded.config.decoder.max_position_embeddings - 2
