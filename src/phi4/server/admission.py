"""Who may come in: how many requests wait, how many are being answered, and whether new ones are taken at all."""

from types import TracebackType

from phi4.server.errors import ErrorBody, RefusedError

# Seconds after which a client that was sent away may try again.
RETRY_AFTER_S = 2


class Admission:
    """Counts requests on their way. All of it happens in the event loop.

    Attributes:
        num_waiting: requests without a first token.
        num_requests: requests on their way, those included.
        is_draining: whether the server is about to stop; set it to let nobody in any more.
    """

    def __init__(self, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self.num_waiting = 0
        self.num_requests = 0
        self.is_draining = False

    def enter(self) -> "Ticket":
        """Lets a request in; it leaves at the end of a `with` statement.

        Raises:
            RefusedError: with status 503, the server is about to stop; with 429, too many requests are waiting.
        """
        retry = {"Retry-After": str(RETRY_AFTER_S)}
        if self.is_draining:
            raise stopping_error()
        if self.num_waiting >= self.max_waiting:
            message = f"{self.num_waiting} requests are waiting already; try again in {RETRY_AFTER_S} s"
            raise RefusedError(429, ErrorBody(message, "rate_limit_error", code="queue_full"), retry)
        self.num_waiting += 1
        self.num_requests += 1
        return Ticket(self)

    def leave(self) -> None:
        """Counts a request out."""
        self.num_requests -= 1


def stopping_error() -> RefusedError:
    """What clients of a server that is about to stop are told."""
    body = ErrorBody("the server is about to stop; ask again when it is back", "server_error", code="stopping")
    return RefusedError(503, body, {"Retry-After": str(RETRY_AFTER_S)})


class Ticket:
    """One request that was let in."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._waits = True

    def begin(self) -> None:
        """Its first token is there: it waits no longer."""
        if self._waits:
            self._waits = False
            self._admission.num_waiting -= 1

    def __enter__(self) -> "Ticket":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.begin()
        self._admission.leave()
