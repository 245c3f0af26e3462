"""Checks of estimators that are combined, and the parts of their networks."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError
from small_model import X, Y, small

from sk_pwiser.networks import NETWORKS, MultiTaskNetwork, NetworkOutput, random_inputs
from sk_pwiser.transfer import check_compatible, named_parts


@pytest.fixture(scope="module")
def fitted():
    return small(encoding_params={"target_encoding_min_values": 20}).fit(X, Y)


def changed(model, path, change):
    """Return a copy of an estimator whose object at `path` is changed."""
    model = copy.deepcopy(model)
    part = model._result
    for name in path.split("."):
        part = part[int(name)] if name.isdigit() else getattr(part, name)
    change(part)
    return model


def test_equal_estimators_pass(fitted):
    other = small(
        encoding_params={"target_encoding_min_values": 20},
        network_params={"bottom_units": [8], "tower_units": (4,), "dropout": 0.0},
        random_state=1,
        lr=0.1,
        loss="bce",
    ).fit(X, Y)
    check_compatible([fitted])
    check_compatible((fitted, other, copy.deepcopy(fitted)))


class NotKeywordOnly(MultiTaskNetwork):
    """A network whose parameters may also be passed by position."""

    def __init__(self, spec, units=8):
        super().__init__(spec)
        self.head = torch.nn.Sequential(
            torch.nn.Linear(self.width, units), torch.nn.Linear(units, self.n_tasks)
        )

    def forward(self, codes, numeric):
        return NetworkOutput(self.head(self.input_layer(codes, numeric)))


def test_defaults_of_a_network_of_ones_own():
    models = [
        small(network=NotKeywordOnly, network_params=params).fit(X, Y)
        for params in (None, {"units": 8}, {"units": 4})
    ]
    check_compatible(models[:2])
    with pytest.raises(ValueError, match="the parameter units of the network: 4, not"):
        check_compatible(models[1:])


@pytest.mark.parametrize(
    ("path", "change", "message"),
    [
        (
            "schema.encoder.columns_.8.codes_",
            lambda codes: codes.update({"new": len(codes) + 2}),
            "the vocabulary of column 'category_0', value 'new': .*, not None",
        ),
        (
            "schema.encoder.columns_.3.edges_",
            lambda edges: edges.__setitem__(0, -9),
            "the edges_ of column 'numeric_3': array",
        ),
        (
            "schema.encoder.columns_",
            lambda columns: setattr(columns[0], "name", "age"),
            r"the columns: \['age', .*\], not \['numeric_0', ",
        ),
        (
            "schema.statistics.counts_.0",
            lambda counts: counts.__setitem__((0, 0, 3), 77),
            "counts_ of the target statistics: ",
        ),
        (
            "schema.statistics.columns",
            lambda columns: columns.pop(),
            r"the columns of the target statistics: .*_2'\], not .*_2', 'category_3'\]",
        ),
        (
            "net.module_.bottom.layers.0",
            lambda layer: setattr(layer, "bias", torch.nn.Parameter(torch.zeros(3))),
            r"the shape of bottom.layers.0.bias: \(3,\), not \(8,\)",
        ),
        (
            "net.module_",
            lambda module: module.register_buffer("extra", torch.zeros(1)),
            r"the shape of extra: \(1,\), not None",
        ),
    ],
)
def test_the_first_difference_is_named(fitted, path, change, message):
    other = changed(fitted, path, change)
    with pytest.raises(ValueError, match=rf"estimators\[2\] differs .* in {message}"):
        check_compatible([fitted, fitted, other])


@pytest.mark.parametrize(
    ("params", "target", "message"),
    [
        ({"network": "single_task"}, Y, "the network: SingleTask, not SharedBottom"),
        ({"embedding_dim": 3}, Y, "the parameter embedding_dim of the network: 3, not"),
        (
            {"task_names": ["view", "order"]},
            Y.to_numpy(),
            r"the tasks: \['view', 'order'\], not \['click', 'conversion'\]",
        ),
        (
            {"encoding_params": {"target_encoding_min_values": 999}},
            Y,
            "the target statistics: None, not TargetStatistics",
        ),
        (
            {"categorical_features": [c == "category_0" for c in X]},
            Y,
            "the encoding of column 'category_1': BinsAndScores.*, not CategoryColumn",
        ),
    ],
)
def test_differences_of_parameters_are_named(fitted, params, target, message):
    kept = {"encoding_params": {"target_encoding_min_values": 20}}
    other = small(**{**kept, **params}).fit(X, target)
    with pytest.raises(ValueError, match=rf"estimators\[1\] differs .* in {message}"):
        check_compatible([fitted, other])


def test_the_labels_of_a_single_task_are_compared():
    first = small().fit(X, Y["click"])
    check_compatible([first, small().fit(X, Y["click"].to_numpy())])
    second = small().fit(X, np.where(Y["click"], "yes", "no"))
    with pytest.raises(ValueError, match=r"the classes: \['no', 'yes'\], not \[0, 1\]"):
        check_compatible([first, second])


def test_what_is_not_a_fitted_estimator_is_refused(fitted):
    with pytest.raises(NotFittedError, match=r"estimators\[1\].* is not fitted"):
        check_compatible([fitted, small()])
    with pytest.raises(TypeError, match=r"estimators\[1\] must be .* got None"):
        check_compatible([fitted, None])
    with pytest.raises(TypeError, match="must be a sequence of fitted estimators"):
        check_compatible(fitted)
    with pytest.raises(ValueError, match="at least one estimator"):
        check_compatible([])
    with pytest.raises(NotFittedError, match=r"estimator.* is not fitted"):
        named_parts(small())
    with pytest.raises(TypeError, match=r"estimator must be .* got 'model'"):
        named_parts("model")


def network_of(name):
    params = small().network_params if name == "shared_bottom" else None
    return small(network=name, network_params=params, max_epochs=1).fit(X, Y)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_tensor_is_in_one_part(name):
    model = network_of(name)
    parts = named_parts(model)
    tensors = [tensor for names in parts.values() for tensor in names]
    assert sorted(tensors) == sorted(model.net_.module_.state_dict())


TOWERS = ["towers.click", "towers.conversion"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("shared_bottom", ["embedding", "input_layer", "bottom", *TOWERS]),
        ("esmm", ["embedding", "input_layer", *TOWERS]),
        ("omoe", ["embedding", "input_layer", "experts", "gates", *TOWERS]),
        (
            "mmoe",
            [
                *("embedding", "input_layer", "experts"),
                *("gates.click", "gates.conversion"),
                *TOWERS,
            ],
        ),
        (
            "single_task",
            [
                *("embedding.click", "embedding.conversion"),
                *("input_layer.click", "input_layer.conversion"),
                *TOWERS,
            ],
        ),
    ],
)
def test_the_parts_of_networks(name, expected):
    assert sorted(named_parts(network_of(name))) == sorted(expected)


def test_a_single_task_has_no_parts_per_task():
    parts = named_parts(small().fit(X, Y["click"]))
    assert list(parts) == ["embedding", "input_layer", "bottom", "towers"]


def test_parts_leave_the_mode_of_the_network(fitted):
    fitted.net_.module_.train()
    named_parts(fitted)
    assert fitted.net_.module_.training


def test_tables_with_sparse_gradients_are_embeddings():
    model = small(optimizer_params={"lazy_embeddings": True}).fit(X, Y)
    assert model.net_.module_.input_layer.embeddings[0].sparse
    parts = named_parts(model)
    assert parts["embedding"] == ["input_layer.embeddings.0.weight"]
    cross = small(network_params={"interaction": "cross"}).fit(X, Y)
    assert all(
        n.startswith(("input_layer.inter", "input_layer.bins"))
        for n in named_parts(cross)["input_layer"]
    )


def test_the_parts_of_numbers_with_few_values():
    # Positions below the first edge of a few bins had no normal score.
    rng = np.random.default_rng(0)
    numbers = pd.DataFrame(rng.standard_normal((400, 3)), columns=list("abc"))
    table = numbers.assign(stars=rng.integers(0, 3, 400).astype(float))
    clicks = (rng.random((400, 2)) < 0.5).cumprod(axis=1)
    model = small(numeric_encoding="bins_and_scores").fit(table, clicks)
    _, numeric, _ = random_inputs(model.net_.module_, 1_000)
    bins = model.net_.module_.spec.numeric_bins
    n_bins = torch.tensor(bins, device=numeric.device)
    assert 0 < n_bins.min() < 8 < n_bins.max()
    assert (numeric >= 0).all()
    assert (numeric <= n_bins).all()
    assert (numeric.amax(dim=0) > 0.99 * n_bins).all()
    assert "input_layer" in named_parts(model)
