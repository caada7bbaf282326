"""Tokens reach whoever asked: in a thread, in an event loop, or not at all once it is gone."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from phi4.engine.handle import Handle
from phi4.engine.request import GeneratedToken, Request
from phi4.engine.sampling import Sampling
from phi4.errors import CapacityError
from phi4.inputs import ModelInputs


def token(token_id: int) -> GeneratedToken:
    return GeneratedToken(0, token_id, None, "short", None, 0.0)


@pytest.fixture
def handle() -> Handle:
    return Handle(Request(ModelInputs((1,)), Sampling()), None)


def read_sync(handle: Handle) -> list[int]:
    return [one.token_id for one in handle]


def read_async(handle: Handle) -> list[int]:
    async def read() -> list[int]:
        return [one.token_id async for one in handle]

    return asyncio.run(read())


readers = pytest.mark.parametrize("read", [read_sync, read_async])


@readers
def test_tokens_from_another_thread_arrive_in_order(handle: Handle, read: Callable[[Handle], list[int]]) -> None:
    def write() -> None:
        for token_id in range(500):
            handle.put(token(token_id))
        handle.put(None)

    thread = threading.Thread(target=write)
    thread.start()
    assert read(handle) == list(range(500))
    thread.join()


@readers
def test_an_error_is_raised_behind_the_tokens_before_it(handle: Handle, read: Callable[[Handle], list[int]]) -> None:
    handle.put(token(1))
    handle.put(CapacityError("full"))
    with pytest.raises(CapacityError, match="full"):
        read(handle)


@readers
def test_a_reader_of_a_cancelled_request_does_not_wait(handle: Handle, read: Callable[[Handle], list[int]]) -> None:
    handle.put(token(1))
    handle.cancel()
    assert read(handle) == [1]


def test_tokens_for_an_event_loop_that_is_closed_cancel_the_request(handle: Handle) -> None:
    async def read_one() -> int:
        handle.put(token(1))
        async for one in handle:
            return one.token_id
        raise AssertionError("there was a token")

    assert asyncio.run(read_one()) == 1
    assert not handle.is_cancelled
    handle.put(token(2))
    assert handle.is_cancelled
