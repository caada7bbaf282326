"""Processes that compute ahead."""

import os
import subprocess
import sys

import torch

from phi4.data.ahead import Ahead

# Asks for results, and goes on when its whole group gets the signals that end a training.
SIGNALLED = """
import os, signal
from phi4.data.ahead import Ahead

for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
results = Ahead(lambda number: number, [0], 1, 1)
results.next(0)
for number in (signal.SIGINT, signal.SIGTERM):
    os.killpg(0, number)
    print(len([results.next(0) for _ in range(100)]))
"""


def test_results_come_in_order_from_another_process() -> None:
    ahead = Ahead(lambda number: (number, os.getpid()), [3], 4, 1)
    results = [ahead.next(0) for _ in range(50)]
    assert [number for number, _ in results] == list(range(3, 203, 4))
    assert os.getpid() not in {process for _, process in results}


def test_all_sequences_share_the_processes() -> None:
    """Read unevenly, as rows with longer and shorter examples are."""
    ahead = Ahead(lambda number: (number, os.getpid()), range(24), 24, 1)
    results = {place: [ahead.next(place) for _ in range(1 + place)] for place in range(24)}
    assert all(
        [number for number, _ in own] == list(range(place, 24 * (place + 1), 24)) for place, own in results.items()
    )
    assert len({process for own in results.values() for _, process in own}) == 1


def test_tensors_of_every_type_come_as_they_were() -> None:
    sent = [
        torch.tensor([[1.5, -2.0], [0.1, 4.0]], dtype=torch.bfloat16).T,
        torch.tensor([], dtype=torch.int64),
        torch.tensor(True),
    ]
    received = Ahead(lambda _: sent, [0], 1, 1).next(0)
    for tensor, copy in zip(sent, received, strict=True):
        assert copy.dtype == tensor.dtype
        assert torch.equal(copy, tensor)


def test_signals_to_the_whole_group_leave_the_end_to_the_process_that_asks() -> None:
    command = [sys.executable, "-c", SIGNALLED]
    result = subprocess.run(command, start_new_session=True, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.split()) == (0, ["100", "100"]), result.stderr
