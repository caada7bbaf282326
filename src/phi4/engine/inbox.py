"""Where callers leave requests, and the thread that takes them: it lives while there is something to do."""

import threading
from collections.abc import Callable, Sequence

from phi4.engine.handle import Handle
from phi4.engine.sampler import Sampler
from phi4.errors import ClosedError

# A request that was submitted, with a sampler for each of its answers.
Submission = tuple[Handle, list[Sampler]]


class Inbox:
    """What the callers' threads and the engine's share; all of it under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._submitted: list[Submission] = []
        self._thread: threading.Thread | None = None
        self._is_working = False
        self._is_closed = False

    def put(self, submissions: Sequence[Submission], work: Callable[[], None]) -> None:
        """Leaves requests, and starts a thread unless there is one that will take them.

        Args:
            submissions: the requests.
            work: what the thread does; it ends when `is_idle` says so.

        Raises:
            ClosedError: the inbox is closed.
        """
        with self._lock:
            if self._is_closed:
                raise ClosedError("the engine is closed and takes no more requests; make another one")
            if submissions and not self._is_working:
                if self._thread is not None:
                    self._thread.join()
                # No daemon: the interpreter would not wait until it has left torch, which takes the process down.
                thread = threading.Thread(target=work, name="phi4-engine", daemon=False)
                # It waits for the lock. Where no thread is to be had, this raises, and nothing was left.
                thread.start()
                self._thread, self._is_working = thread, True
            self._submitted += submissions

    def take(self) -> tuple[list[Submission], bool]:
        """What was left since the last time, and whether the inbox is closed; for the thread.

        It is closed when the program's main thread has ended, too: the interpreter waits for this one by then.
        """
        with self._lock:
            self._is_closed |= not threading.main_thread().is_alive()
            submitted, self._submitted = self._submitted, []
            return submitted, self._is_closed

    def is_idle(self, has_rows: bool) -> bool:
        """Whether the thread can end, as neither rows nor requests are left; for the thread, which must end then."""
        with self._lock:
            self._is_working = has_rows or bool(self._submitted)
            return not self._is_working

    def close(self) -> None:
        """Takes no more requests, and waits until the thread has ended those that are there."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
