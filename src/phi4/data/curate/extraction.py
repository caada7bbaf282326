"""The main text of HTML pages, taken out in a process of its own, which is ended when a page takes too long.

Nothing else ends a loop inside lxml. Run as a program, this module is that process: pages come on standard input and
texts go to standard output, each behind its length in eight bytes.
"""

import subprocess
import sys
from threading import Event, Timer
from typing import IO

from phi4.errors import ConfigError

LENGTH_BYTES = 8


class ExtractionError(Exception):
    """A page whose text cannot be had; the message is the reason, in a few words."""


class Extractor:
    """Takes main texts out of pages, one after the other. The process is started for the first page."""

    def __init__(self, max_seconds: float) -> None:
        """Begins nothing yet.

        Args:
            max_seconds: for a page.
        """
        self.max_seconds = max_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def text(self, page: str) -> str:
        """The main text of a page, or nothing where there is none.

        Raises:
            ExtractionError: it took too long, or the process ended.
            ConfigError: the process cannot be started.
        """
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        timed_out = Event()

        def give_up() -> None:
            timed_out.set()
            process.kill()

        timer = Timer(self.max_seconds, give_up)
        timer.start()
        try:
            send(process.stdin, page.encode(errors="replace"))
            return receive(process.stdout).decode()
        except (EOFError, OSError) as error:
            self.close()
            takes_long = "a page whose text takes too long"
            raise ExtractionError(takes_long if timed_out.is_set() else "a page whose text cannot be had") from error
        finally:
            timer.cancel()
            timer.join()
            if timed_out.is_set():
                # Also where the text came at the last moment: the next page needs another process.
                self.close()

    def close(self) -> None:
        """Ends the process, if there is one."""
        if self._process is not None:
            with self._process:
                self._process.kill()
            self._process = None


def send(file: IO[bytes], content: bytes) -> None:
    """Writes a length and what is so long."""
    file.write(len(content).to_bytes(LENGTH_BYTES) + content)
    file.flush()


def receive(file: IO[bytes]) -> bytes:
    """Reads what `send` wrote.

    Raises:
        EOFError: it ends too early.
    """
    head = file.read(LENGTH_BYTES)
    content = file.read(int.from_bytes(head))
    if len(head) < LENGTH_BYTES or len(content) < int.from_bytes(head):
        raise EOFError
    return content


def _start() -> subprocess.Popen[bytes]:
    """Starts the process and waits until it has imported what it needs: that is not the first page's time."""
    command = [sys.executable, "-m", __name__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        receive(process.stdout)
    except EOFError as error:
        process.communicate()
        raise ConfigError("the text of pages needs trafilatura: pip install 'phi4[curate]'") from error
    return process


def main() -> None:
    """Answers pages until standard input ends."""
    import trafilatura

    pages, texts = sys.stdin.buffer, sys.stdout.buffer
    # The first page brings more imports.
    trafilatura.extract("<p>ready</p>")
    send(texts, b"ready")
    while True:
        try:
            page = receive(pages).decode()
        except EOFError:
            return
        send(texts, (trafilatura.extract(page, favor_precision=True, include_comments=False) or "").encode())


if __name__ == "__main__":
    main()
