"""How many bytes of requests are in memory at once: large bodies take turns, small ones pass."""

import asyncio
from collections import deque

from phi4.server.admission import RETRY_AFTER_S
from phi4.server.errors import ErrorBody, RefusedError

# A body of this size does not count: the buffers of its connection take as much.
SMALL_BYTES = 64 * 2**10
# How long a body waits for its turn. Its bytes stay with the client meanwhile.
TURN_S = 30.0


class Bodies:
    """Room for the bodies of requests. All of it happens in the event loop.

    A body has all of its room before its first byte is read: bodies that had a part of theirs each would wait for
    each other for ever.

    Attributes:
        num_bytes: taken.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = 0
        self._turns: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, num_bytes: int) -> "Room":
        """Waits for room, first come, first served.

        Args:
            num_bytes: of the body, or as many as it may have if it does not say.

        Raises:
            RefusedError: with status 429, there was none in time.
        """
        if num_bytes <= SMALL_BYTES:
            return Room(self, 0)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append((num_bytes, turn))
        self._call()
        try:
            async with asyncio.timeout(TURN_S):
                await turn
        except BaseException as error:
            self.give_back(0 if turn.cancelled() else num_bytes)
            if not isinstance(error, TimeoutError):
                raise
            message = f"large requests fill the {self.max_bytes:,} bytes that this server keeps for them; try again"
            body = ErrorBody(message, "rate_limit_error", code="bodies_full")
            raise RefusedError(429, body, {"Retry-After": str(RETRY_AFTER_S)}) from None
        return Room(self, num_bytes)

    def give_back(self, num_bytes: int) -> None:
        """Makes room for others."""
        self.num_bytes -= num_bytes
        self._call()

    def _call(self) -> None:
        """Lets in whoever is next, as long as there is room."""
        while self._turns:
            num_bytes, turn = self._turns[0]
            if not turn.cancelled():
                if self.num_bytes + num_bytes > self.max_bytes:
                    return
                self.num_bytes += num_bytes
                turn.set_result(None)
            self._turns.popleft()


class Room:
    """Room that a body has."""

    def __init__(self, bodies: Bodies, num_bytes: int) -> None:
        self._bodies = bodies
        self._num_bytes = num_bytes

    def leave(self) -> None:
        """Gives it back, once."""
        num_bytes, self._num_bytes = self._num_bytes, 0
        self._bodies.give_back(num_bytes)
