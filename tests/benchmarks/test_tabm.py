"""TabM of the benchmarks has the outputs of pytabkit."""

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("pytabkit")


@pytest.mark.parametrize(
    ("sizes", "n_numbers"), [([20, 5], 8), ([7, 300, 2], 0), ([300, 120], 3), ([], 4)]
)
def test_outputs_are_those_of_one_hot_columns(module, sizes, n_numbers):
    tabm = module("_tabm")
    outputs = []
    for model in (tabm.Model, tabm.FastModel):
        torch.manual_seed(0)
        network = model(
            n_num_features=n_numbers,
            cat_cardinalities=sizes,
            n_classes=2,
            backbone={"type": "MLP", "n_blocks": 2, "d_block": 16, "dropout": 0.1},
            bins=None,
            arch_type="tabm",
            k=4,
            share_training_batches=False,
        ).eval()
        numbers = torch.randn(40, n_numbers) if n_numbers else None
        # One code beyond the known ones.
        codes = [torch.randint(0, size + 1, (40,)) for size in sizes]
        outputs.append(network(numbers, torch.stack(codes, 1) if sizes else None))
    assert_close(*outputs)


def test_a_dropout_keeps_its_share(module):
    dropout = module("_tabm").Dropout(0.1)
    x = torch.ones(300, 1_001, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert abs(float((y == 0).float().mean()) - 0.1) < 0.005
    assert_close(x.grad, y.detach())
    assert_close(dropout.eval()(x), x)
