"""The dense input: bins and products of columns, in every network."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy.special import expit

from sk_pwiser.networks import NETWORKS, NetworkSpec, numeric_widths
from sk_pwiser.networks._input import InputLayer
from sk_pwiser.networks._numeric_inputs import (
    FEW_BINS,
    LARGEST_DIM,
    LARGEST_SMOOTH_DIM,
    SMALLEST_DIM,
    BinExpansion,
    BinProjection,
    NumericInputs,
)

CARDINALITIES = [3, 5, 7]
DIM = 4
BINS = [0, 3, 0, 1]
N_NUMERIC = 2 + 3 + 1  # after the expansion of bins


def batch(n, bins=BINS, cardinalities=CARDINALITIES):
    codes = [torch.randint(c, (n,)) for c in cardinalities]
    codes = torch.stack(codes, 1) if codes else torch.empty(n, 0, dtype=torch.int64)
    numeric = torch.randn(n, len(bins))
    for column, n_bins in enumerate(bins):
        if n_bins:
            numeric[:, column] = torch.rand(n) * n_bins
    return codes, numeric


def spec_of(bins=BINS, cardinalities=CARDINALITIES, **options):
    options["numeric_bins"] = bins
    return NetworkSpec(cardinalities, len(bins), DIM, [0.5], **options)


def layer(
    interaction=None, n_tables=1, bins=BINS, cardinalities=CARDINALITIES, **options
):
    spec = spec_of(bins, cardinalities, interaction=interaction, **options)
    made = InputLayer(spec, n_tables=n_tables)
    # Larger values than the initial ones, so that every term contributes.
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made.double()


def run(made, codes, numeric):
    return made(codes, numeric.double()).detach().numpy()


def positions_of(bins, n=50):
    """Return positions inside the bins, with both ends, in float64."""
    shares = torch.rand(n, len(bins), dtype=torch.float64)
    shares[0], shares[1] = 0, 1
    return shares * torch.tensor(bins)


@pytest.mark.parametrize("scales", [(), (0.5, 1.0, 2.0)])
def test_projection_against_the_components_times_a_matrix_per_column(scales):
    bins, dim = [16, 9, 40], 3
    made = BinProjection(bins, scales, range(3), dim).double()
    positions = positions_of(bins)
    found = made(positions)
    found.sum().backward()
    n_scores = len(bins) if scales else 0
    expanded = BinExpansion(bins, scales, range(3)).double()(positions).numpy()
    weight, gradient = made.weight.detach().numpy(), made.weight.grad.numpy()
    expected, starts = [], np.cumsum([0, *bins])
    for column, (start, stop) in enumerate(itertools.pairwise(starts)):
        components = expanded[:, n_scores + start : n_scores + stop]
        if scales:
            expected.append(expanded[:, [column]])
        expected.append(components @ weight[start:stop])
        sums = np.tile(components.sum(axis=0)[:, np.newaxis], dim)
        assert_allclose(gradient[start:stop], sums, rtol=1e-9, atol=1e-9)
    # The scores are computed in float32.
    assert_allclose(found.detach(), np.hstack(expected), rtol=0, atol=1e-6)
    assert found.shape == (50, len(made.owners))


def test_a_few_bins_are_not_projected():
    bins, scales = [FEW_BINS, 0, FEW_BINS, 1], [0.5, 1.0, 1.0, 1.0]
    positions = positions_of(bins).float()
    made = NumericInputs(bins, scales)
    assert not list(made.parameters())
    assert torch.equal(made(positions), BinExpansion(bins, scales, range(4))(positions))


@pytest.mark.parametrize(
    ("n_smooth", "n_others", "smooth_dim", "dim"),
    [
        (1, 1, LARGEST_SMOOTH_DIM, LARGEST_DIM),
        (63, 2, SMALLEST_DIM, LARGEST_DIM),
        (0, 63, None, 4),
        (1, 1_000, LARGEST_SMOOTH_DIM, SMALLEST_DIM),
    ],
)
def test_many_columns_are_projected_to_fewer_inputs(
    n_smooth, n_others, smooth_dim, dim
):
    bins = [3, 3, *[16] * n_smooth, *[12] * n_others]
    scales = [1.0, 1.0, *[0.5] * n_smooth, *[1.0] * n_others]
    made = NumericInputs(bins, scales)
    widths = [layer.weight.shape[1] for layer in made.layers[1:]]
    assert widths == [width for width in (smooth_dim, dim) if width]
    n_smooth_inputs = n_smooth * ((smooth_dim or 0) + 1)
    assert len(made.owners) == 2 * (3 + 1) + n_smooth_inputs + n_others * (dim + 1)
    assert made(positions_of(bins, 5).float()).shape == (5, len(made.owners))


@pytest.mark.parametrize("has_scores", [True, False])
@pytest.mark.parametrize("bins", [[0, 1, 3, 16, 64, 0], [16] * 70, [0, 0]])
def test_widths_of_numeric_inputs(bins, has_scores):
    scales = [0.5 if n == 16 else 1.0 for n in bins] if has_scores else []
    found = numeric_widths(
        NetworkSpec([], len(bins), 4, [0.1], numeric_bins=bins, bin_scales=scales)
    )
    assert sum(found) == len(NumericInputs(bins, scales).owners)
    # Without bins, the layer does not expand the numbers.
    assert numeric_widths(NetworkSpec([], 3, 4, [0.1])) == [1, 1, 1]


def test_columns_of_all_kinds_beside_each_other():
    bins, scales = [16, 0, 30, 3, 16], [0.5, 1.0, 1.0, 1.0, 0.5]
    made = NumericInputs(bins, scales).double()
    positions = positions_of(bins)
    expected = []
    for part, columns in zip(made.layers, ([1, 3], [0, 4], [2]), strict=True):
        given = ([values[j] for j in columns] for values in (bins, scales))
        alone = NumericInputs(*given).double()
        alone.layers[0].load_state_dict(part.state_dict())
        expected.append(alone(positions[:, columns]))
    torch.testing.assert_close(made(positions), torch.cat(expected, 1), rtol=0, atol=0)


def test_projected_weights_start_smaller_than_those_of_the_components():
    bins, n_others, units = [16] * 40 + [60] * 4, 100, 400
    made = NumericInputs(bins, [0.5] * 40 + [1.0] * 4, n_others)
    n_components = sum(bins) + len(bins)
    bound = (6 / (len(made.owners) + n_others)) ** 0.5
    for layer, share in zip(made.layers, (1 / 4, 1 / 2), strict=True):
        first = torch.empty(layer.weight.shape[1], units).uniform_(-bound, bound)
        variance = (layer.weight.detach() @ first).square().mean().item()
        # A share of that of the He-uniform weights of a layer on all components.
        expected = share * 2 / (n_components + n_others)
        assert variance == pytest.approx(expected, rel=0.2)


def dense_inputs(made, codes, numeric):
    """Yield the input of each table, by loops over rows and columns."""
    components = BinExpansion(BINS, (), range(4))(numeric.double()).numpy()
    for embedding in made.embeddings:
        weight = embedding.weight.detach().numpy()
        rows = []
        for row, numbers in zip(codes, components, strict=True):
            places = zip(row, made.offsets, strict=True)
            embedded = [weight[code + offset] for code, offset in places]
            rows.append(np.concatenate([*embedded, numbers]))
        yield np.array(rows)


def results(made, codes, numeric):
    out = run(made, codes, numeric)
    assert out.shape[-1] == made.width
    return out[np.newaxis] if len(made.embeddings) == 1 else out


@pytest.mark.parametrize("n_tables", [1, 3])
@pytest.mark.parametrize("interaction", [None, "cross"])
def test_unequal_widths_are_the_first_components_of_the_table(n_tables, interaction):
    dims = [1, 4, 2]
    spec = spec_of(interaction=interaction, embedding_dims=dims)
    made = InputLayer(spec, n_tables=n_tables).double()
    codes, numeric = batch(6)
    assert made.width == sum(dims) + N_NUMERIC
    # The cross layer starts as the identity.
    for out, full in zip(
        results(made, codes, numeric), dense_inputs(made, codes, numeric), strict=True
    ):
        expected = [full[:, :1], full[:, 4:8], full[:, 8:10], full[:, 12:]]
        assert_allclose(out, np.hstack(expected))


@pytest.mark.parametrize("n_tables", [1, 3])
@pytest.mark.parametrize("rank", [None, 3, 100])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_cross_layers_against_numpy(n_layers, rank, n_tables):
    depth = {"n_cross_layers": n_layers, "cross_rank": rank}
    made, (codes, numeric) = layer("cross", n_tables, **depth), batch(6)
    assert made.width == 3 * DIM + N_NUMERIC
    out = results(made, codes, numeric)
    assert len(out) == n_tables
    for table, x in enumerate(dense_inputs(made, codes, numeric)):
        hidden = x
        assert len(made.interactions[table].layers) == n_layers
        for each in made.interactions[table].layers:
            values = {k: v.detach().numpy() for k, v in each.named_parameters()}
            w = values["weight"]
            if rank == 3:
                w = values["reduction"] @ w
                assert np.linalg.matrix_rank(w) == 3
            assert w.shape == (made.width, made.width)
            hidden = np.array(
                [
                    first * (row @ w + values["bias"]) + row
                    for first, row in zip(x, hidden, strict=True)
                ]
            )
        assert_allclose(out[table], hidden, rtol=1e-9)


@pytest.mark.parametrize("n_tables", [1, 3])
def test_factorisation_machine_against_the_double_sum(n_tables):
    made, (codes, numeric) = layer("fm", n_tables), batch(6)
    n_in = 3 * DIM + N_NUMERIC
    assert made.width == n_in + DIM
    out = results(made, codes, numeric)
    assert len(out) == n_tables
    for table, x in enumerate(dense_inputs(made, codes, numeric)):
        vectors = made.interactions[table].vectors.detach().numpy()
        assert_allclose(out[table][:, :n_in], x, rtol=1e-12)
        for row, values in zip(out[table], x, strict=True):
            fields = [*values[: 3 * DIM].reshape(3, DIM)]
            fields += [a * v for a, v in zip(values[3 * DIM :], vectors, strict=True)]
            pairs = sum(a * b for a, b in itertools.combinations(fields, 2))
            assert_allclose(row[n_in:], pairs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_tables", [1, 2])
def test_products_start_near_zero(n_tables):
    def start(interaction, **options):
        torch.manual_seed(0)
        spec = spec_of([0] * 4, interaction=interaction, **options)
        return InputLayer(spec, n_tables=n_tables)

    codes, numeric = batch(20, bins=[0] * 4)
    plain = start(None)(codes, numeric)
    for n_layers, rank in [(1, None), (2, 2)]:
        crossed = start("cross", n_cross_layers=n_layers, cross_rank=rank)
        torch.testing.assert_close(crossed(codes, numeric), plain, rtol=0, atol=0)
    with_pairs = start("fm")(codes, numeric)
    torch.testing.assert_close(with_pairs[..., :-DIM], plain, rtol=0, atol=0)
    assert 0 < with_pairs[..., -DIM:].abs().max() < 0.01


@pytest.mark.parametrize("embedding_dims", [(), (4, 1, 3)])
def test_domain_features_multiply_every_column_by_factors(embedding_dims):
    torch.manual_seed(0)
    features = [2, 4]  # the last category column, and the input with 3 bins
    spec = spec_of(embedding_dims=embedding_dims, domain_features=features)
    made, (codes, numeric) = InputLayer(spec).double(), batch(9)
    plain = InputLayer(replace(spec, domain_features=None)).double()
    plain.load_state_dict(made.state_dict(), strict=False)
    columns = run(plain, codes, numeric)
    assert_allclose(run(made, codes, numeric), columns, rtol=1e-12)  # they start at 1
    for parameter in made.gates.parameters():
        torch.nn.init.normal_(parameter)
    # Of the numeric inputs, those without bins come first.
    widths = [*(embedding_dims or [DIM] * 3), 1, 1, 3, 1]
    owners = np.repeat([0, 1, 2, 3, 5, 4, 6], widths)
    embedded, position = columns[:, owners == 2], columns[:, owners == 4]
    embedded = embedded / np.sqrt((embedded**2).mean(1, keepdims=True))
    domain = np.hstack([embedded, position])
    p = {name: value.detach().numpy() for name, value in made.named_parameters()}
    for name in ("hidden", "output"):
        weight, bias = p[f"gates.0.{name}.weight"], p[f"gates.0.{name}.bias"]
        domain = domain @ weight.T + bias
        domain = np.maximum(domain, 0) if name == "hidden" else expit(domain)
    assert_allclose(run(made, codes, numeric), columns * 2 * domain, rtol=1e-6)
    assert domain.std(axis=0).max() > 0.1


def test_pairs_keep_full_precision_under_autocast():
    made, (codes, numeric) = layer("fm").float(), batch(20)
    numeric[:, 0] += 100.0
    expected = made(codes, numeric)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made(codes, numeric)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


FM, CROSS = {"interaction": "fm"}, {"interaction": "cross"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interaction": "dot"}, r"interaction .*\['cross', 'fm', None\]; got 'dot'"),
        ({"embedding_dims": [4], **FM}, "interaction='fm' requires .* equal width"),
        ({"task_space": "clicked"}, r"task_space .*\['entire', .*; got 'clicked'"),
        ({"monotonicity_weight": -1}, "monotonicity_weight must be .* >= 0; got -1"),
        ({"n_cross_layers": 0, **CROSS}, "n_cross_layers must be .* >= 1; got 0"),
        ({"cross_rank": 0, **CROSS}, "cross_rank must be an integer >= 1; got 0"),
        ({"n_cross_layers": 2, **FM}, "layers=2 .* require interaction='cross'; got"),
        ({"cross_rank": 8}, "cross_rank=8 require interaction='cross'; got None"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        NetworkSpec([3], 2, DIM, [0.5, 0.1], **options)


def test_category_dropout_replaces_its_share_of_values_in_training_only():
    spec = NetworkSpec([9, 9], 0, 1, [0.5], unseen_code=3, category_dropout=0.3)
    made = InputLayer(spec)
    with torch.no_grad():
        made.embeddings[0].weight.copy_(torch.arange(18.0).unsqueeze(1))
    codes = torch.full((5000, 2), 7)
    dropped = made(codes, torch.empty(5000, 0)) - torch.tensor([0.0, 9.0])
    assert set(dropped.flatten().tolist()) == {3.0, 7.0}
    # A binomial share of 10,000 values: its standard deviation is 0.0046.
    assert (dropped == 3).float().mean().item() == pytest.approx(0.3, abs=0.02)
    kept = made.eval()(codes, torch.empty(5000, 0))
    assert torch.equal(kept, torch.tensor([[7.0, 16.0]]).expand(5000, 2))


OPTIONS = [
    {"numeric_bins": BINS},
    {"numeric_bins": [0, 12, 0, 9], "bin_scales": [1.0, 0.5, 1.0, 1.0]},
    {"interaction": "cross"},
    {"interaction": "cross", "n_cross_layers": 2, "cross_rank": 2},
    {"interaction": "fm"},
    {"numeric_bins": BINS, "interaction": "cross"},
    {"numeric_bins": BINS, "interaction": "fm"},
    {"domain_features": [2, 5]},
    {"numeric_bins": BINS, "interaction": "cross", "domain_features": [0, 2, 4]},
]


@pytest.fixture(params=sorted(NETWORKS))
def name(request):
    return request.param


@pytest.fixture(params=OPTIONS, ids=lambda o: "-".join(map(str, o.values())))
def network(request, name):
    spec = NetworkSpec(CARDINALITIES, len(BINS), DIM, [0.3, 0.02], **request.param)
    return NETWORKS[name](spec)


def test_every_network_with_every_option(network):
    network.eval()
    codes, numeric = batch(20, network.spec.numeric_bins or BINS)
    whole = network(codes, numeric).logits
    assert whole.shape == (20, 2)
    order = torch.randperm(20)
    for rows in (order, order[:1]):
        part = network(codes[rows], numeric[rows]).logits
        torch.testing.assert_close(part, whole[rows])
