"""TabM of the benchmarks has the outputs and the gradients of pytabkit."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.testing import assert_close

for package in ("pytabkit", "numba"):
    pytest.importorskip(package)


def input_grads(layer, tabm, sizes):
    """Return the gradients of weights and scales, those of long columns last."""
    if isinstance(layer, tabm.FirstLayer):
        parts = (layer.weight, layer.rows), (layer.r, layer.r_rows)
        grads = [[part.grad for part in pair if len(part)] for pair in parts]
        return [torch.cat(pair) for pair in grads]
    is_long = torch.tensor(
        [size > tabm.MOST_ONE_HOT for size in sizes for _ in range(size)]
    )
    n_numbers = layer.in_features - len(is_long)
    is_long = torch.cat([torch.zeros(n_numbers), is_long])
    order = is_long.argsort(stable=True)
    return [layer.weight.grad.T[order], layer.r.grad.T[order]]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("sizes", "n_numbers"), [([20, 5], 8), ([7, 300, 2], 0), ([300, 120], 3), ([], 4)]
)
def test_outputs_are_those_of_one_hot_columns(module, sizes, n_numbers, training):
    tabm = module("_tabm")
    outputs, grads = [], []
    for model in (tabm.Model, tabm.FastModel):
        torch.manual_seed(0)
        network = model(
            n_num_features=n_numbers,
            cat_cardinalities=sizes,
            n_classes=2,
            backbone={"type": "MLP", "n_blocks": 3, "d_block": 16, "dropout": 0.0},
            bins=None,
            arch_type="tabm",
            k=4,
            share_training_batches=False,
        ).train(training)
        numbers = torch.randn(40, n_numbers) if n_numbers else None
        # One code beyond the known ones.
        codes = [torch.randint(0, size + 1, (40,)) for size in sizes]
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(network(numbers, torch.stack(codes, 1) if sizes else None))
        outputs[-1].square().sum().backward()
        last = network.backbone.blocks[-1][0]
        grads.append([last.r.grad, last.s.grad, last.bias.grad, last.weight.grad])
        first = network.backbone.blocks[0][0]
        grads[-1] += [first.s.grad, first.bias.grad, *input_grads(first, tabm, sizes)]
    assert_close(outputs[1], outputs[0].float(), rtol=0.02, atol=2e-3)
    for ours, theirs in zip(*grads, strict=True):
        assert (ours - theirs).norm() < 0.04 * theirs.norm()


def test_a_dropout_keeps_its_share(module):
    tabm = module("_tabm")
    y = torch.ones(3, 300, 512, dtype=torch.bfloat16, requires_grad=True)
    scale, next_scale = torch.full((2, 3, 512), 2.0)
    bias = torch.zeros_like(scale)
    with tabm.fast_on_cpu(0):
        out = tabm.Activate.apply(y, scale, bias, next_scale, 0.1)
    out.sum().backward()
    is_dropped = out == 0
    assert abs(float(is_dropped.float().mean()) - 0.1) < 0.005
    # Rows and units are dropped independently of each other.
    for axis in (1, 2):
        assert abs(float(is_dropped.float().mean(axis).var()) * 1e4) < 7
    assert_close(y.grad, 4.0 * ~is_dropped, check_dtype=False)
    assert_close(out, 4.0 * ~is_dropped, check_dtype=False)


@pytest.mark.parametrize("as_logits", [False, True])
def test_the_epoch_is_chosen_by_log_loss(module, as_logits):
    from pytabkit.models.alg_interfaces import tabm_interface

    rng = np.random.default_rng(0)
    p = rng.uniform(0.001, 0.2, size=500)
    y = rng.random(500) < p
    scores = torch.tensor(np.column_stack([1 - p, p]))
    scores = scores.log() if as_logits else scores
    with module("_peers").log_loss_of_probabilities():
        found = tabm_interface.Metrics.apply(
            scores, torch.tensor(y)[:, None].long(), "cross_entropy"
        )
    assert_close(float(found), log_loss(y, p))
