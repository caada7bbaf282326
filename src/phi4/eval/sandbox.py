"""Runs code that a model wrote: in a process of its own, with little time, memory and no rights.

It stands between ordinary mistakes and the machine: endless loops, all memory, forks, files, the network. It is no wall
against a determined attacker; whoever fears one runs the whole evaluation in a container.
"""

import secrets
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from phi4.errors import InputError

CONFINED = Path(__file__).with_name("confined.py")
REPORT_BYTES = 128
PASSED = "passed"
KILLED = "killed"


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        timeout_s: from its start; half of a second of it is Python's own.
        cpu_s: processor time.
        memory_bytes: address space.
        file_bytes: of each file that it writes into its folder.
    """

    timeout_s: float = 10.0
    cpu_s: int = 10
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20


DEFAULT_LIMITS = Limits()
# What solutions of programming problems import; a sandbox that lacks it would call every answer wrong.
NEEDED = "import encodings.cp1252, collections, functools, heapq, itertools, math, random, re, string, typing"


@cache
def check_sandbox() -> None:
    """Makes sure that a right program passes here.

    Raises:
        InputError: it does not.
    """
    outcome = run_program(NEEDED)
    if outcome != PASSED:
        raise InputError(
            f"code cannot be run in confinement on this system: importing Python's own library ends with {outcome}"
        )


def run_program(program: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """Runs a program in an empty folder, without arguments, input, environment and network.

    Args:
        program: Python source.
        limits: what it may use.

    Returns:
        "passed" if it ran to its end without an exception, else the exception's name, or "killed" where it went over
        a limit or ended without saying how.

    Raises:
        InputError: this system has no limits on processes.
    """
    if sys.platform == "win32":
        raise InputError("code of a model is run only where processes can be limited; evaluate it on Linux or macOS")
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="phi4-answer-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o777)
        command = [sys.executable, "-I", "-S", "-B", str(CONFINED)]
        numbers = [str(limits.cpu_s), str(limits.memory_bytes), str(limits.file_bytes)]
        with subprocess.Popen(
            [*command, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        ) as process:
            report = _talk(process, f"{token}\n{program}".encode("utf-8", "replace"), limits.timeout_s)
    if report == token:
        return PASSED
    # A program calls its exceptions what it likes, and may write into every descriptor.
    is_name = report.isidentifier() and len(report) < REPORT_BYTES and report != PASSED
    return report if is_name else KILLED


def _talk(process: subprocess.Popen[bytes], text: bytes, timeout_s: float) -> str:
    """Sends the program and waits for the report, no longer than so; the process is gone afterwards."""
    assert process.stdin is not None
    assert process.stdout is not None
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        process.stdin.write(text)
        process.stdin.close()
        report = process.stdout.read(REPORT_BYTES)
    except BrokenPipeError:  # it ended before it had read everything
        report = b""
    finally:
        timer.cancel()
        process.kill()
    return report.decode("utf-8", "replace")
