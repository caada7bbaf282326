import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kernels.test_adapted import scaled
from kernels.test_quantised import numbers
from phi4.kernels.instructions import NATIVE
from phi4.kernels.quantised import multiply_packed

pytestmark = pytest.mark.skipif(NATIVE is None, reason="no kernels were compiled here")

CALLERS, CALLS = 4, 50


def test_many_threads_may_call_kernels_at_once(two_threads: None) -> None:
    rows, weight = numbers(13, 256), scaled(512, 256, 4)
    expected = multiply_packed(rows, weight)

    def call(_: int) -> bool:
        with torch.inference_mode():
            return all(torch.equal(multiply_packed(rows, weight), expected) for _ in range(CALLS))

    with ThreadPoolExecutor(CALLERS) as callers:
        assert all(callers.map(call, range(CALLERS)))


def test_more_or_fewer_threads_from_call_to_call_change_no_bit(two_threads: None) -> None:
    rows, weight = numbers(13, 256), scaled(512, 256, 4)
    expected = multiply_packed(rows, weight)
    for threads in (2, 5, 1, 3, 2):
        torch.set_num_threads(threads)
        assert torch.equal(multiply_packed(rows, weight), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_process_that_was_forked_has_threads_of_its_own(two_threads: None) -> None:
    rows, weight = numbers(13, 256), scaled(512, 256, 4)
    expected = multiply_packed(rows, weight)
    child = os.fork()
    if child == 0:  # no test may go on here, whatever happens
        os._exit(0 if torch.equal(multiply_packed(rows, weight), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
