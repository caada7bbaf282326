import os
import signal

import pytest

from phi4.train.interrupt import watch_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_instead_of_ending_the_process(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with watch_signals() as interrupt:
        assert interrupt.signal is None
        os.kill(os.getpid(), number)
        assert interrupt.signal == number
    assert signal.getsignal(number) is before
