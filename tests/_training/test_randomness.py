"""Random numbers come from `random_state` alone, also in several threads."""

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
import torch
from checkpointed import NoisySGD, Orders, WithDropout
from numpy.testing import assert_array_equal
from skorch.callbacks import Callback
from small_model import X, Y, small

from sk_pwiser._training._lazy_tables import has_sparse_gradients
from sk_pwiser.weighting import WEIGHTINGS

# Dropout and category dropout.
BUILT_IN = {
    "network": "mmoe",
    "network_params": {"n_experts": 2, "expert_units": (8,), "dropout": 0.3},
    "encoding_params": {"category_dropout": 0.2},
}
OWN = {"network": WithDropout, "network_params": None}
NETWORKS = pytest.mark.parametrize("params", [BUILT_IN, OWN], ids=["built-in", "own"])


def global_states():
    """Return the states of all global generators, as comparable objects."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    states = [
        torch.random.get_rng_state().tolist(),
        (kind, keys.tolist(), *rest),
        random.getstate(),
    ]
    if torch.cuda.is_available():
        states += [state.tolist() for state in torch.cuda.get_rng_state_all()]
    return states


def assert_unchanged(call):
    before = global_states()
    result = call()
    assert global_states() == before
    return result


def test_a_look_at_the_device_draws_nothing():
    has_sparse_gradients.cache_clear()  # as in a new process
    assert assert_unchanged(lambda: has_sparse_gradients(torch.device("cpu")))


@NETWORKS
@pytest.mark.parametrize(("random_state", "early_stopping"), [(0, True), (None, False)])
def test_global_generators_are_left_unchanged(params, random_state, early_stopping):
    if random_state is None:
        # By scikit-learn's convention, None draws from the generator of numpy.
        random_state = np.random.RandomState(0)
    model = small(**params, random_state=random_state, early_stopping=early_stopping)
    assert_unchanged(lambda: model.fit(X, Y))
    assert_unchanged(lambda: model.set_params(warm_start=True).fit(X, Y))
    assert_unchanged(lambda: model.partial_fit(X, Y))
    assert_unchanged(lambda: model.partial_fit(X, Y))
    assert_unchanged(lambda: model.predict_proba(X))
    assert_unchanged(lambda: model.score(X, Y))


@NETWORKS
def test_global_generators_are_left_unchanged_by_errors(params):
    model = small(**params, lr=1e20)

    def fail():
        with pytest.raises(ValueError, match="diverged"):
            model.fit(X, Y)

    assert_unchanged(fail)


@pytest.mark.parametrize("weighting", sorted(WEIGHTINGS.keys() - {"fixed"}))
def test_global_generators_are_left_unchanged_by_weightings(weighting):
    if weighting == "torchjd":
        pytest.importorskip("torchjd")
    assert_unchanged(lambda: small(weighting=weighting).fit(X, Y))


@NETWORKS
def test_results_do_not_depend_on_the_global_generators(params):
    first = small(**params).fit(X, Y).partial_fit(X, Y).predict_proba(X)
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    again = small(**params).fit(X, Y).partial_fit(X, Y).predict_proba(X)
    assert_array_equal(again, first)


@NETWORKS
def test_dropout_draws_new_numbers_in_each_update(params):
    # With a learning rate near 0 the weights stay the same, so that the losses differ
    # only by what dropout removes.
    params = {**params, "weighting": "equal", "loss": "bce", "batch_size": len(X)}
    model = small(**params, lr=1e-12)
    for _ in range(3):
        model.partial_fit(X, Y)
    losses = model.history_[:, "train_loss"]
    assert len(set(np.round(losses, 5))) == 3


class EqualWeights(Callback):
    """Sets all weights to one value, so that only dropout depends on the seed."""

    def on_train_begin(self, net, **kwargs):
        for parameter in net.module_.parameters():
            torch.nn.init.constant_(parameter, 0.1)


@NETWORKS
def test_dropout_depends_on_the_seed(params):
    params = {**params, "weighting": "equal", "loss": "bce", "batch_size": len(X)}
    params |= {"max_epochs": 1, "callbacks": [EqualWeights()]}
    losses = [
        small(**params, random_state=seed).fit(X, Y).history_[0] for seed in (0, 0, 1)
    ]
    losses = [row["train_loss"] for row in losses]
    assert losses[0] == losses[1] != losses[2]


@NETWORKS
def test_fits_in_threads_equal_fits_one_after_the_other(params):
    n_threads = 4
    expected = small(**params).fit(X, Y).predict_proba(X)
    barrier = Barrier(n_threads)

    def fit(_):
        barrier.wait()
        return small(**params).fit(X, Y).partial_fit(X, Y)

    before = global_states()
    with ThreadPoolExecutor(n_threads) as threads:
        models = list(threads.map(fit, range(n_threads)))
    assert global_states() == before
    updated = small(**params).fit(X, Y).partial_fit(X, Y).predict_proba(X)
    assert (updated != expected).any()
    for model in models:
        assert_array_equal(model.predict_proba(X), updated)


def test_different_networks_in_threads():
    jobs = [BUILT_IN, OWN, {"loss": "bce"}, {**OWN, "random_state": 1}]
    expected = [small(**params).fit(X, Y).predict_proba(X) for params in jobs]
    barrier = Barrier(len(jobs))

    def fit(params):
        barrier.wait()
        return small(**params).fit(X, Y).predict_proba(X)

    with ThreadPoolExecutor(len(jobs)) as threads:
        found = list(threads.map(fit, jobs))
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)


def test_the_order_of_rows_does_not_depend_on_the_network():
    class Own(WithDropout):
        def __init__(self, spec):
            super().__init__(spec)
            self.dropout = torch.nn.Identity()

    params = {"network_params": None, "encoding_params": {"category_dropout": 0.0}}
    orders = []
    for network in ("single_task", Own):
        model = small(network=network, **params, callbacks=[Orders(orders)])
        model.fit(X, Y)
    assert len(orders) == 12
    assert orders[:6] == orders[6:]


def test_an_optimizer_that_draws_from_the_global_generator():
    def predictions():
        return small(optimizer=NoisySGD).fit(X, Y).predict_proba(X)

    first, before = predictions(), torch.get_rng_state()
    torch.manual_seed(1)
    assert_array_equal(predictions(), first)
    torch.set_rng_state(before)
    predictions()
    assert torch.equal(torch.get_rng_state(), before)
