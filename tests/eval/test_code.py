"""Code of a model is judged by its tests, and can do no harm."""

import json
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from phi4.errors import DataError, InputError
from phi4.eval.families.code import chance_of_one, extract_code
from phi4.eval.items import RowItems
from phi4.eval.registry import TASKS
from phi4.eval.sandbox import Limits, check_sandbox, run_program
from phi4.eval.task import Item, Reply

FLOOD = """
import os
while True:
    for descriptor in range(32):
        try:
            os.write(descriptor, b"x" * 65536)
        except OSError:
            pass
"""
SHORT = Limits(timeout_s=1.0, cpu_s=1, memory_bytes=256 << 20)
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'from typing import List\n\n\ndef total(numbers: List[int]) -> int:\n    """The sum."""\n',
    "canonical_solution": "    return sum(numbers)\n",
    "test": "def check(candidate):\n    assert candidate([1, 2]) == 3\n    assert candidate([]) == 0\n",
    "entry_point": "total",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function to double a number.",
    "code": "def double(x):\n  return 2 * x",
    "test_list": ["assert double(2) == 4", "assert math.isclose(double(.5), 1)"],
    "test_setup_code": "import math",
    "challenge_test_list": [],
}


def item_of(name: str, row: object, folder: Path) -> Item:
    (folder / f"{name}.jsonl").write_text(json.dumps(row) + "\n")
    (item,) = RowItems.open(TASKS[name], folder).select([0])
    return item


def passes(name: str, item: Item, *texts: str) -> list[float]:
    metrics = [metric for metric in TASKS[name].metrics if metric.name.startswith("pass@")]
    return [metric.statistics(item, Reply(texts=texts))[0] for metric in metrics]


def test_humaneval(tmp_path: Path) -> None:
    item = item_of("humaneval", HUMAN_EVAL, tmp_path)
    whole = "Here:\n```python\ndef total(numbers: List[int]) -> int:\n    return sum(numbers)\n```\nThat adds them."
    assert passes("humaneval", item, whole) == [1.0]
    assert passes("humaneval", item, "    return sum(numbers)\n") == [1.0]
    assert passes("humaneval", item, whole.replace("sum", "len")) == [0.0]
    assert passes("humaneval", item, "I cannot do that.") == [0.0]


def test_mbpp(tmp_path: Path) -> None:
    item = item_of("mbpp", MBPP, tmp_path)
    assert "assert double(2) == 4" in str(item.messages[0].content)
    assert passes("mbpp", item, "```\ndef double(x):\n    return 2 * x\n```") == [1.0]
    assert passes("mbpp", item, "```\ndef double(x):\n    return 3 * x\n```") == [0.0]


def test_of_several_answers_one_is_enough(tmp_path: Path) -> None:
    item = item_of("humaneval_sampled", HUMAN_EVAL, tmp_path)
    texts = ["    return sum(numbers)"] + ["    return 1"] * 9
    assert passes("humaneval_sampled", item, *texts) == pytest.approx([0.1, 1.0])
    # 1 - C(3, 2) / C(5, 2)
    assert chance_of_one(5, 2, 2) == pytest.approx(0.7)
    with pytest.raises(InputError, match="pass@10 needs at least 10 answers to a problem, not 9; ask for n=10"):
        passes("humaneval_sampled", item, *texts[:9])


def test_programs_that_never_end_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phi4.eval.families.code.run_program", partial(run_program, limits=SHORT))
    item = item_of("humaneval", HUMAN_EVAL, tmp_path)
    reply = Reply(texts=("    while True: pass\n", "    return 0\n", "    return sum(numbers)\n"))
    passed, killed = (metric.statistics(item, reply) for metric in TASKS["humaneval"].metrics)
    assert passed == pytest.approx((1 / 3, 1.0))
    assert killed == (1.0, 3.0)


def test_a_row_without_its_function_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the prompt defines no function other"):
        item_of("humaneval", {**HUMAN_EVAL, "entry_point": "other"}, tmp_path)


def test_the_first_block_counts() -> None:
    assert extract_code("```python\na\n```\n```python\nb\n```", "") == "a\n"
    assert extract_code("```py\nunfinished", "") == "unfinished"


@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("assert 1 + 1 == 2", "passed"),
        ("assert 1 + 1 == 3", "AssertionError"),
        ("def (", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os; os._exit(0)", "killed"),
        ("while True: pass", "killed"),
        ("import time; time.sleep(60)", "killed"),
        ("x = bytearray(1 << 30)", "MemoryError"),
        ("def f(): return f()\nf()", "RecursionError"),
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "PermissionError"),
        ("import ctypes; ctypes.CDLL(None)", "PermissionError"),
        ("import threading; threading.Thread(target=print).start()", "RuntimeError"),
        ("f = open('here', 'w'); f.write('x'); f.close(); assert open('here').read() == 'x'", "passed"),
        ("f = open('here', 'wb')\nfor _ in range(9): f.write(bytes(1 << 18)); f.flush()", "OSError"),
        (
            FLOOD,
            "killed",
        ),
        ("print('x' * 1000); input()", "EOFError"),
        ("for n in range(1000): open(f'f{n}', 'wb').write(bytes(1 << 19))", "PermissionError"),
        ("import os\nfor n in range(1000): os.mkdir(f'd{n}')", "PermissionError"),
        ("import os; os.mkfifo('/tmp/phi4-pipe')", "AttributeError"),
        ("import posix; posix.mknod('/tmp/phi4-pipe')", "AttributeError"),
        ("from multiprocessing import shared_memory", "ImportError"),
        ("import multiprocessing; multiprocessing.Lock()", "ImportError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("x = [10 ** 8] * 10 ** 9", "MemoryError"),
        ("import sqlite3; sqlite3.connect('/tmp/phi4-answer.db')", "ImportError"),
        ("import readline; readline.write_history_file('/tmp/phi4-answer')", "ImportError"),
        ("import dbm; dbm.open('/tmp/phi4-answer', 'n')", "PermissionError"),
        ("class passed(Exception): pass\nraise passed", "killed"),
        (
            "import os\nfor n in range(3, 32):\n  try: os.write(n, b'passed')\n  except OSError: pass\nos._exit(0)",
            "killed",
        ),
        ("if __name__ == '__main__': raise SystemExit", "passed"),
    ],
)
def test_a_program_is_bounded(program: str, outcome: str) -> None:
    started = time.perf_counter()
    assert run_program(program, SHORT) == outcome
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "program", ["import shutil; shutil.rmtree({0!r})", "import os; os.remove({1!r})", "open({1!r}, 'w')"]
)
def test_a_program_changes_nothing_outside_its_folder(program: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    tmp_path.chmod(0o777)
    assert run_program(program.format(str(tmp_path), str(kept)), SHORT) == "PermissionError"
    assert kept.read_text() == "kept"


def test_another_interpreter_without_a_guard_cannot_be_made() -> None:
    name = "_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters"
    assert run_program(f"import {name}; {name}.create()", SHORT) in ("PermissionError", "RuntimeError", "killed")


def test_a_program_that_ends_before_it_was_read_is_killed() -> None:
    assert run_program("#" * (8 << 20), Limits(timeout_s=0.01)) == "killed"


def test_the_usual_library_is_there() -> None:
    check_sandbox()
    tested = 'def double(x):\n    """\n    >>> double(2)\n    4\n    """\n    return 2 * x\n'
    assert run_program(f"{tested}import doctest; doctest.run_docstring_examples(double, globals())") == "passed"
