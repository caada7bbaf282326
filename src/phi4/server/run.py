"""Runs the application on a port until it is told to stop."""

import asyncio
import os
import time
from types import FrameType

import uvicorn

from phi4.server.app import build_app
from phi4.server.service import Service

# How long a keep-alive connection may be silent, and how long connections have to close at the end.
KEEP_ALIVE_S = 30
CLOSE_S = 3


class Server(uvicorn.Server):
    """A server that drains: at the first signal it finishes its answers and takes no more, at the second it stops.

    Unlike uvicorn alone, it goes on to listen meanwhile, so that new requests hear why they are refused.
    """

    def __init__(self, service: Service, host: str, port: int, log_level: str = "info") -> None:
        """Prepares to listen.

        Args:
            service: what answers.
            host: the address to listen at.
            port: the port; 0 takes a free one.
            log_level: of uvicorn's log on stderr.
        """
        super().__init__(
            uvicorn.Config(
                build_app(service),
                host,
                port,
                log_level=log_level,
                lifespan="on",
                ws="none",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=CLOSE_S,
                server_header=False,
            )
        )
        self._service = service
        self._drained_at: float | None = None

    @property
    def port(self) -> int:
        """The port that it listens at, once it has started."""
        port: int = self.servers[0].sockets[0].getsockname()[1]
        return port

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Takes a signal: SIGTERM, or SIGINT from Ctrl-C."""
        if self._drained_at is None:
            self._drained_at = time.monotonic() + self._service.limits.drain_s
            self._service.admission.is_draining = True
        else:
            # At once: a step of the model may take long, and nothing is left to be saved. The status is what a shell
            # tells of a program that a signal ended; the signal itself would not end the first process of a container.
            os._exit(128 + sig)

    async def on_tick(self, counter: int) -> bool:
        """Decides every 0.1 s whether to go on."""
        if self._drained_at is not None and not self.should_exit:
            if time.monotonic() > self._drained_at:
                # Ends what is still running with an error that its clients get to see.
                await asyncio.to_thread(self._service.engine.close)
                self.should_exit = True
            elif self._service.admission.num_requests == 0:
                self.should_exit = True
        return await super().on_tick(counter)
