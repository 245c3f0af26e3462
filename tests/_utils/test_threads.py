"""The number of threads of fits and predictions."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier, num_threads
from sk_pwiser._utils import _threads
from sk_pwiser._utils._threads import (
    PRODUCTS_PER_THREAD,
    in_background,
    limited_threads,
)
from sk_pwiser.datasets import make_ctr_cvr

DATA = make_ctr_cvr(400, ctr=0.3, random_state=0)


@pytest.fixture(autouse=True)
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("n_products", "expected"),
    [
        (None, 4),
        (0, 1),
        (PRODUCTS_PER_THREAD, 1),
        (2 * PRODUCTS_PER_THREAD, 2),
        (100 * PRODUCTS_PER_THREAD, 4),
    ],
)
def test_threads_by_the_size_of_a_step(n_products, expected):
    with limited_threads(n_products):
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


def test_a_given_number_replaces_the_choice():
    with num_threads(3):
        for n_products in (None, 0, 100 * PRODUCTS_PER_THREAD):
            with limited_threads(n_products):
                assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 4
    with limited_threads():
        assert torch.get_num_threads() == 4


def test_the_number_is_restored_after_an_error():
    with pytest.raises(RuntimeError), limited_threads(0):
        raise RuntimeError
    assert torch.get_num_threads() == 4


def in_new_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


@pytest.mark.parametrize("limit", [lambda: limited_threads(0), lambda: num_threads(1)])
def test_threads_that_begin_during_a_fit_keep_the_usual_number(limit):
    with ThreadPoolExecutor(1) as server:
        with limit(), limited_threads(0):
            assert torch.get_num_threads() == 1
            assert server.submit(torch.get_num_threads).result() == 4
        assert server.submit(torch.get_num_threads).result() == 4
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 4


def test_fits_that_overlap_in_several_threads():
    """The first to begin is the first to end, and the second one began within it."""
    barrier = Barrier(2, timeout=60)
    found = {}

    def first():
        with limited_threads(0):
            barrier.wait()  # begins before the second
            barrier.wait()
            found["first"] = torch.get_num_threads()
        found["after first"] = torch.get_num_threads()
        barrier.wait()

    def second():
        barrier.wait()
        with limited_threads(3 * PRODUCTS_PER_THREAD):
            barrier.wait()
            barrier.wait()  # ends after the first
            found["second"] = torch.get_num_threads()
        found["after second"] = torch.get_num_threads()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    assert found == {"first": 1, "after first": 4, "second": 3, "after second": 4}
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 4


def test_a_thread_with_a_number_of_its_own_keeps_it():
    def own():
        torch.set_num_threads(2)
        with limited_threads(0):
            assert torch.get_num_threads() == 1
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(own).result() == 2
    assert torch.get_num_threads() == 4
    with limited_threads(0):
        assert in_new_thread(torch.get_num_threads) == 2  # the last number set


def test_a_thread_that_reads_ahead_has_the_number_of_the_fit():
    def items():
        yield torch.get_num_threads()

    with limited_threads(0):
        assert list(in_background(items())) == [1]
    assert list(in_background(items())) == [4]
    assert in_new_thread(torch.get_num_threads) == 4


@pytest.mark.slow  # processes that import torch
@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_fits_in_workers_of_joblib(backend):
    def usual():
        # A fit in another thread sets the number of new threads for a moment.
        with _threads._SETTING:
            return torch.get_num_threads()

    def numbers(seed):
        before = usual()
        model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=seed, device="cpu")
        model.fit(DATA.data, DATA.target)
        with ThreadPoolExecutor(1) as pool:
            of_new = pool.submit(usual).result()
        return before == of_new == torch.get_num_threads()

    assert all(Parallel(2, backend=backend)(delayed(numbers)(k) for k in range(4)))
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 4


class CountThreads(Callback):
    def on_batch_end(self, net, **kwargs):
        self.seen_.add(torch.get_num_threads())

    def on_train_begin(self, net, **kwargs):
        self.seen_ = set()


@pytest.mark.parametrize(("units", "expected"), [(8, {1}), (2_500, {2, 3, 4})])
def test_a_fit_counts_the_weights_of_its_layers(units, expected):
    counter = CountThreads()
    model = MultiTaskCTRCVRClassifier(
        network_params={"bottom_units": (units,), "tower_units": ()},
        max_epochs=1,
        batch_size=400,
        callbacks=[counter],
        device="cpu",
    )
    model.fit(DATA.data, DATA.target)
    assert counter.seen_ <= expected
    assert len(counter.seen_) == 1
    assert torch.get_num_threads() == 4


def test_equal_fits_are_equal_whatever_the_machine_allows():
    """A default fit of this size has one thread: more do not change a bit."""
    predictions = []
    for allowed in (1, 2, 4):
        torch.set_num_threads(allowed)
        model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0, device="cpu")
        model.fit(DATA.data, DATA.target)
        torch.set_num_threads(1)
        predictions.append(model.predict_proba(DATA.data))
    np.testing.assert_array_equal(predictions[0], predictions[1])
    np.testing.assert_array_equal(predictions[0], predictions[2])


@pytest.mark.parametrize("n", [0, -1, 1.5, "two", True])
def test_the_number_of_threads_must_be_a_positive_integer(n):
    with pytest.raises((TypeError, ValueError), match="n must be"), num_threads(n):
        raise AssertionError("not reached")
