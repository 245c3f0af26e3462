"""The offset of the level: whatever reads a head reads it with its offset."""

import copy

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from rewrites import batch, funnel, make, row_losses
from scipy.special import expit, logit
from skorch.callbacks import Callback

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.networks import (
    CTCL,
    DCMT,
    DDPO,
    ESCM2,
    FDN,
    NETWORKS,
    Labels,
    NetworkOutput,
    SharedBottom,
)

OFFSET = torch.tensor([0.7, -1.1, 1.6])
# The tasks of the towers that start at base rates, by the names of the towers. A twin
# moves against its task.
LATER = {1: 1.0, 2: 1.0}
CASES = {
    "escm2": (ESCM2, {}, {}),
    "escm2 dr": (ESCM2, {"variant": "dr"}, {"imputation": LATER}),
    "dcmt": (DCMT, {"prior_weight": 0.3}, {"twins": {1: -1.0, 2: -1.0}}),
    "ddpo": (DDPO, {}, {"teachers": LATER}),
    "ctcl": (CTCL, {"consistency_weight": 1.0}, {"transfer_nets": {1: 1.0, 2: 1.0}}),
    "ctcl label": (
        CTCL,
        {"consistency_weight": 1.0, "consistency": "label"},
        {"transfer_nets": {1: 1.0, 2: 1.0}},
    ),
    "fdn": (FDN, {"n_pairs": 1}, {"aux_heads": {0: 1.0, 1: 1.0, 2: 1.0}}),
}
# The task that each transfer net of a funnel of three tasks predicts.
PREDICTED = (1, 2, 0, 1)


def move(towers, tasks, signs):
    """Add the offset of tasks to the biases of their towers."""
    for tower, task, sign in zip(towers, tasks, signs, strict=True):
        with torch.no_grad():
            tower["output"].linear.bias += sign * OFFSET[task]


def losses_of(network, inputs, y):
    output = network(*inputs)
    labels = Labels(y, None, row_losses)
    extra_losses = {
        name: term(labels) if callable(term) else term
        for name, term in output.extra_losses.items()
    }
    return output, extra_losses


@pytest.mark.parametrize("case", CASES)
def test_an_offset_acts_like_output_biases_in_all_losses(case):
    kind, params, further = CASES[case]
    shifted = make(kind, 3, **params)
    biased = copy.deepcopy(shifted)
    shifted.shift_level(OFFSET)
    move(biased.towers, range(3), [1.0] * 3)
    for name, signs in further.items():
        tasks = PREDICTED if name == "transfer_nets" else signs
        move(getattr(biased, name), tasks, [signs.get(task, 1.0) for task in tasks])
    inputs, y = batch(60), funnel(60, 3)
    output, losses = losses_of(shifted, inputs, y)
    expected_output, expected = losses_of(biased, inputs, y)
    torch.testing.assert_close(output.logits, expected_output.logits)
    for aux, expected_aux in zip(
        output.aux_logits, expected_output.aux_logits, strict=True
    ):
        torch.testing.assert_close(aux, expected_aux)
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name])


def test_transfer_nets_of_conditional_heads_move_over_impressions():
    network = make(CTCL, 3, task_space="conditional", consistency_weight=1.0)
    biased = copy.deepcopy(network)
    network.shift_level(OFFSET)
    move(biased.towers, range(3), [1.0] * 3)
    start = network.conditional_base_logits.double().numpy()
    rates = [
        np.cumprod(expit(heads)) for heads in (start, start + OFFSET.double().numpy())
    ]
    shifts = logit(rates[1]) - logit(rates[0])
    for tower, task in zip(biased.transfer_nets, PREDICTED, strict=True):
        with torch.no_grad():
            tower["output"].linear.bias += float(shifts[task])
    inputs, y = batch(60), funnel(60, 3)
    _, losses = losses_of(network, inputs, y)
    _, expected = losses_of(biased, inputs, y)
    torch.testing.assert_close(losses["consistency"], expected["consistency"])


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize("name", NETWORKS)
def test_labels_hold_the_log_odds_that_losses_compare_with_them(name, task_space, rate):
    class Reading(NETWORKS[name]):
        def forward(self, codes, numeric):
            output = super().forward(codes, numeric)
            return output._replace(extra_losses={"read": self.read})

        def read(self, labels):
            self.labels = labels
            return labels.logits.sum() * 0

    network = make(Reading, 3, task_space=task_space)
    spec = network.spec
    object.__setattr__(spec, "negative_sampling_rate", rate)
    network.shift_level(OFFSET)
    output, _ = losses_of(network, batch(), funnel(9, 3))
    compared = output.logits if rate == 1.0 else output.sampled_logits
    assert torch.equal(network.labels.logits, compared)
    assert torch.equal(network.labels.level_offset, OFFSET)
    heads = network.labels.conditional_logits
    if output.conditional_logits is not None:
        assert torch.equal(heads, output.conditional_logits)
    if heads is not None:
        chain = np.cumprod(expit(heads.detach().double().numpy()), axis=1)
        assert_allclose(compared.sigmoid().detach(), chain, rtol=1e-4, atol=1e-30)


class Halved(SharedBottom):
    """A user's network with a loss of its logits at half their scale."""

    def forward(self, codes, numeric):
        output = super().forward(codes, numeric)
        return NetworkOutput(output.logits, extra_losses={"half": self.half})

    @staticmethod
    def half(labels):
        return labels.row_losses(labels.logits / 2, labels.y).mean(dim=0)


def test_a_users_loss_reads_the_shifted_logits():
    network = make(Halved)
    network.shift_level(OFFSET[:2])
    inputs, y = batch(), funnel(9, 2)
    output, losses = losses_of(network, inputs, y)
    half = output.logits.detach().double().numpy() / 2
    expected = (np.logaddexp(0, half) - y.numpy() * half).mean(axis=0)
    assert_allclose(losses["half"].detach(), expected, rtol=1e-5)


def test_heads_that_were_dropped_are_named():
    class WithoutHeads(ESCM2):
        def forward(self, codes, numeric):
            return super().forward(codes, numeric)._replace(conditional_logits=None)

    message = "extra losses of WithoutHeads need conditional_logits"
    with pytest.raises(ValueError, match=message):
        losses_of(make(WithoutHeads), batch(), funnel(9, 2))


def first_without_events(column, n_first, n_samples, seed=10, n_categories=5):
    """Return a log whose first rows have no event of a task."""
    log = make_ctr_cvr(
        n_samples, n_categories=n_categories, ctr=0.05, cvr=0.1, random_state=seed
    )
    without = np.flatnonzero(log.target.iloc[:, column] == 0)[:n_first]
    rows = np.concatenate([without, np.setdiff1d(np.arange(n_samples), without)])
    return log.data.iloc[rows], log.target.iloc[rows]


@pytest.mark.parametrize("name", ["escm2", "dcmt", "ddpo"])
def test_the_smallest_propensity_follows_the_rates_of_all_rows(name, tmp_path):
    X, Y = first_without_events(0, 300, 2_300)
    model = MultiTaskCTRCVRClassifier(
        network=name, network_params={"min_propensity": 1.0}, random_state=0
    )
    model.partial_fit(X[:300], Y[:300])
    for begin in (300, 1_300):
        model.partial_fit(X[begin : begin + 1_000], Y[begin : begin + 1_000])
    rate = (Y["click"].sum() + 0.5) / (len(Y) + 1)
    smallest = model.net_.module_.smallest_propensities
    assert_allclose(smallest[:, 0], [rate, 1 - rate], rtol=1e-5)
    model.save(tmp_path / "model")
    loaded = MultiTaskCTRCVRClassifier.load(tmp_path / "model")
    model.partial_fit(X[300:800], Y[300:800])
    loaded.partial_fit(X[300:800], Y[300:800])
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


class Stop(Callback):
    """Ends training by an error, after its last step."""

    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("stop")


def test_a_failed_update_restores_the_smallest_propensity():
    X, Y = first_without_events(0, 300, 1_300)
    model = MultiTaskCTRCVRClassifier(network="escm2", random_state=0)
    model.partial_fit(X[:300], Y[:300]).partial_fit(X[300:800], Y[300:800])
    smallest = model.net_.module_.smallest_propensities.clone()
    with pytest.raises(RuntimeError, match="stop"):
        model.set_params(callbacks=[Stop()]).partial_fit(X[800:], Y[800:])
    assert torch.equal(model.net_.module_.smallest_propensities, smallest)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Rows with new category values")
@pytest.mark.parametrize("name", ["esmm", "escm2", "dcmt", "ddpo"])
def test_conversions_of_clicks_keep_their_rate_in_updates(name):
    ratios = []
    for seed in (10, 11, 12, 13):
        X, Y = first_without_events(1, 500, 45_000, seed, 100)
        model = MultiTaskCTRCVRClassifier(network=name, random_state=0, loss="bce")
        model.partial_fit(X[:500], Y[:500])
        for begin in range(500, 28_500, 2_000):
            rows = slice(begin, begin + 2_000)
            model.partial_fit(X[rows], Y[rows])
        clicked = Y[28_500:]["click"] == 1
        predicted = model.predict_cvr(X[28_500:][clicked.to_numpy()])
        ratios.append(predicted.mean() / Y[28_500:]["conversion"][clicked].mean())
    # It was 1.9 when corrections read heads without their offset.
    assert 0.8 < np.mean(ratios) < 1.25, ratios
