"""Properties of every loss of the registry, and of PWiseR over every base loss."""

import numpy as np
import pytest
import torch

from sk_pwiser.losses import (
    BCE,
    JRC,
    LOSSES,
    CombinedPair,
    Focal,
    MultiTaskLoss,
    PWiseR,
)

NAMES = ["click", "conversion"]
BASES = [name for name in sorted(LOSSES) if name not in ("bce", "pwiser")]


@pytest.fixture(params=[*sorted(LOSSES), *(f"pwiser over {base}" for base in BASES)])
def loss(request):
    name, _, base = request.param.partition(" over ")
    if base:
        return PWiseR(NAMES, base=base, tasks="all", pairs="funnel")
    return LOSSES[name](NAMES)


def random_batch(n, rate=0.5):
    """Logits, labels that respect the funnel, weights per row and task, and groups."""
    click = (torch.rand(n) < rate).double()
    y = torch.stack([click, click * (torch.rand(n) < rate)], 1)
    logits = torch.randn(n, 2, dtype=torch.float64)
    return logits, y, torch.rand(n, 2).double(), torch.randint(0, 5, (n,))


def value_and_gradient(loss, logits, *rest):
    logits = logits.clone().requires_grad_()
    values = loss(logits, *rest)
    values.sum().backward()
    return values.detach(), logits.grad


@pytest.mark.parametrize("weight", [None, torch.rand(3), torch.rand(3, 2)])
def test_gradients_are_finite_at_extreme_logits(loss, weight):
    logits = torch.tensor([[1e3, -1e3], [-1e3, 1e3], [0.0, 0.0]])
    y = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    losses, gradient = value_and_gradient(loss, logits, y, weight)
    assert losses.shape == (2,)
    assert losses.isfinite().all()
    assert gradient.isfinite().all()


# The losses of the rows are 1000 where the label is wrong, and 0 where it is right.
@pytest.mark.parametrize(
    ("loss", "labels", "expected"),
    [
        (Focal(["a"]), (1, 1, 1), (1e3 + np.log(2) / 4) / 3),
        (
            Focal(["a"], gamma=0.5, alpha=0.25),
            (0, 0, 0),
            0.25 * (1e3 + np.log(2) * 0.5**0.5),
        ),
        (Focal(["a"], gamma=0.25), (0, 1, 1), (2e3 + np.log(2) * 0.5**0.25) / 3),
        # In JRC, the probabilities of a label add up to 3/2 over the rows.
        (JRC(["a"], bce_share=0), (0, 0, 0), (1e3 + np.log(2 * 1.5**3)) / 3),
        (JRC(["a"], bce_share=0), (0, 1, 0), (2e3 + np.log(2 * 1.5**3)) / 3),
        # Of the two pairs, one is in the wrong order by 1000.
        (CombinedPair(["a"], bce_share=0.5), (1, 1, 0), 250 + (1e3 + np.log(2)) / 6),
    ],
)
def test_values_and_gradients_at_extreme_logits(loss, labels, expected):
    logits = torch.tensor([[1e3], [-1e3], [0.0]])
    y = torch.tensor(labels, dtype=torch.float32).unsqueeze(1)
    losses, gradient = value_and_gradient(loss, logits, y)
    assert losses.dtype == torch.float32
    assert losses.item() == pytest.approx(expected, rel=1e-6)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("base", BASES)
def test_as_the_base_loss_of_pwiser(base):
    logits, y, weight, groups = random_batch(20)
    params = {"gamma": 1.0} if base == "focal" else {"bce_share": 0.3}
    alone = LOSSES[base](NAMES, **params)
    both = PWiseR(NAMES, base=base, base_params=params)
    assert both.asks_for_groups == alone.asks_for_groups == (base == "jrc")
    term = PWiseR(NAMES)(logits, y, weight) - BCE(NAMES)(logits, y, weight)
    expected = alone(logits, y, weight, groups) + term
    torch.testing.assert_close(both(logits, y, weight, groups), expected)


def test_gradcheck(loss):
    logits, y, weight, groups = random_batch(12)
    logits.requires_grad_()
    for w in (None, weight):
        assert torch.autograd.gradcheck(lambda z, w=w: loss(z, y, w, groups), logits)


def test_each_task_has_its_own_weights(loss):
    assert loss.takes_task_weights
    logits, y, weight, groups = random_batch(50)
    expected = [loss(logits, y, weight[:, k], groups)[k] for k in range(2)]
    torch.testing.assert_close(loss(logits, y, weight, groups), torch.stack(expected))


@pytest.mark.parametrize("n", [40, 1500])
def test_a_weight_of_0_excludes_the_row_from_the_task(loss, n):
    logits, y, weight, groups = random_batch(n)
    weight *= torch.rand(n, 2) < 0.6
    extreme = torch.where(weight > 0, logits, 1e3)
    losses, gradient = value_and_gradient(loss, extreme, y, weight, groups)
    assert not gradient[weight == 0].any()
    for k in range(2):
        kept = weight[:, k] > 0
        # The weights of the other tasks decide which depths are known.
        rest = y[kept], weight[kept], groups[kept]
        expected, slopes = value_and_gradient(loss, logits[kept], *rest)
        # The sum over fewer rows is still divided by the size of the batch.
        share = kept.sum() / n
        torch.testing.assert_close(losses[k], expected[k] * share)
        torch.testing.assert_close(gradient[kept, k], slopes[:, k] * share)


@pytest.mark.parametrize("shape", [6, (6, 2)])
def test_without_any_weight_losses_and_gradients_are_0(loss, shape):
    logits, y, _, groups = random_batch(6)
    weight = torch.zeros(shape, dtype=torch.float64)
    losses, gradient = value_and_gradient(loss, logits, y, weight, groups)
    assert losses.tolist() == [0.0, 0.0]
    assert not gradient.any()


@pytest.mark.parametrize("with_groups", [False, True])
@pytest.mark.parametrize("weight_shape", [None, (600,), (600, 2)])
def test_the_host_waits_for_no_value_of_the_device(loss, with_groups, weight_shape):
    # A tensor on the device "meta" has no values: an operation that reads one raises.
    if any(isinstance(module, CombinedPair) for module in loss.modules()):
        pytest.skip("the grid of the logistic surrogate depends on the scores")
    on_meta = {"device": "meta"}
    logits = torch.zeros(600, 2, **on_meta, requires_grad=True)
    y = torch.zeros(600, 2, **on_meta)
    weight = None if weight_shape is None else torch.ones(weight_shape, **on_meta)
    groups = torch.zeros(600, dtype=torch.int64, **on_meta) if with_groups else None
    loss.to("meta")
    losses = loss(logits, y, weight, groups)
    losses.sum().backward()
    loss.observe(y, weight)
    assert losses.shape == (2,)
    assert logits.grad.shape == (600, 2)


def test_rows_may_be_weighted_in_place_of_selected(loss, monkeypatch):
    batch = random_batch(600)
    selected = value_and_gradient(loss, *batch)
    monkeypatch.setattr("sk_pwiser.losses._pairwise.SELECTING", ())
    tolerance = {"rtol": 1e-8, "atol": 1e-12}
    torch.testing.assert_close(value_and_gradient(loss, *batch), selected, **tolerance)


def test_row_losses_are_linear_in_the_targets(loss):
    logits, *_ = random_batch(20)
    targets = torch.rand(20, 2, dtype=torch.float64)
    at_0, at_1 = (
        loss.row_losses(logits, torch.full_like(targets, t)) for t in (0.0, 1.0)
    )
    rows = loss.row_losses(logits, targets)
    assert rows.shape == (20, 2)
    torch.testing.assert_close(rows, targets * at_1 + (1 - targets) * at_0)


@pytest.mark.parametrize("name", ["combined_pair", "jrc", "pwiser"])
def test_row_losses_of_losses_over_pairs_are_cross_entropy(name):
    logits, *_ = random_batch(20)
    targets = torch.rand(20, 2, dtype=torch.float64)
    p = logits.sigmoid()
    expected = -(targets * p.log() + (1 - targets) * (1 - p).log())
    torch.testing.assert_close(
        LOSSES[name](NAMES).row_losses(logits, targets), expected
    )


def test_row_losses_are_finite_at_extreme_logits(loss):
    logits = torch.tensor([[1e3, -1e3], [-1e3, 1e3]], requires_grad=True)
    rows = loss.row_losses(logits, torch.tensor([[0.0, 0.3], [1.0, 1.0]]))
    rows.sum().backward()
    assert rows.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(
    ("name", "params"),
    [
        *((name, {}) for name in sorted(LOSSES) if name != "pwiser"),
        *(("pwiser", {"base": base, "pwiser_weight": 0}) for base in ("focal", "jrc")),
    ],
)
def test_averages_rows_tells_whether_a_loss_is_the_mean_of_its_row_losses(name, params):
    loss = LOSSES[name](NAMES, **params)
    logits, y, weight, _ = random_batch(20)
    means = (weight * loss.row_losses(logits, y)).mean(dim=0)
    assert torch.allclose(loss(logits, y, weight), means) == loss.averages_rows


def test_defaults_of_the_base_class():
    loss = MultiTaskLoss(NAMES)
    logits, y, weight, _ = random_batch(5)
    assert not loss.takes_task_weights
    assert not loss.asks_for_groups
    assert not loss.averages_rows
    loss.observe(y, weight)
    assert loss.pop_epoch_record() == {}
    with pytest.raises(NotImplementedError, match=r"must define forward\."):
        loss(logits, y)
    with pytest.raises(NotImplementedError, match="must define row_losses"):
        loss.row_losses(logits, y)


OVER_PAIRS = ["combined_pair", "jrc"]


@pytest.mark.parametrize("name", [*OVER_PAIRS, "focal"])
def test_half_precision_is_computed_in_float32(name):
    logits, y, _, groups = random_batch(20)
    half, loss = logits.bfloat16(), LOSSES[name](NAMES)
    found = loss(half, y.bfloat16(), None, groups)
    torch.testing.assert_close(found, loss(half.float(), y.float(), None, groups))


@pytest.mark.parametrize("name", OVER_PAIRS)
def test_with_a_share_of_1_it_is_cross_entropy(name):
    logits, y, weight, groups = random_batch(20)
    losses = LOSSES[name](NAMES, bce_share=1)(logits, y, weight, groups)
    assert losses.equal(BCE(NAMES)(logits, y, weight))


VALUE, TYPE = ValueError, TypeError


@pytest.mark.parametrize(
    ("name", "params", "error", "message"),
    [
        *(
            (name, {"bce_share": value}, error, f"bce_share must be .*got {value!r}")
            for name in OVER_PAIRS
            for value, error in ((-0.1, VALUE), (1.1, VALUE), ("0.5", TYPE))
        ),
        ("focal", {"gamma": -0.1}, VALUE, r"gamma must be .*>= 0; got -0\.1"),
        ("focal", {"alpha": 0.0}, VALUE, r"alpha must be .* > 0 and < 1; got 0\.0"),
        *(
            ("pwiser", params, error, message)
            for params, error, message in (
                ({"surrogate": "exp"}, VALUE, "surrogate .*'hinge'.* got 'exp'"),
                ({"score": "rank"}, VALUE, "score must be .* got 'rank'"),
                ({"tasks": ["a"]}, VALUE, f"tasks has 'a', which .*{NAMES[0]}"),
                ({"tasks": [2]}, VALUE, "tasks has 2, which is not a task"),
                ({"tasks": True}, VALUE, "tasks has True, which is not a task"),
                ({"tasks": [None]}, VALUE, "tasks has None, which is not a task"),
                ({"tasks": 0.5}, TYPE, "tasks must be 'all', or names .*; got 0.5"),
                ({"pairs": "all"}, VALUE, r"pairs .*'funnel'\]; got 'all'"),
                ({"pwiser_weight": -1.0}, VALUE, "weight must be .* >= 0; got -1.0"),
                ({"base": "pwiser"}, VALUE, "base must .*'jrc'.*; got 'pwiser'"),
                ({"base": PWiseR}, VALUE, "base must be a loss other than PWiseR"),
                ({"base": "bcd"}, VALUE, r"base must be one of .*'bce'.*; got 'bcd'"),
                ({"base": int}, TYPE, "base must .*MultiTaskLoss; got <class 'int'>"),
                ({"base_params": {"alpha": 1}}, VALUE, "base_params .*'alpha'"),
                ({"base_params": {"task_names": 1}}, VALUE, "base_params .*'task_name"),
                (
                    {"base": "jrc", "base_params": {"beta": 1}},
                    *(VALUE, r"base_params .*'beta'.*\'bce_share"),
                ),
                (
                    {"base": "jrc", "base_params": {"bce_share": 2}},
                    *(VALUE, "bce_share must be .*; got 2"),
                ),
            )
        ),
    ],
)
def test_bad_parameters_are_named(name, params, error, message):
    with pytest.raises(error, match=message):
        LOSSES[name](NAMES, **params)


def test_numpy_values_are_taken_like_python_numbers():
    params = {"pwiser_weight": 0.5, "margins": [1.0, 2.0], "tasks": 1, "base": "focal"}
    plain = PWiseR(NAMES, **params, base_params={"gamma": 2, "alpha": 0.25})
    params |= {"pwiser_weight": np.float64(0.5), "margins": np.array([1.0, 2.0])}
    params |= {"tasks": np.int32(1)}
    of_base = {"gamma": np.int64(2), "alpha": np.float32(0.25)}
    logits, y, *_ = random_batch(9)
    assert PWiseR(NAMES, **params, base_params=of_base)(logits, y).equal(
        plain(logits, y)
    )
