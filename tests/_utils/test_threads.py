"""The number of threads of torch follows the cores that other programs leave free."""

import warnings

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier, num_threads
from sk_pwiser._utils import _threads, controlled_threads, update_threads
from sk_pwiser._utils._threads import Usage, free_cores

rng = np.random.default_rng(0)
X = rng.standard_normal((60, 2))
Y = np.column_stack([np.arange(60) % 2, np.arange(60) % 4 == 1]).astype(int)


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(_threads.joblib, "cpu_count", lambda: 4)
    yield
    torch.set_num_threads(before)


class Machine:
    """A machine of four cores on which time passes when it is told to."""

    def __init__(self):
        self.usage = Usage(0.0, 0.0, 0.0)

    def pass_time(self, seconds, free, own=0.0):
        wall, idle, used = self.usage
        self.usage = Usage(
            wall + seconds, idle + seconds * (free - own), used + seconds * own
        )

    def perf_counter(self):
        return self.usage.wall

    def read_usage(self):
        return self.usage


@pytest.fixture
def machine(monkeypatch):
    machine = Machine()
    monkeypatch.setattr(_threads, "read_usage", machine.read_usage)
    monkeypatch.setattr(_threads.time, "perf_counter", machine.perf_counter)
    return machine


def test_free_cores_are_idle_or_used_by_the_process():
    assert free_cores(Usage(10, 100, 7), Usage(12, 103, 8)) == pytest.approx(2.0)


def test_training_begins_with_one_thread_and_takes_the_free_cores(machine):
    with controlled_threads(True):
        assert torch.get_num_threads() == 1
        machine.pass_time(0.05, free=4)
        update_threads()
        assert torch.get_num_threads() == 1  # too early to measure
        machine.pass_time(0.1, free=4, own=1)
        update_threads()
        assert torch.get_num_threads() == 4
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize(("free", "expected"), [(0.2, 1), (1.7, 1), (1.8, 2), (3.1, 3)])
def test_busy_cores_are_left_to_others_with_one_warning(machine, free, expected):
    with controlled_threads(True):
        machine.pass_time(1.0, free, own=0.1)
        with pytest.warns(UserWarning, match=f"{expected} of 4 threads are used"):
            update_threads()
        assert torch.get_num_threads() == expected
        machine.pass_time(1.0, free)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            update_threads()
        machine.pass_time(1.0, free=4)
        update_threads()
        assert torch.get_num_threads() == 4  # the others have ended
    assert torch.get_num_threads() == 4


def test_fits_in_threads_of_one_process_share_the_cores(machine, monkeypatch):
    monkeypatch.setattr(_threads, "_active", {"the fit of another thread"})
    with controlled_threads(True):
        machine.pass_time(1.0, free=4)
        update_threads()
        assert torch.get_num_threads() == 2


def test_a_given_number_of_threads_is_used(machine):
    seen = []

    class Record(Callback):
        def on_batch_end(self, net, **kwargs):
            seen.append(torch.get_num_threads())

    model = MultiTaskCTRCVRClassifier(max_epochs=1, callbacks=[Record()], device="cpu")
    with num_threads(3):
        model.fit(X, Y)
    assert set(seen) == {3}
    assert torch.get_num_threads() == 4


def test_the_number_is_restored_after_an_error(machine):
    with pytest.raises(RuntimeError), controlled_threads(True):
        raise RuntimeError
    assert torch.get_num_threads() == 4
    update_threads()  # no control is active
    assert torch.get_num_threads() == 4


def test_nothing_is_set_where_the_usage_is_unknown_or_the_work_is_elsewhere(
    machine, monkeypatch
):
    with controlled_threads(False):
        assert torch.get_num_threads() == 4
    monkeypatch.setattr(_threads, "read_usage", lambda: None)
    with controlled_threads(True):
        update_threads()
        assert torch.get_num_threads() == 4


def test_the_usage_of_this_machine_increases():
    before = _threads.read_usage()
    if before is None:
        pytest.skip("this system does not tell the usage of its cores")
    sum(range(10**6))
    now = _threads.read_usage()
    assert now.wall > before.wall
    assert now.own > before.own
    assert now.idle >= before.idle


@pytest.mark.parametrize("n", [0, 1.5, "2", True])
def test_the_number_of_threads_must_be_a_positive_integer(n):
    with (
        pytest.raises((TypeError, ValueError), match="n must be an integer"),
        num_threads(n),
    ):
        pass
