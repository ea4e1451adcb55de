"""The first signal asks, the second one interrupts, and the handlers before come back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from tasks.stopping import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    with stop_on_signals() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert {each: signal.getsignal(each) for each in before} == before


def test_other_threads_are_never_asked() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_on_signals() as asked:
            seen.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
