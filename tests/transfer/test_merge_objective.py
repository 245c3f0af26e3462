"""The objective of a merge, its gradient, and coefficients where the best are known."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pools import (
    linear_estimator,
    linear_market,
    mean_log_loss,
    weights_of,
    with_noise,
    with_weights,
)
from refusals import X, Y, small
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import log_loss

from sk_pwiser.transfer import merge_estimators
from sk_pwiser.transfer._merge import MergeObjective, read_state, row_entropies


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
@pytest.mark.parametrize("network", ["shared_bottom", "esmm", "stem"])
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
