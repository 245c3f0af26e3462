"""Blocks that an interrupt does not leave half done."""

import signal
import threading

import pytest

from sk_pwiser._utils import uninterrupted


def test_an_interrupt_is_delayed_to_the_end_of_the_block():
    steps, handler = [], signal.getsignal(signal.SIGINT)

    def block():
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            steps.append("done")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert steps == ["done"]
    assert signal.getsignal(signal.SIGINT) is handler


def test_errors_propagate_and_the_handler_is_restored():
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), uninterrupted():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is handler


def test_other_threads_need_no_handler():
    steps = []

    def block():
        with uninterrupted():
            steps.append("done")

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert steps == ["done"]
