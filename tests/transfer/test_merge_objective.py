"""The objective of a merge and its gradient."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from pools import weights_of, with_noise
from refusals import X, Y, small
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


def merged_probabilities(base, members, coefficients):
    """Predict with merged weights through the estimator's own methods."""
    weights = [weights_of(each) for each in (base, *members)]
    start = weights[0]
    state = {
        name: torch.from_numpy(
            start[name]
            + sum(
                c * (w[name] - start[name])
                for c, w in zip(of_tensor, weights[1:], strict=True)
            ).astype(np.float32)
        )
        for name, of_tensor in zip(start, coefficients, strict=True)
    }
    copy = with_noise(base, 0.0, 0)
    copy.net_.module_.load_state_dict(state)
    return copy.predict_proba(X).astype(np.float64)


def test_the_objectives_are_those_of_the_predictions():
    rng = np.random.default_rng(0)
    for name in ("log_loss", "entropy"):
        objective, base, members = make_objective(name)
        coefficients = rng.random((len(objective.names), 2))
        value, _ = objective(coefficients)
        p = merged_probabilities(base, members, coefficients)
        if name == "log_loss":
            y = Y.to_numpy()
            expected = np.mean([log_loss(y[:, k], p[:, k]) for k in range(2)])
        else:
            expected = -np.mean(p * np.log(p) + (1 - p) * np.log(1 - p))
        assert_allclose(value, expected, rtol=1e-5)


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
    logits = torch.linspace(-40, 40, 401, dtype=torch.float64, requires_grad=True)
    row_entropies(logits).sum().backward()
    z = logits.detach().numpy()
    assert_allclose(logits.grad, -z * expit(z) * expit(-z), atol=1e-13)


def test_the_entropy_is_finite_at_extreme_logits():
    logits = torch.tensor([-1000.0, 0.0, 1000.0], requires_grad=True)
    values = row_entropies(logits)
    values.sum().backward()
    assert_allclose(values.detach(), [0, np.log(2), 0], atol=1e-6)
    assert torch.isfinite(logits.grad).all()


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
