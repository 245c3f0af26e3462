"""Continuing an earlier fit: what is kept, and what is refused."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from checkpointed import history
from numpy.testing import assert_allclose, assert_array_equal
from skorch.exceptions import DeviceWarning
from small_model import X, Y, refuses, small

from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._training._encoded_data import SINGLE_PASS, EncodedData
from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import SharedBottom
from sk_pwiser.weighting import WEIGHTINGS, TaskWeighting

BOTH = pytest.mark.parametrize("method", ["fit", "partial_fit"])


@BOTH
@pytest.mark.parametrize(
    ("now", "message"),
    [
        (
            {"network_params__task_space": "conditional"},
            "with task_space='conditional': the earlier fit used 'entire'",
        ),
        (
            {"network_params__interaction": "cross"},
            "with interaction='cross': the earlier fit used None",
        ),
        (
            {"network": "esmm", "network_params": None},
            "with network='esmm': the earlier fit used 'shared_bottom'",
        ),
        (
            {"numeric_encoding": "quantile"},
            "with numeric_encoding='quantile': the earlier fit used 'bins_and_scores'",
        ),
    ],
)
def test_another_model_is_refused_before_encoding(
    earlier, encodings, method, now, message
):
    earlier.set_params(warm_start=True, **now)
    with pytest.raises(ValueError, match=f"Training cannot continue {message}"):
        getattr(earlier, method)(X, Y)
    assert encodings == []


@BOTH
@pytest.mark.parametrize(
    ("now", "part"),
    [
        ({"weighting": "ema"}, "weighting='ema', before 'equal'"),
        ({"embedding_dim": 3}, "embedding_dim=3, before 16"),
        (
            {"network_params__bottom_units": (9,)},
            r"network_params=.*bottom_units': \(9,\), .*before .* \(8,\)",
        ),
    ],
)
def test_components_with_other_parameters_are_refused(earlier, method, now, part):
    earlier.set_params(warm_start=True, **now)
    message = (
        f"Training cannot continue .* different network, loss or weighting: {part}"
    )
    refuses(earlier, ValueError, message, method=method)


@BOTH
def test_defaults_may_be_spelt_out(method):
    model = small(warm_start=True).fit(X, Y)
    model.set_params(network=SharedBottom, network_params__task_space="entire")
    model.set_params(network_params__interaction=None, encoding_params=None)
    assert getattr(model, method)(X, Y).n_iter_ > 2


@BOTH
def test_other_tasks_are_refused(earlier, method):
    earlier.set_params(warm_start=True)
    message = r"uses the tasks \['click', 'conversion'\].* Y has \['click', 's"
    renamed = Y.rename(columns={"conversion": "sale"})
    refuses(earlier, ValueError, message, Y=renamed, method=method)


@pytest.mark.filterwarnings("ignore:Rows with new category values")
def test_a_network_of_a_funnel_learns_a_task_absent_from_the_first_rows():
    model = small(network="esmm", network_params=None, lr=0.01)
    model.partial_fit(X[:100], Y[:100].assign(conversion=0))
    for _ in range(20):
        model.partial_fit(X, Y)
    assert_allclose(model.predict_proba(X).mean(axis=0), Y.mean(), rtol=0.35)


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("network", ["shared_bottom", "fdn"])
def test_a_batch_without_pairs_is_counted_once(network, task_space):
    clicks = Y.assign(conversion=0)
    model = small(network=network, network_params={"task_space": task_space})
    with pytest.warns(UserWarning, match="'conversion' is 0 in every row"):
        model.fit(X, clicks)
    assert model.history_[:, "train_batches_without_pairs"] == [3, 3]


@pytest.mark.parametrize("again", ["partial_fit", "fit"])
def test_fixed_weights_are_a_parameter_and_no_state(again):
    model = small(weighting="fixed", weighting_params={"weights": [1, 2]})
    model.set_params(warm_start=True).fit(X, Y)
    model.set_params(weighting_params={"weights": [1, 5]})
    getattr(model, again)(X, Y)
    assert model.history_[:, "train_weight_conversion"][1:3] in ([2, 5], [2, 5, 5])


class Epochs(TaskWeighting):
    """Counts the epochs that end, from a random start."""

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.n_ended = 0
        self.start = torch.rand(())

    def forward(self, losses):
        return losses.sum() * (1 + self.n_ended + self.start)

    def end_epoch(self):
        self.n_ended += 1
        return super().end_epoch()


def test_printing_does_not_change_the_weights(capsys):
    fits = [small(weighting=Epochs, verbose=verbose).fit(X, Y) for verbose in (0, 1)]
    weights = [model.history_[:, "train_weight_click"] for model in fits]
    assert weights[0] == weights[1]
    assert capsys.readouterr().out


def test_random_numbers_of_a_weighting_depend_on_random_state():
    state = torch.random.get_rng_state()
    one, other = (small(weighting=Epochs).fit(X, Y).predict_proba(X) for _ in range(2))
    assert_array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), state)


class Shifted(MultiTaskLoss):
    """A loss with a parameter that is trained."""

    def __init__(self, task_names):
        super().__init__(task_names)
        self.shift = torch.nn.Parameter(torch.zeros(()))

    def forward(self, logits, y, sample_weight=None, groups=None):
        return ((logits + self.shift).sigmoid() - y).square().mean(dim=0)


@pytest.mark.parametrize("weighting", ["equal", "nash"])
def test_parameters_of_a_loss_are_trained(weighting):
    model = small(loss=Shifted, weighting=weighting).fit(X, Y)
    assert model.net_.criterion_.loss.shift != 0


def test_a_pickle_has_the_network_once():
    model = small(network_params={"bottom_units": (256,)}).fit(X, Y)
    again = pickle.loads(pickle.dumps(model))
    net = again.net_
    assert net.module is net.module_
    assert net.criterion is net.criterion_
    n_bytes = sum(4 * p.numel() for p in net.module_.parameters())
    # The weights and the two moments of Adam.
    assert len(pickle.dumps(model)) < 3.5 * n_bytes + 200_000
    assert_array_equal(again.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize("n_devices", [0, 1])
def test_a_pickle_of_a_device_that_is_not_present(monkeypatch, n_devices):
    model = small(device="cpu").fit(X, Y)
    expected = model.predict_proba(X)
    net = model.net_
    state = net.__getstate__() | {"device": "cuda:1"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_devices > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_devices)
    with pytest.warns(DeviceWarning):
        net.__setstate__(state)
    assert str(net.device) == "cpu"
    assert_array_equal(model.predict_proba(X), expected)
    # A build of torch with CUDA would look for the devices.
    monkeypatch.undo()
    model.set_params(warm_start=True).fit(X, Y)


def test_training_and_validation_rows_are_moved_once():
    rows = Impressions(torch.zeros(3, 1), torch.zeros(3, 2), torch.zeros(3, 2))
    parts = (
        replace(rows, rows=torch.tensor([0, 2])),
        replace(rows, rows=torch.tensor([1])),
    )
    data = EncodedData(
        train=parts[0],
        valid=parts[1],
        schema=None,
        epochs=SINGLE_PASS,
        weight_scale=1.0,
        base_rates=[0.1, 0.1],
        holds_out=True,
    )
    moved = data.to(torch.device("meta"))
    assert moved.train.codes.device.type == "meta"
    assert moved.valid.codes is moved.train.codes
    assert (len(moved.train), len(moved.valid)) == (2, 1)


def test_a_fitted_net_keeps_no_gradients_and_no_second_copy_of_its_weights():
    net = small(early_stopping=True, n_iter_no_change=1, max_epochs=5).fit(X, Y).net_
    assert all(p.grad is None for p in net.module_.parameters())
    stopping = dict(net.callbacks_)["early_stopping"]
    assert stopping.best is None


@BOTH
@pytest.mark.parametrize(
    ("optimizer", "argument"),
    [
        ("adam", {"amsgrad": True}),
        ("rmsprop", {"centered": True}),
        ("rmsprop", {"momentum": 0.5}),
        ("sgd", {"momentum": 0.5}),
    ],
)
def test_arguments_that_ask_for_another_state_start_it_anew(
    method, optimizer, argument
):
    model = small(optimizer=optimizer, warm_start=True).fit(X, Y)
    model.set_params(optimizer_params=argument)
    assert getattr(model, method)(X, Y).n_iter_ > 2
    model.set_params(optimizer_params=None)
    assert getattr(model, method)(X, Y).n_iter_ > 3


# What two fits of a few epochs have in common with one of all of them.


# The average of the weights replaces the weights of the last step, and updates have a
# decay of their own.
EXACT = {
    "early_stopping": False,
    "optimizer_params": {"average_decay": 0},
    "weight_decay": 1e-4,
}


def in_parts(n_epochs, **params):
    model = small(warm_start=True, **params)
    for n in n_epochs:
        model.set_params(max_epochs=n).fit(X, Y)
    return model


RESUMED = [
    {},
    {"network_params": {"dropout": 0.5}, "stratified_batches": True},
    {"target_encoding": True, "encoding_params": {"category_dropout": 0.3}},
    {"optimizer_params": {"average_decay": None, "lazy_embeddings": True}},
    {"network": "mmoe", "network_params": None, "loss": "jrc"},
    {"weighting": "nash", "loss": "combined_pair"},
]


WEIGHTING_PARAMS = {"fixed": {"weights": [1, 2]}}


@pytest.mark.parametrize(
    "params",
    [
        *RESUMED,
        *(
            pytest.param(
                {"weighting": name, "weighting_params": WEIGHTING_PARAMS.get(name)},
                marks=pytest.mark.slow,
            )
            for name in WEIGHTINGS
            if name != "torchjd"
        ),
    ],
    ids=str,
)
def test_two_fits_equal_one_longer_fit(params):
    params = {**EXACT, **params}
    parts, whole = in_parts([2, 2], **params), in_parts([4], **params)
    assert_array_equal(history(parts), history(whole))
    assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))


def test_updates_equal_epochs_of_a_fit():
    updated = small(**EXACT)
    for _ in range(3):
        updated.partial_fit(X, Y)
    fitted = small(**EXACT, max_epochs=3).fit(X, Y)
    assert_array_equal(updated.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize(
    "params",
    [
        {"early_stopping": False},  # with the average of the weights
        {**EXACT, "early_stopping": True, "lr": 0.3, "n_iter_no_change": 9},
    ],
)
def test_what_ends_a_fit_makes_two_fits_differ(params):
    """The second fit starts from the average, or from the best epoch's weights."""
    parts, whole = in_parts([3, 3], **params), in_parts([6], **params)
    assert not np.array_equal(parts.predict_proba(X), whole.predict_proba(X))
    # The orders of the rows, and so the first epochs, are the same all the same.
    assert_array_equal(history(parts)[:3], history(whole)[:3])
