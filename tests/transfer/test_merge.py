"""Merged estimators: weights, predictions, and how much their parts interfere."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from pools import (
    assert_same_weights,
    linear_estimator,
    linear_market,
    mean_log_loss,
    weights_of,
    with_noise,
    with_weights,
)
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import log_loss
from small_model import X, Y, small
from torch import nn

from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput
from sk_pwiser.transfer import (
    fine_tune,
    merge_estimators,
    merge_interference,
    named_parts,
)
from sk_pwiser.transfer._merge import MergeObjective, read_state, row_entropies

GRANULARITIES = ("task", "layer")


@pytest.fixture(scope="module")
def base():
    return small(max_epochs=3).fit(X, Y)


@pytest.fixture(scope="module")
def members(base):
    """Three estimators; the first has tiny weights where the base has not."""
    first, *others = (with_noise(base, 0.05, seed) for seed in range(3))
    tiny = with_weights(first, lambda n, w: w * 1e-20 if "embedding" in n else w)
    return [tiny, *others]


@pytest.mark.parametrize("index", range(3))
def test_a_single_coefficient_of_1_gives_the_estimator_to_the_bit(base, members, index):
    merged = merge_estimators(base, members, X, objective=None, prior=np.eye(3)[index])
    assert_same_weights(merged, members[index])
    assert_array_equal(merged.predict_proba(X), members[index].predict_proba(X))


@pytest.mark.parametrize("shift", [None, 0.5])
def test_a_shift_by_time_is_merged_like_a_weight(base, shift):
    start, member = with_noise(base, 0.0, 0), with_noise(base, 0.05, 0)
    if shift is not None:
        start.net_.module_.shift_level(torch.full((2,), shift))
    member.net_.module_.shift_level(torch.ones(2))
    merged = merge_estimators(start, [member], X, objective=None, prior=1.0)
    assert_array_equal(merged.predict_proba(X), member.predict_proba(X))
    _, coefficients = merge_estimators(
        start, [member], X, Y, granularity="layer", return_coefficients=True
    )
    assert coefficients["level_offset"] != 0.3  # it has a gradient
    shifted = with_noise(start, 0.0, 0)
    shifted.net_.module_.shift_level(torch.ones(2))
    logits = start.predict_logits(X)
    apart = 2 * (expit(logits + 2) - expit(logits + 1)).mean()
    assert_allclose(merge_interference(start, [shifted] * 2, X), apart, rtol=1e-5)


def test_coefficients_of_1_give_the_sum_of_task_arithmetic_to_the_bit(base, members):
    merged = weights_of(merge_estimators(base, members, X, objective=None, prior=1))
    for name, start in weights_of(base).items():
        total = start = start.astype(np.float64)
        for member in members:
            total = total + (weights_of(member)[name].astype(np.float64) - start)
        assert_array_equal(merged[name], total.astype(np.float32))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_bounds_of_0_give_the_base_to_the_bit(base, members, granularity):
    merged = merge_estimators(
        base, members, X, Y, granularity=granularity, prior=0, bounds=(0, 0)
    )
    assert_same_weights(merged, base)
    assert merged is not base


def test_a_merged_estimator_is_an_ordinary_fitted_one(base, members):
    merged = merge_estimators(base, members, X, Y)
    assert merged.get_params() == base.get_params()
    assert merged.task_names_ == base.task_names_
    assert merged.n_iter_ == base.n_iter_
    assert not merged.net_.optimizer_.state
    merged.partial_fit(X, Y)


def test_layers_have_coefficients_of_their_own(base, members):
    losses = {}
    for granularity in GRANULARITIES:
        merged, found = merge_estimators(
            base, members, X, Y, granularity=granularity, return_coefficients=True
        )
        losses[granularity] = mean_log_loss(merged, X, Y)
    assert found.keys() == weights_of(base).keys()
    assert all(values.shape == (3,) for values in found.values())
    assert losses["layer"] < losses["task"]


@pytest.mark.parametrize("freeze", ["embedding", ("towers", "embedding")])
def test_frozen_parts_are_those_of_the_base_to_the_bit(base, members, freeze):
    merged, found = merge_estimators(
        base,
        members,
        X,
        Y,
        granularity="layer",
        freeze=freeze,
        realign=True,
        return_coefficients=True,
    )
    wanted = [freeze] if isinstance(freeze, str) else freeze
    frozen = [
        name
        for part, names in named_parts(base).items()
        for name in names
        if part.partition(".")[0] in wanted
    ]
    first, second = weights_of(base), weights_of(merged)
    for name in first:
        assert np.array_equal(first[name], second[name]) == (name in frozen), name
        assert (name in found) != (name in frozen)
    assert all(p.requires_grad for p in merged.net_.module_.parameters())


def test_realignment_lowers_the_held_out_loss_of_a_disturbed_merge():
    rows, held_out = slice(200), slice(200, None)
    base = small(max_epochs=10).fit(X[rows], Y[rows])
    members = [
        fine_tune(base, X[rows], Y[rows], extend=False, max_epochs=1, random_state=0),
        with_noise(base, 0.5, 0),
    ]
    losses = []
    for realign in (False, True, {"max_epochs": 5}):
        merged = merge_estimators(
            base,
            members,
            X[rows],
            Y[rows],
            objective=None,
            prior=0.5,
            realign=realign,
            random_state=0,
        )
        assert merged.get_params() == base.get_params()
        losses.append(mean_log_loss(merged, X[held_out], Y[held_out]))
    assert losses[0] > losses[1] > losses[2]


def test_no_rows_for_realignment_give_the_plain_merge(base, members):
    plain = merge_estimators(base, members, X, Y)
    for realign in (False, {"X": X[:0], "Y": Y[:0]}, {"max_epochs": 0}):
        assert_same_weights(
            plain, merge_estimators(base, members, X, Y, realign=realign)
        )


def test_realignment_depends_on_the_seed_only(base, members):
    first, second, other = (
        merge_estimators(base, members, X, Y, realign=True, random_state=seed)
        for seed in (0, 0, 1)
    )
    assert_same_weights(first, second)
    with pytest.raises(AssertionError):
        assert_same_weights(first, other)


class Normalised(MultiTaskNetwork):
    """A network with batch normalisation."""

    def __init__(self, spec):
        super().__init__(spec)
        self.hidden = nn.Linear(self.width, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, self.n_tasks)

    def forward(self, codes, numeric):
        hidden = self.norm(self.hidden(self.input_layer(codes, numeric)))
        return NetworkOutput(self.head(torch.relu(hidden)))


def test_statistics_of_batch_normalisation_are_those_of_the_rows():
    base = small(network=Normalised, network_params=None).fit(X, Y)
    members = [with_noise(base, 0.2, seed) for seed in range(2)]
    merged = merge_estimators(base, members, X, objective=None, prior=0.5)
    network = merged.net_.module_.cpu()
    rows = merged._result.schema.transform(X)
    with torch.no_grad():
        inputs = network.input_layer(rows.codes.long(), rows.numeric)
        hidden = network.hidden(inputs).numpy()
    assert_allclose(
        network.norm.running_mean, hidden.mean(axis=0), rtol=1e-4, atol=1e-5
    )
    assert_allclose(network.norm.running_var, hidden.var(axis=0, ddof=1), rtol=1e-3)
    assert network.norm.momentum == base.net_.module_.norm.momentum
    assert not network.training


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"estimators": []}, ValueError, "it is empty"),
        ({"base": small()}, ValueError, "base, a MultiTask.*is not fitted"),
        ({"X": X[:0], "Y": Y[:0]}, ValueError, "X must have at least one row"),
        ({"Y": None}, ValueError, "Y must not be None with objective='log_loss'"),
        (
            {"Y": None, "objective": "entropy", "realign": True},
            ValueError,
            "Y must not be None with realign",
        ),
        ({"Y": Y[:-1]}, ValueError, "X has 300 rows, Y has 299"),
        ({"Y": Y[::-1]}, ValueError, "X and Y have the same index labels in different"),
        ({"objective": "auc"}, ValueError, "objective must be one of.*'auc'"),
        ({"granularity": "row"}, ValueError, "granularity must be one of.*'row'"),
        ({"prior": [0.3, 0.3]}, ValueError, r"or 3 of them; got \[0.3"),
        ({"prior": 2.0}, ValueError, r"within the bounds \(0, 1\); got 2.0"),
        ({"prior": np.nan}, ValueError, "prior must be a finite number"),
        ({"bounds": (1, 0)}, ValueError, r"within the bounds \(1, 0\); got 0.3"),
        ({"bounds": 1.0}, ValueError, "pair of numbers; got 1.0"),
        ({"bounds": ("a", 1)}, TypeError, "bounds must be a number; got 'a'"),
        ({"freeze": "tower"}, ValueError, r"'tower'; the parts .*'towers.click'"),
        (
            {"freeze": ("embedding", "input_layer", "bottom", "towers")},
            ValueError,
            "freeze must leave a part",
        ),
        ({"realign": 3}, ValueError, "realign must be a bool or a dict .*; got 3"),
        ({"realign": {"lr": 1}}, ValueError, "realign must .*; got {'lr'"),
        ({"realign": {"X": X}}, ValueError, "both X and Y"),
        ({"realign": {"max_epochs": -1}}, ValueError, "max_epochs in realign"),
    ],
)
def test_invalid_arguments_are_refused(base, members, change, error, message):
    arguments = {"base": base, "estimators": members, "X": X, "Y": Y, **change}
    with pytest.raises(error, match=message):
        merge_estimators(**arguments)


def test_the_first_difference_to_the_base_is_named(base, members):
    wider = small(network_params={"bottom_units": (9,), "tower_units": (4,)}).fit(X, Y)
    message = r"estimators\[3\] differs from base in the parameter bottom_units.*\(9,\)"
    with pytest.raises(ValueError, match=message):
        merge_estimators(base, [*members, wider], X, Y)
    other = small().fit(X[:200], Y[:200])
    with pytest.raises(ValueError, match=r"estimators\[0\] differs from base in the"):
        merge_estimators(base, [other], X, Y)


@pytest.mark.parametrize("coefficients", [1.0, 0.3, [0.2, 0.9, -0.4]])
def test_it_is_the_mean_difference_of_the_predictions_of_merges(base, coefficients):
    members = [with_noise(base, 0.1, seed) for seed in range(3)]
    values = np.broadcast_to(coefficients, 3)

    def predict(kept):
        merged = merge_estimators(
            base, members, X, objective=None, prior=values * kept, bounds=(-1, 1)
        )
        return merged.predict_proba(X).astype(float)

    together = predict(np.ones(3))
    alone = [np.abs(predict(unit) - together) for unit in np.eye(3)]
    found = merge_interference(base, members, X, coefficients=coefficients)
    assert_allclose(found, np.mean(alone, axis=(1, 2)).sum(), rtol=1e-4)
    # A market without rows contributes nothing.
    markets = np.arange(len(X)) % 2
    found = merge_interference(
        base, members, X, coefficients=coefficients, markets=markets
    )
    expected = [alone[m][markets == m].mean() for m in range(2)]
    assert_allclose(found, sum(expected), rtol=1e-4)


def test_linear_task_vectors_of_disjoint_features_do_not_interfere():
    rows, labels = linear_market(400, np.ones((2, 4)), [-1.0, -2.0], 0)
    base = linear_estimator(rows, labels)
    # Rows of a market have only its own two columns; 0 is the mean, encoded as 0.
    markets = np.arange(400) % 2
    rows = rows.copy()
    rows[markets == 0, 2:] = rows[markets == 1, :2] = 0
    shift = np.zeros((2, 4), dtype=np.float32)
    shift[:, :2] = 1

    def change(columns):
        return lambda name, w: w + columns if name == "head.weight" else w

    members = [with_weights(base, change(each)) for each in (shift, shift[:, ::-1])]
    assert merge_interference(base, members, rows, markets=markets) < 1e-7
    assert merge_interference(base, members, rows) > 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimators": []}, "it is empty"),
        ({"X": X[:0]}, "X must have at least one row"),
        ({"coefficients": [1, 1, 1]}, "or 2 of them"),
        ({"coefficients": np.inf}, "finite"),
        ({"markets": [0, 1]}, "for each of 300 rows"),
        ({"markets": np.full(len(X), 2)}, r"rows; got \[2, 2"),
        ({"markets": np.zeros(len(X))}, r"0 to 1, .*; got \[0.0, "),
        ({"markets": Y["click"][::-1]}, "X and markets have the same index labels in"),
    ],
)
def test_invalid_arguments_of_the_interference_are_refused(base, change, message):
    arguments = {"estimators": [base, base], "X": X, **change}
    with pytest.raises(ValueError, match=message):
        merge_interference(base, **arguments)


# The objective of a merge, its gradient, and coefficients where the best are known.


def make_objective(objective, base=None, scale=0.1):
    base = small(max_epochs=3).fit(X, Y) if base is None else base
    members = [with_noise(base, scale, seed) for seed in range(2)]
    first, states = read_state(base), [read_state(member) for member in members]
    rows = base._result.schema.transform(X).labelled(Y.to_numpy(dtype=np.float32))
    names = list(first)
    return (
        MergeObjective(base.net_, first, states, names, rows, objective),
        base,
        members,
    )


@pytest.mark.parametrize("name", ["log_loss", "entropy"])
@pytest.mark.parametrize(
    "network",
    [
        pytest.param("shared_bottom", marks=pytest.mark.slow),
        pytest.param("esmm", marks=pytest.mark.slow),
        "stem",
    ],
)
def test_the_gradient_is_that_of_autograd_through_the_merge(name, network):
    params = {} if network == "shared_bottom" else {"network_params": {}}
    base = small(network=network, device="cpu", **params).fit(X, Y)
    objective, *_ = make_objective(name, base)
    start = np.random.default_rng(1).uniform(0.2, 0.6, (len(objective.names), 2))
    value, gradient = objective(start)
    coefficients = torch.tensor(start, dtype=torch.float32, requires_grad=True)
    state = {
        tensor: objective.base[tensor]
        + sum(
            c * (member[tensor] - objective.base[tensor])
            for c, member in zip(of_tensor, objective.members, strict=True)
        )
        for tensor, of_tensor in zip(objective.names, coefficients, strict=True)
    }
    rows, network = objective.rows, base.net_.module_.eval()
    inputs = rows.codes.long(), rows.numeric
    logits = torch.func.functional_call(network, state, inputs).logits
    p = logits.sigmoid()
    losses = {
        "log_loss": -torch.where(rows.y == 1, p, 1 - p).log(),
        "entropy": -(p * p.log() + (1 - p) * (1 - p).log()),
    }
    losses[name].mean().backward()
    assert_allclose(value, losses[name].mean().item(), rtol=1e-5)
    assert_allclose(gradient, coefficients.grad, rtol=1e-3, atol=1e-6)


def test_sparse_gradients_of_large_tables_give_the_same_gradient():
    gradients = []
    for lazy in (True, False):
        base = small(optimizer_params={"lazy_embeddings": lazy}).fit(X, Y)
        # The two optimisers train alike, but not to the bit.
        base.net_.module_.load_state_dict(
            small(optimizer_params={"lazy_embeddings": False})
            .fit(X, Y)
            .net_.module_.state_dict()
        )
        objective, *_ = make_objective("log_loss", base)
        assert objective.net.module_.input_layer.embeddings[0].sparse is lazy
        gradients.append(objective(np.full((len(objective.names), 2), 0.3))[1])
    assert_allclose(*gradients, rtol=1e-5)
    assert (gradients[0][0] != 0).all()  # that of the table


def test_the_derivative_of_the_entropy_is_minus_z_p_one_minus_p():
    logits = torch.linspace(-1000, 1000, 9_999, dtype=torch.float64, requires_grad=True)
    values = row_entropies(logits)
    values.sum().backward()
    assert_allclose(values.detach()[[0, 4_999, -1]], [0, np.log(2), 0], atol=1e-12)
    z = logits.detach().numpy()
    assert_allclose(logits.grad, -z * expit(z) * expit(-z), atol=1e-13)


def test_missing_labels_have_no_part_in_a_merge():
    # Conversions are known for half of the rows. The other half decides nothing.
    known = Y.astype(float)
    known.iloc[::2, 1] = np.nan
    base = small(max_epochs=3, missing_labels="ignore").fit(X, known)
    members = [with_noise(base, 0.1, seed) for seed in range(2)]
    merged, found = merge_estimators(
        base, members, X, known, return_coefficients=True, realign=True
    )
    first, states = read_state(base), [read_state(member) for member in members]
    by_row = []
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        y = known[rows].to_numpy(dtype=np.float32)
        encoded = base._result.schema.transform(X[rows]).labelled(y)
        parts = base.net_, first, states, list(first), encoded, "log_loss"
        by_row.append(MergeObjective(*parts))

    def mean(values):
        return sum(each(np.tile(values, (len(first), 1)))[0] for each in by_row)

    assert np.isfinite(merged.predict_proba(X)).all()
    assert all(mean(found) <= mean(other) + 1e-6 for other in ([0, 0], [0.3, 0.3]))
    p = base.predict_proba(X[::2])[:, 0]
    alone = by_row[0](np.zeros((len(first), 2)))[0]
    assert_allclose(alone, log_loss(Y.iloc[::2, 0], p) / 2, rtol=1e-5)
    with pytest.raises(ValueError, match=r"NaN: .* in column 'conversion'"):
        merge_estimators(small(max_epochs=1).fit(X, Y), members, X, known)


def linear_pool(seed=0, n_members=3):
    """Return a linear base, members, and rows of both."""
    rng = np.random.default_rng(seed)
    weights = rng.normal(0, 0.7, (2, 4))
    rows, labels = linear_market(4_000, weights, [-2.0, -3.0], seed)
    base = linear_estimator(rows, labels)
    members = [
        with_weights(base, lambda _n, w: (w + rng.normal(0, 0.5, w.shape)).astype("f4"))
        for _ in range(n_members)
    ]
    return base, members, rows, labels


def linear_logits(estimator, rows):
    """Compute the logits of a linear estimator in float64."""
    weights = weights_of(estimator)
    return rows @ weights["head.weight"].T.astype(float) + weights["head.bias"]


def test_the_coefficients_of_a_linear_model_are_those_of_scipy():
    base, members, rows, labels = linear_pool()
    merged, found = merge_estimators(
        base, members, rows, labels, bounds=(-2, 2), return_coefficients=True
    )
    start = linear_logits(base, rows)
    vectors = np.array([linear_logits(member, rows) - start for member in members])

    def objective(coefficients):
        z = start + np.tensordot(coefficients, vectors, axes=1)
        return np.mean(np.logaddexp(0, z) - labels * z)

    expected = minimize(objective, np.zeros(3), method="Nelder-Mead", tol=1e-10)
    assert_allclose(found, expected.x, atol=2e-3)
    assert_allclose(mean_log_loss(merged, rows, labels), expected.fun, rtol=1e-5)
    assert np.abs(found).min() > 0.02  # none of them is trivial


def test_the_bounds_hold():
    base, members, rows, labels = linear_pool()
    free, found = (
        merge_estimators(
            *(base, members, rows, labels),
            **{"prior": 0.1, "bounds": bounds, "return_coefficients": True},
        )[1]
        for bounds in ((-2, 2), (0, 0.2))
    )
    assert 0 <= found.min() <= found.max() <= 0.2
    assert free.min() < 0 or free.max() > 0.2


def test_rows_of_a_sampled_log_are_compared_with_its_probabilities():
    """The merge that fits the sampled rows has the logits of a log with all of them."""
    rng = np.random.default_rng(0)
    rows, labels = linear_market(6_000, [[1.0, -1.0]], [-2.0], 0)
    kept = (labels[:, 0] == 1) | (rng.random(6_000) < 0.25)
    rows, labels = rows[kept], labels[kept, 0]
    mean, scale = rows.mean(axis=0), rows.std(axis=0)
    rows = (rows - mean) / scale
    base = linear_estimator(rows, labels, negative_sampling_rate=0.25)
    zero = with_weights(base, lambda _n, w: 0 * w)
    shift = {"head.weight": [[1.0, -1.0]], "head.bias": [-0.6]}
    member = with_weights(zero, lambda n, w: np.float32(shift.get(n, w)))
    merged, found = merge_estimators(
        zero, [member], rows, labels, bounds=(0, 3), return_coefficients=True
    )
    z = rows @ [1.0, -1.0] - 0.6
    grid = np.linspace(0, 3, 3_001)
    losses = [np.mean(np.logaddexp(0, c * z) - labels * c * z) for c in grid]
    assert_allclose(found[0], grid[int(np.argmin(losses))], atol=2e-3)
    odds = np.exp(found[0] * z) * 0.25
    assert_allclose(merged.predict_proba(rows)[:, 1], odds / (1 + odds), rtol=1e-4)
