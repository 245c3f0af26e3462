import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from refusals import X, Y, small
from rewrites import (
    WIDTH,
    batch,
    dense_input,
    dependencies,
    elu,
    make,
    mlp,
    tower,
    weights_of,
)

from sk_pwiser.networks import FDN
from sk_pwiser.networks._experts import PENALTIES


def cosine(s, h):
    lengths = np.linalg.norm(s, axis=1) * np.linalg.norm(h, axis=1)
    return (s * h).sum(axis=1) / lengths


def squared_correlation(s, h):
    s, h = s - s.mean(axis=0), h - h.mean(axis=0)
    s, h = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (s, h))
    return np.linalg.norm(s.T @ h) ** 2 / len(s) ** 2


def mean_length_of_outer_products(s, h):
    return np.mean([np.linalg.norm(np.outer(a, b)) for a, b in zip(s, h, strict=True)])


WRITTEN_OUT = {
    "row": lambda s, h: np.mean(cosine(s, h) ** 2),
    "batch": squared_correlation,
    "norm_product": mean_length_of_outer_products,
}


@pytest.mark.parametrize("orthogonality", sorted(PENALTIES))
@pytest.mark.parametrize(("n_tasks", "n_pairs"), [(1, 2), (2, 1), (3, 2)])
@pytest.mark.parametrize("tower_units", [(), (6,)])
def test_equals_the_formula_written_out_in_numpy(
    n_tasks, n_pairs, tower_units, orthogonality
):
    network = make(
        FDN,
        n_tasks,
        n_pairs=n_pairs,
        expert_units=(8, 7),
        tower_units=tower_units,
        aux_weight=0.7,
        orthogonality=orthogonality,
        orthogonality_weight=0.4,
    )
    codes, numeric = batch()
    p = weights_of(network)
    x = dense_input(p, codes, numeric)
    n_each = n_tasks * n_pairs
    experts = [mlp(x, p, "experts", j, elu) for j in range(2 * n_each)]
    specific, shared = experts[:n_each], experts[n_each:]
    output = network(codes, numeric)
    logits, aux = output.logits, output.aux_logits
    for k in range(n_tasks):
        own = specific[k * n_pairs : (k + 1) * n_pairs]
        expected = tower(np.hstack([*own, *shared]), p, k)
        assert_allclose(logits[:, k].detach(), expected, rtol=1e-4, atol=1e-5)
        for j, s in enumerate(own):
            expected = tower(s, p, k * n_pairs + j, "aux_heads")
            assert_allclose(aux[j][:, k].detach(), expected, rtol=1e-4, atol=1e-5)
    assert len(aux) == n_pairs
    assert output.aux_weight == 0.7
    of_pair = WRITTEN_OUT[orthogonality]
    total = sum(of_pair(s, h) for s, h in zip(specific, shared, strict=True))
    assert_allclose(output.extra_losses["orthogonality"].item(), 0.4 * total, rtol=1e-4)


def test_row_penalty_is_the_squared_cosine():
    penalty, (a, b) = PENALTIES["row"], torch.eye(6)[:2]
    s = (torch.rand(10, 1) + 0.1) * a
    perpendicular, parallel, halfway = (
        (torch.rand(10, 1) + 0.1) * direction for direction in (b, -a, a + b)
    )
    pairs = torch.stack([s, s, s]), torch.stack([perpendicular, parallel, halfway])
    torch.testing.assert_close(penalty(*pairs), torch.tensor([0.0, 1.0, 0.5]))


def test_row_penalty_does_not_depend_on_lengths():
    penalty, s, h = PENALTIES["row"], torch.randn(3, 10, 6), torch.randn(3, 10, 6)
    scaled = penalty(s * torch.rand(3, 10, 1) * 100, h * -0.01)
    torch.testing.assert_close(scaled, penalty(s, h))
    assert (penalty(s, h) > 0.01).all()


def test_batch_penalty_does_not_depend_on_the_axes_or_on_shifts():
    s, h = torch.randn(2, 3, 40, 6, dtype=torch.float64)
    h = h + s
    value = PENALTIES["batch"](s, h)
    rotation = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))[0]
    shift = torch.randn(6, dtype=torch.float64)
    rotated = PENALTIES["batch"](s @ rotation, h @ rotation)
    torch.testing.assert_close(rotated, value)
    torch.testing.assert_close(PENALTIES["batch"](s + shift, h - shift), value)
    # A map of the axes that is not a rotation changes the value.
    assert not torch.allclose(PENALTIES["batch"](s * (1 + torch.arange(6)), h), value)


def test_batch_penalty_is_the_squared_correlation_of_signs_along_one_axis_each():
    # Centred and normalised rows on one axis are signs, on any axis.
    one, other = torch.randn(2, 50)
    s, h = torch.zeros(2, 50, 6)
    s[:, 0], h[:, 3] = one, other
    signs = [(v - v.mean()).sign() for v in (one, other)]
    expected = torch.stack([torch.mean(signs[0] * signs[1]) ** 2, torch.ones(())])
    penalty = PENALTIES["batch"](torch.stack([s, s]), torch.stack([h, s]))
    torch.testing.assert_close(penalty, expected)


def test_batch_penalty_is_zero_for_uncorrelated_directions():
    # The rows have all combinations of signs of the coordinates.
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)
    penalty = PENALTIES["batch"](signs[None, :, :2], signs[None, :, 2:])
    assert penalty.item() == pytest.approx(0, abs=1e-12)


def test_norm_product_does_not_depend_on_the_angle():
    penalty, s, h = PENALTIES["norm_product"], *torch.randn(2, 3, 10, 6)
    expected = (s.norm(dim=2) * h.norm(dim=2)).mean(dim=1)
    torch.testing.assert_close(penalty(s, h), expected)
    turned = h.roll(1, dims=2)
    torch.testing.assert_close(penalty(s, turned), expected)


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 5, 4)])
def test_penalties_have_gradients_at_zero_and_for_one_row(penalty, shape):
    for start in (torch.zeros(shape), torch.ones(shape), torch.randn(shape)):
        s, h = start.clone().requires_grad_(), start.clone().requires_grad_()
        penalty(s, h).sum().backward()
        assert s.grad.isfinite().all()
        assert h.grad.isfinite().all()


def test_an_auxiliary_loss_trains_only_its_expert_and_head():
    network = make(FDN, n_pairs=2, expert_units=(8,))
    for pair in range(2):
        found = dependencies(network, *batch(50), lambda o, j=pair: o.aux_logits[j])
        for task, masks in enumerate(found):
            assert masks.keys() == {
                "input_layer.embeddings.0.weight",
                f"experts.{task}.layers.0.weight",
                f"experts.{task}.layers.0.bias",
                f"aux_heads.{2 * task + pair}.output.linear.weight",
                f"aux_heads.{2 * task + pair}.output.linear.bias",
            }
            # Of the two experts of the task, the one of the pair.
            experts = masks[f"experts.{task}.layers.0.bias"].flatten(1).any(dim=1)
            assert experts.tolist() == [pair == 0, pair == 1]


def test_a_task_reads_its_own_specific_and_all_shared_experts():
    network = make(FDN, n_pairs=2, expert_units=(8,))
    network(*batch(50)).logits[:, 0].sum().backward()
    weights = [group.layers[0].weight.grad for group in network.experts]
    experts = torch.cat(weights).flatten(1).any(dim=1).nonzero().flatten()
    assert experts.tolist() == [0, 1, 4, 5, 6, 7]


def test_predictions_do_not_depend_on_auxiliary_heads():
    params = {"n_pairs": 2, "expert_units": (8,)}
    model = small(network="fdn", network_params=params).fit(X, Y)
    predictions = model.predict_proba(X)
    network = model.net_.module_
    for parameter in network.aux_heads.parameters():
        torch.nn.init.normal_(parameter)
    assert np.array_equal(model.predict_proba(X), predictions)
    torch.nn.init.normal_(network.towers[0].output.linear.weight)
    assert not np.allclose(model.predict_proba(X), predictions)


@pytest.mark.parametrize(("n_tasks", "n_pairs"), [(1, 1), (2, 2), (3, 4)])
def test_number_of_parameters(n_tasks, n_pairs):
    network = make(FDN, n_tasks, n_pairs=n_pairs, expert_units=(8, 7))
    pairs = n_tasks * n_pairs
    experts = 2 * pairs * ((WIDTH + 1) * 8 + (8 + 1) * 7)
    towers = n_tasks * ((n_pairs + pairs) * 7 + 1)
    heads = pairs * (7 + 1)
    n_expected = (4 + 6) * 5 + experts + towers + heads
    assert sum(parameter.numel() for parameter in network.parameters()) == n_expected
