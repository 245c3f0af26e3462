"""Sums over bags, compared with matrix products and loops, and networks with bags."""

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
    result = layer(codes, layer.with_sums(codes, numeric, bags)).detach()
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


# A category column of 4 and one of 5 codes; a plain bag, a pooled and an attended one.
SIZES = [4, 5]
SHARED = [BagSpec(3), BagSpec(6, True, 0), BagSpec(7, True, 1, True, True)]


def attended_layer(n_tables=1, **options):
    spec = NetworkSpec(SIZES, 1, DIM, [0.2, 0.1], bags=SHARED, **options)
    layer = InputLayer(spec, n_tables=n_tables)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer.eval()


def attended_bags(seed, n_rows):
    rng = np.random.default_rng(seed)
    bags, _ = random_bags(rng, n_rows, *SHARED)
    ages = rng.normal(size=len(bags.indices)).astype(np.float32)
    ages[rng.random(len(ages)) < 0.3] = np.nan
    codes = torch.from_numpy(rng.integers(SIZES, size=(n_rows, 2)))
    return codes, bags._replace(ages=torch.from_numpy(ages))


def sums_by_loops(layer, t, codes, bags):
    """Return the sums over the bags of each row, in float64."""
    main = layer.embeddings[t].weight.detach().double().numpy()
    own = layer.bags.embeddings[t].weight.detach().double().numpy()
    unit = layer.bags.attention[t][0]
    (w1, b1), (w2, b2) = (
        (m.weight.detach().double().numpy(), m.bias.detach().double().numpy())
        for m in (unit.hidden, unit.output)
    )
    # Places of the vectors of each bag: of the layer itself, and of the columns.
    starts, own_starts, rows = [0, 3, 9], [0, 3, 5], [None, 0, 4]
    result = np.zeros((len(codes), 3, DIM))
    for bag in range(len(codes) * 3):
        row, b = divmod(bag, 3)
        for e in range(bags.offsets[bag], bags.offsets[bag + 1]):
            local, weight = int(bags.indices[e]) - starts[b], float(bags.weights[e])
            if b == 0 or local < 2:
                result[row, b] += weight * own[own_starts[b] + local]
                continue
            k = main[rows[b] + local - 2]
            if b == 2:
                q, age = main[4 + int(codes[row, 1])], float(bags.ages[e])
                known = [0, 0] if np.isnan(age) else [age, 1]
                x = np.concatenate([q, k, q - k, q * k, known])
                weight *= (w2 @ np.maximum(w1 @ x + b1, 0) + b2).item()
            result[row, b] += weight * k
    return result.reshape(len(codes), -1)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 2))
def test_attention_equals_loops(seed, n_rows, n_tables):
    torch.manual_seed(seed)
    layer = attended_layer(n_tables)
    codes, bags = attended_bags(seed, n_rows)
    sums = layer.with_sums(codes, torch.zeros(n_rows, 1), bags).detach()[:, :-1]
    expected = [sums_by_loops(layer, t, codes, bags) for t in range(n_tables)]
    np.testing.assert_allclose(sums, np.hstack(expected), rtol=1e-4, atol=1e-5)


def test_gradients_of_both_columns_reach_one_table():
    layer = attended_layer()
    codes = torch.tensor([[0, 2]])
    indices = torch.tensor([1, 3 + 2 + 3, 9 + 2 + 4, 9])
    bags = Bags(torch.tensor([0, 1, 2, 4]), indices, ages=torch.full((4,), np.nan))
    numeric = layer.with_sums(codes, torch.zeros(1, 1), bags)
    layer(codes, numeric).sum().backward()
    used = layer.tables[0].grad.abs().sum(1) > 0
    # The codes 0 and 2 of the row, and the entries with the codes 3 and 4.
    assert used.nonzero().flatten().tolist() == [0, 3, 4 + 2, 4 + 4]
    own = layer.bags.embeddings[0].weight.grad.abs().sum(1) > 0
    assert own.nonzero().flatten().tolist() == [1, 5]


def test_dropout_replaces_entries_by_the_code_of_unseen_values_of_their_column():
    layer = attended_layer(category_dropout=0.4).train()
    indices = torch.tensor([2, 8, 15]).repeat(1_000)
    dropped = layer.bags._drop(indices)
    assert dropped.unique().tolist() == [2, 3 + 2 + 1, 8, 9 + 2 + 1, 15]
    # Of the entries of bags without values, none.
    share = (dropped != indices).float().mean() * 3 / 2
    assert abs(share - 0.4) < 0.03
    assert torch.equal(layer.eval().bags._drop(indices), indices)
