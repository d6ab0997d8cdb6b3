"""A first request to stop is noted, a second one acts, whatever others did to the handlers between."""

import signal

import pytest

from raymask.signals import StopRequest, signals_kept


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_acts_and_all_is_as_before_in_the_end(number: int):
    heard: list[int] = []
    before = signal.signal(number, lambda number, frame: heard.append(number))
    mine = signal.getsignal(number)
    try:
        with StopRequest() as stop:
            with signals_kept():  # as while Ray starts, which sets handlers of its own
                signal.raise_signal(number)
            assert stop.received == number and heard == []
            signal.raise_signal(number)
            assert heard == [number]
        assert signal.getsignal(number) is mine
    finally:
        signal.signal(number, before)
