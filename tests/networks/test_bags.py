"""Sums over bags, compared with dense matrix products, and networks that read them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array

from sk_pwiser.networks import NETWORKS, Bags, BagSpec, NetworkSpec
from sk_pwiser.networks._input import InputLayer

DIM = 3


def spec_of(*bags, **options):
    options = {"n_numeric": 2, "numeric_bins": [0, 4], **options}
    n_numeric = options.pop("n_numeric")
    return NetworkSpec([3], n_numeric, DIM, [0.2, 0.1], bags=bags, **options)


def random_bags(rng, n_rows, *bags):
    """Return bags, and one dense matrix of weights per bag."""
    sizes = rng.integers(0, 4, size=(n_rows, len(bags)))
    offsets = np.concatenate([[0], sizes.ravel().cumsum()])
    starts = np.cumsum([0, *(bag.n_vectors for bag in bags)])
    indices, weights = [], rng.normal(size=offsets[-1]).astype(np.float32)
    for row in sizes:
        for b, (bag, size) in enumerate(zip(bags, row, strict=True)):
            indices += (starts[b] + rng.integers(bag.n_vectors, size=size)).tolist()
    dense = csr_array(
        (weights, indices, offsets[:: len(bags)]), shape=(n_rows, starts[-1])
    ).toarray()
    tensors = map(torch.from_numpy, (offsets, np.array(indices, np.int64), weights))
    return Bags(*tensors), np.split(dense, starts[1:-1], axis=1)


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 6), st.integers(1, 2))
def test_sums_equal_a_dense_linear_layer(seed, n_bags, n_rows, n_tables):
    rng = np.random.default_rng(seed)
    specs = [BagSpec(int(n)) for n in rng.integers(1, 5, size=n_bags)]
    bags, dense = random_bags(rng, n_rows, *specs)
    layer = InputLayer(spec_of(*specs), n_tables=n_tables)
    numeric = torch.rand(n_rows, 2)
    codes = torch.ones(n_rows, 1, dtype=torch.int64)
    result = layer(codes, layer.with_sums(numeric, bags)).detach()
    without = InputLayer(spec_of(), n_tables=n_tables)
    without.embeddings.load_state_dict(layer.embeddings.state_dict())
    expected = without(codes, numeric).detach()
    for t in range(n_tables):
        table = layer.bags.embeddings[t].weight.detach().numpy()
        ends = np.cumsum([spec.n_vectors for spec in specs])[:-1]
        parts = zip(dense, np.split(table, ends), strict=True)
        sums = torch.from_numpy(np.hstack([x @ vectors for x, vectors in parts]))
        plain, found = (r if n_tables == 1 else r[t] for r in (expected, result))
        torch.testing.assert_close(
            found, torch.cat([plain[:, :DIM], sums, plain[:, DIM:]], dim=1)
        )


def test_tables_without_bags_draw_the_same_weights():
    torch.manual_seed(0)
    plain = InputLayer(spec_of())
    torch.manual_seed(0)
    layer = InputLayer(spec_of(BagSpec(9)))
    assert torch.equal(layer.embeddings[0].weight, plain.embeddings[0].weight)
    assert plain.bags is None


@pytest.mark.parametrize("interaction", [None, "cross", "fm"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_reads_bags(name, interaction):
    bags, _ = random_bags(np.random.default_rng(0), 8, BagSpec(5), BagSpec(7))
    spec = spec_of(BagSpec(5), BagSpec(7), interaction=interaction)
    network = NETWORKS[name](spec)
    codes = torch.ones(8, 1, dtype=torch.int64)
    logits = network(codes, torch.zeros(8, 2), bags).logits
    assert logits.shape == (8, 2)
    logits.sum().backward()
    used = torch.bincount(bags.indices, minlength=12) > 0
    gradients = [t.weight.grad for t in network.input_layer.bags.embeddings]
    assert any(torch.equal(g.abs().sum(1) > 0, used) for g in gradients)


def test_dropout_replaces_entries_of_bags_with_a_code_of_unseen_values():
    layer = InputLayer(spec_of(BagSpec(4), BagSpec(6, True), category_dropout=0.3))
    bags = layer.bags
    indices = torch.arange(10).repeat(1_000)
    dropped = bags._drop(indices)
    changed = dropped != indices
    assert not changed[indices < 4].any()
    assert (dropped[changed] == 4 + 1).all()
    rate = changed[(indices >= 4) & (indices != 5)].float().mean()
    assert abs(rate - 0.3) < 0.03
    assert torch.equal(bags.eval()._drop(indices), indices)
