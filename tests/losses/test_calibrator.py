import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose
from refusals import X, Y, small

from sk_pwiser.losses import funnel_calibrator
from sk_pwiser.networks import MMoE

UNITS = {
    "shared_bottom": {"bottom_units": (8,), "tower_units": (4,)},
    "mmoe": {"expert_units": (8,), "tower_units": (4,)},
    "esmm": {"tower_units": (8,)},
    "aitm": {"tower_units": (8,)},
}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(1, 6), st.integers(1, 4)),
        elements=st.integers(-40, 40).map(lambda i: i / 4),
    )
)
def test_zero_where_no_row_rises_and_there_alone(logits):
    tensor = torch.from_numpy(logits)
    penalty = funnel_calibrator(tensor)
    assert (penalty == 0) == (np.diff(logits, axis=1) <= 0).all()
    rises = np.maximum(np.diff(sigmoid(logits), axis=1), 0).sum(axis=1)
    assert_allclose(penalty, rises.mean(), rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(funnel_calibrator(tensor.repeat(3, 1)), penalty)


def test_gradient_has_opposite_signs_on_the_two_heads():
    logits = torch.tensor(
        [[0.3, 1.2], [2.0, -1.0], [-1.0, -0.5]], dtype=torch.float64, requires_grad=True
    )
    weights = torch.tensor([0.5, 1.0, 1.5], dtype=torch.float64)
    funnel_calibrator(logits, weights).backward()
    p = logits.detach().sigmoid().numpy()
    slope = weights.numpy()[:, np.newaxis] / 3 * p * (1 - p) * [-1, 1]
    slope[1] = 0  # the row that does not rise
    assert_allclose(logits.grad, slope, rtol=1e-12)


def test_middle_tasks_may_be_pushed_from_both_sides():
    logits = torch.tensor([[-1.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    funnel_calibrator(logits).backward()
    p = sigmoid(1.0)
    slope = p * (1 - p)
    assert_allclose(logits.grad, [[-slope, 0, slope]], atol=1e-15)


def test_weights_stand_for_repeated_rows():
    logits, counts = torch.randn(10, 3), torch.randint(0, 4, (10,))
    weighted = funnel_calibrator(logits, counts * 10 / counts.sum())
    repeated = funnel_calibrator(logits.repeat_interleave(counts, dim=0))
    torch.testing.assert_close(weighted, repeated)


def test_one_task_cannot_rise():
    assert funnel_calibrator(torch.randn(5, 1)) == 0


@pytest.mark.parametrize("logits", [[-1e3, 1e3], [1e3, -1e3], [1e3, 1e3], [-1e3, -1e3]])
def test_finite_at_extreme_logits(logits):
    logits = torch.tensor([logits], requires_grad=True)
    penalty = funnel_calibrator(logits)
    penalty.backward()
    assert penalty == max(0, np.sign(logits.detach().numpy())[0] @ [-1, 1] / 2)
    assert logits.grad.isfinite().all()


class Careful(MMoE):
    calibrator_weight = 0.25


@pytest.mark.parametrize(
    ("network", "weight", "expected"),
    [
        ("aitm", None, 0.6),
        ("aitm", 0, 0),
        ("aitm", 2.0, 2.0),
        ("mmoe", None, 0),
        ("mmoe", 0.3, 0.3),
        ("shared_bottom", None, 0),
        ("esmm", None, 0),
        (Careful, None, 0.25),
    ],
)
def test_weight_that_the_estimator_hands_to_the_criterion(network, weight, expected):
    model = small(
        network=network,
        network_params=UNITS["mmoe" if network is Careful else network],
        calibrator_weight=weight,
        max_epochs=1,
    ).fit(X, Y)
    assert model.net_.criterion_.calibrator_weight == expected


@pytest.mark.parametrize("network", ["mmoe", "aitm"])
def test_a_large_weight_leaves_fewer_rows_that_rise(network):
    # All clicks but a few convert, so that half the rows rise by chance.
    convert = np.random.default_rng(0).random(len(X)) < 0.97
    nearly_all = np.column_stack([Y.iloc[:, 0], Y.iloc[:, 0] * convert])
    shares = []
    for weight in (0.0, 20.0):
        model = small(
            network=network,
            network_params=UNITS[network],
            calibrator_weight=weight,
            max_epochs=15,
        ).fit(X, nearly_all)
        shares.append(np.mean(np.diff(model.predict_proba(X)) > 0))
    assert shares[1] < 0.5 * shares[0]
    assert shares[0] > 0.1


@pytest.mark.parametrize("weight", [-1, "large"])
def test_bad_weights_are_refused(weight):
    with pytest.raises(ValueError, match="'calibrator_weight' parameter"):
        small(calibrator_weight=weight).fit(X, Y)
