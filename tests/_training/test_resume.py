"""What is kept between calls, what is drawn, and what counts once a batch."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from refusals import X, Y, small

from sk_pwiser._training._fit import _base_rates
from sk_pwiser.losses import MultiTaskLoss, PWiseR
from sk_pwiser.weighting import TaskWeighting


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 0, 0)] * 90 + [(1, 0, 0)] * 10,  # nothing went on
        [(0, 0, 0)] * 90 + [(1, 1, 1)] * 10,  # all of it did
        [(0, 0, 0)] * 20,
        [(1, 1, 1)] * 20,
    ],
)
def test_starts_are_off_the_rate_of_the_task_before(rows):
    y = np.array(rows, dtype=np.float32)
    before = [len(y), *y.sum(axis=0)[:-1]]
    expected = np.cumprod((y.sum(axis=0) + 0.5) / (np.array(before) + 1.0))
    assert_allclose(_base_rates(y, None), expected)
    assert_allclose(_base_rates(y, np.ones(len(y), np.float32)), expected)


def test_starts_with_labels_that_break_the_funnel():
    y = np.array([[0, 1]] * 30 + [[1, 0]] * 10 + [[0, 0]] * 60, dtype=np.float32)
    assert_allclose(_base_rates(y, None), [10.5 / 101, 30.5 / 101])


def test_a_chain_learns_what_its_first_rows_had_none_of():
    model = small(network="esmm", network_params=None, lr=0.03)
    model.partial_fit(X[:50], Y[:50].assign(conversion=0))
    for _ in range(20):
        model.partial_fit(X, Y)
    assert_allclose(model.predict_proba(X).mean(axis=0), Y.mean(), rtol=0.35)


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("network", ["shared_bottom", "fdn"])
def test_a_batch_without_pairs_counts_once(network, task_space):
    clicks = Y.assign(conversion=0)
    model = small(network=network, network_params=None, task_space=task_space)
    with pytest.warns(UserWarning, match="'conversion' is 0 in every row"):
        model.fit(X, clicks)
    assert model.history_[:, "train_batches_without_pairs"] == [3, 3]


def test_calls_that_do_not_count_leave_the_memory_alone():
    loss = PWiseR(["click", "conversion"], memory=4).train()
    converted = torch.ones(1, 2)
    for score, counted in [(1.0, None), (2.0, ()), (3.0, [0]), (4.0, [1])]:
        loss.counted = counted
        loss(torch.full((1, 2), score), converted)
    assert loss._remembered[1].values.tolist() == [4.0, 1.0]


@pytest.mark.parametrize("go_on", ["partial_fit", "fit"])
def test_fixed_weights_are_a_parameter_and_no_state(go_on):
    model = small(weighting="fixed", weighting_params={"weights": [1, 2]})
    model.set_params(warm_start=True).fit(X, Y)
    model.set_params(weighting_params={"weights": [1, 5]})
    getattr(model, go_on)(X, Y)
    assert model.history_[:, "train_weight_conversion"][1:3] in ([2, 5], [2, 5, 5])


class Epochs(TaskWeighting):
    """Counts the epochs that end, and draws where it starts."""

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.n_ended = 0
        self.start = torch.rand(())

    def forward(self, losses):
        return losses.sum() * (1 + self.n_ended + self.start)

    def end_epoch(self):
        self.n_ended += 1
        return super().end_epoch()


def test_printing_changes_nothing(capsys):
    fits = [small(weighting=Epochs, verbose=verbose).fit(X, Y) for verbose in (0, 1)]
    weights = [model.history_[:, "train_weight_click"] for model in fits]
    assert weights[0] == weights[1]
    assert capsys.readouterr().out


def test_what_a_weighting_draws_comes_from_random_state():
    state = torch.random.get_rng_state()
    one, other = (small(weighting=Epochs).fit(X, Y).predict_proba(X) for _ in range(2))
    assert_array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


class Shifted(MultiTaskLoss):
    """A loss that learns a parameter of its own."""

    def __init__(self, task_names):
        super().__init__(task_names)
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, logits, y, sample_weight=None, groups=None):
        return ((logits + self.shift).sigmoid() - y).square().mean(dim=0)


@pytest.mark.parametrize("weighting", ["equal", "pcgrad"])
def test_parameters_of_a_loss_are_learnt(weighting):
    model = small(loss=Shifted, weighting=weighting).fit(X, Y)
    assert model.net_.criterion_.loss.shift != 0


def test_a_pickle_holds_the_network_once():
    model = small(network_params={"bottom_units": (256,)}).fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    net = again.net_
    assert net.module is net.module_
    assert net.criterion is net.criterion_
    n_bytes = sum(4 * p.numel() for p in net.module_.parameters())
    # The weights and Adam's two moments.
    assert len(pickle.dumps(model)) < 3.5 * n_bytes + 200_000
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))
