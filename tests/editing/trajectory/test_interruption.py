"""The first signal asks, the second one interrupts, and the handlers before come back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from overedit.editing.trajectory.interruption import StoppedError, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    with pytest.raises(KeyboardInterrupt) as caught, stop_on_signals() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        os.kill(os.getpid(), number)
    assert not isinstance(caught.value, StoppedError), "the second one does not wait for the turn's end"
    assert {each: signal.getsignal(each) for each in before} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_when_nobody_looks_any_more_stops_at_the_end(number: signal.Signals) -> None:
    done = []
    with pytest.raises(StoppedError, match="as asked"), stop_on_signals():
        os.kill(os.getpid(), number)
        done.append("the last checkpoint")
    assert done


def test_other_threads_are_never_asked() -> None:
    seen: list[bool] = []

    def work() -> None:
        with stop_on_signals() as asked:
            seen.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
