"""Optimisers: Adam by rows of tables, averages of weights, groups of parameters."""

import copy
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from skorch.callbacks import Callback
from small_model import N, X, Y, small
from torch import nn

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._settings import OPTIMIZER_NAMES
from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser._training._divergence import changed_weights
from sk_pwiser._training._lazy_tables import LazyAdam
from sk_pwiser._training._optimizers import (
    OPTIMIZERS,
    parameter_groups,
    parameter_kinds,
)
from sk_pwiser._training._tiny_values import flush_tiny_values
from sk_pwiser._training._weight_average import WeightAverage
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.losses import BCE
from sk_pwiser.networks import (
    BagSpec,
    MultiTaskNetwork,
    NetworkOutput,
    NetworkSpec,
    SingleTask,
    random_inputs,
)
from sk_pwiser.weighting import Uncertainty
from sk_pwiser.weighting._dependencies import depends_on


def steps(kind, batches, sparse, trains_head=True, **kwargs):
    """Train an embedding and, unless it stays as it is, a linear layer."""
    torch.manual_seed(0)
    table, head = nn.Embedding(20, 3, sparse=sparse), nn.Linear(3, 1)
    parameters = [*table.parameters(), *(head.parameters() if trains_head else ())]
    optimizer = kind(parameters, lr=0.05, **kwargs)
    for rows in batches:
        optimizer.zero_grad()
        (head(table(rows)).exp().mean() + table(rows).square().sum()).backward()
        optimizer.step()
    return table, head, optimizer


LAZY = {"lazy_embeddings": True}
ALL = [torch.arange(20)] * 5
SOME = [torch.tensor(rows) for rows in ([1, 2, 2], [2, 5], [1, 19], [2, 5])]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_rows_in_every_batch_are_updated_as_by_adam(weight_decay):
    lazy = steps(LazyAdam, ALL, True, weight_decay=weight_decay)
    dense = steps(torch.optim.Adam, ALL, False, weight_decay=weight_decay)
    for one, other in zip(lazy[:2], dense[:2], strict=True):
        torch.testing.assert_close(one.weight, other.weight)


def test_rows_in_some_batches_are_updated_as_by_sparse_adam():
    lazy, _, _ = steps(LazyAdam, SOME, True, trains_head=False)
    sparse, _, _ = steps(torch.optim.SparseAdam, SOME, True, trains_head=False)
    torch.testing.assert_close(lazy.weight, sparse.weight)
    torch.manual_seed(0)
    initial = nn.Embedding(20, 3).weight
    untouched = [k for k in range(20) if k not in (1, 2, 5, 19)]
    assert torch.equal(lazy.weight[untouched], initial[untouched])


def updated(n_steps, device):
    """Train a table of 40 rows, and then update it in steps of 8 entries.

    Returns the table, its optimiser, and copies of the weights and moments before.
    """
    generator = torch.Generator().manual_seed(1)
    table = nn.Embedding(40, 3, sparse=True).to(device)
    optimizer = LazyAdam(table.parameters(), lr=0.05)

    def step(rows):
        optimizer.zero_grad()
        table(rows.to(device)).square().sum().backward()
        optimizer.step()

    step(torch.arange(0, 40, 2))
    weight = table.weight.detach().clone()
    state = copy.deepcopy(optimizer.state[table.weight])
    optimizer.logs = {}
    batches = torch.randint(40, (n_steps, 8), generator=generator)
    for rows in batches:
        step(rows)
    return table, optimizer, weight, state


@pytest.mark.parametrize("n_steps", [1, 4, 30])
def test_undo_restores_rows_moments_and_steps_to_the_bit(n_steps, device):
    table, optimizer, weight, state = updated(n_steps, device)
    assert not torch.equal(table.weight, weight)
    optimizer.logs[table.weight].restore()
    assert torch.equal(table.weight, weight)
    for key, value in optimizer.state[table.weight].items():
        assert torch.equal(value, state[key])


def test_changed_weights_are_all_rows_that_differ(device):
    table, optimizer, weight, _ = updated(3, device)
    differs = (table.weight != weight).any(dim=1)
    [found] = changed_weights(table, optimizer)
    assert torch.equal(found.unique(dim=0), table.weight[differs].unique(dim=0))


def test_an_update_may_change_no_row_of_a_table():
    """Rows of numbers alone leave the tables unchanged."""
    numbers, model = X.select_dtypes("number"), small(optimizer_params=LAZY)
    for _ in range(2):
        model.partial_fit(numbers, Y)
    assert np.isfinite(model.predict_proba(numbers)).all()


def test_large_tables_alone_are_lazy_by_default():
    assert not isinstance(small().fit(X, Y).net_.optimizer_, LazyAdam)
    table = pd.DataFrame({"id": np.repeat(np.arange(9000), 2)})
    labels = np.c_[np.arange(18000) % 3 == 0, np.arange(18000) % 6 == 0].astype(int)
    params = {"categorical_features": ["id"], "target_encoding": False}
    model = small(embedding_dim=128, batch_size=2_000, max_epochs=1, **params)
    model.fit(table, labels)
    assert isinstance(model.net_.optimizer_, LazyAdam)


class LoggedRows(Callback):
    """The number of rows in the log of an update at its end."""

    def on_train_end(self, net, **kwargs):
        logs = (net.optimizer_.logs or {}).values()  # None in the first call
        self.n_rows_ = [sum(len(rows) for rows, *_ in log.entries) for log in logs]
        self.sizes_ = [len(log.table) for log in logs]


def test_an_update_keeps_no_more_rows_than_its_tables_have(device):
    logged = LoggedRows()
    model = small(optimizer_params=LAZY, batch_size=20, callbacks=[logged])
    model.partial_fit(X[:200], Y[:200])
    rows = np.arange(2_000) % 200
    model.partial_fit(X.iloc[rows], Y.iloc[rows])
    copies = 1 if device.type == "cpu" else 2
    assert logged.sizes_
    for n_rows, size in zip(logged.n_rows_, logged.sizes_, strict=True):
        assert 0 < n_rows <= copies * size + 20 * 4 * (copies - 1)


@pytest.mark.parametrize("lazy", [True, False])
def test_a_warm_start_keeps_the_state_if_only_laziness_changes(lazy):
    model = small(optimizer_params={"lazy_embeddings": lazy}, warm_start=True)
    model.set_params(max_epochs=4).fit(X, Y)
    table = model.net_.module_.input_layer.embeddings[0].weight
    n_steps = float(model.net_.optimizer_.state[table]["step"])
    model.set_params(optimizer_params__lazy_embeddings=not lazy, max_epochs=1)
    model.fit(X, Y)
    table = model.net_.module_.input_layer.embeddings[0].weight
    assert float(model.net_.optimizer_.state[table]["step"]) == n_steps * 5 / 4


class Shrink(Callback):
    """Makes the embedding of missing values, which no row has, tiny."""

    def on_train_begin(self, net, **kwargs):
        with torch.no_grad():
            net.module_.input_layer.embeddings[0].weight[0] = 1e-25


@pytest.mark.parametrize("single_pass", [False, True])
def test_tiny_weights_become_zeros(single_pass):
    """Below 1e-38 a CPU is some hundred times as slow, so that they end before it."""
    model = small(
        target_encoding=False, callbacks=[Shrink()], device="cpu", batch_size=N
    )
    (model.partial_fit if single_pass else model.fit)(X, Y)
    weight = model.net_.module_.input_layer.embeddings[0].weight
    assert (weight[0] == 0).all()
    assert (weight[1:] != 0).all()


def test_tiny_moments_become_zeros():
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state[layer.weight]
    with torch.no_grad():
        layer.weight[0, 0] = -1e-21
        state["exp_avg"][0, 0] = -1e-31
        state["exp_avg_sq"][0, 0] = 1e-31
    before = [t.clone() for t in (layer.weight, *state.values())]
    average = WeightAverage(layer, 0.9)
    [*averages] = average.groups[0].averages
    averages[1][0] = 1e-21
    flush_tiny_values(layer, optimizer, average)
    assert averages[1][0] == 0
    assert averages[1][1] != 0
    for now, then in zip((layer.weight, *state.values()), before, strict=True):
        if now.dim():
            then[0, 0] = 0
        torch.testing.assert_close(now, then, rtol=0, atol=0)


def test_lazy_adam_leaves_no_tiny_values():
    table = nn.Embedding(3, 2, sparse=True)
    with torch.no_grad():
        table.weight[1] = 1e-30
    optimizer = LazyAdam(table.parameters(), weight_decay=0.1)
    (table(torch.tensor([1, 2])) * torch.tensor([[0.0], [1.0]])).sum().backward()
    optimizer.step()
    state = optimizer.state[table.weight]
    for values in (table.weight, state["exp_avg"], state["exp_avg_sq"]):
        assert (values[1] == 0).all()
        assert (values[2] != 0).all()


# The average of the weights, against a recursion over its updates.


@pytest.mark.parametrize("n_steps", [1, 63, 64, 65, 200])
def test_averages_are_updated_in_their_steps(n_steps):
    embedding = nn.Embedding(1, 1, sparse=True)
    module = nn.ModuleList([nn.Linear(1, 1, bias=False), embedding])
    table = module[1].weight
    average = WeightAverage(module, 0.9)
    # Small parameters in each of 64 steps and then in every 8th, tables in every 64th,
    # and both at the end.
    due = {
        module[0].weight: [*range(1, 65), *range(72, 1000, 8)],
        table: range(64, 1000, 64),
    }
    expected = {p: float(p.detach()) for p in due}
    last = dict.fromkeys(due, 0)
    for step in range(1, n_steps + 1):
        with torch.no_grad():
            for parameter in due:
                parameter.fill_(step**0.5)
        average.step()
        for parameter, steps in due.items():
            if step in steps or step == n_steps:
                kept = min(0.9, (1 + step) / (5 + step)) ** (step - last[parameter])
                expected[parameter] = (
                    kept * expected[parameter] + (1 - kept) * step**0.5
                )
                last[parameter] = step
    average.swap()
    for parameter, value in expected.items():
        assert float(parameter.detach()) == pytest.approx(value, rel=1e-5)


# Entries of `optimizer_params` that are not arguments of the optimiser.


def decays(model):
    return {
        parameter: group["weight_decay"]
        for group in model.net_.optimizer_.param_groups
        for parameter in group["params"]
    }


def two_decays(model):
    """Return the decays of a model's embeddings and of the rest of its network."""
    network, found = model.net_.module_, decays(model)
    table = network.input_layer.embeddings[0].weight
    return found[table], found[network.towers[0].output.linear.weight]


class Own(MultiTaskNetwork):
    """Names that other parts of a net have, too."""

    def __init__(self, spec):
        super().__init__(spec)
        self.item_table = nn.Embedding(sum(spec.cardinalities), 4)
        self.embeddings = nn.ModuleList([nn.Linear(4, 1)])
        self.position_bias = nn.Sequential(nn.Linear(self.width, 3), nn.Linear(3, 1))
        self.debias = nn.Parameter(torch.zeros(1))
        self.weighting = nn.Linear(self.width, self.n_tasks)
        self.task_bias = nn.ParameterList([torch.zeros(1) for _ in range(self.n_tasks)])
        self.by_name = nn.ParameterDict({"last_bias": torch.zeros(1)})
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.lstm = nn.LSTM(4, 4, batch_first=True)
        self.norm, self.batch_norm = nn.LayerNorm(self.width), nn.BatchNorm1d(4)
        self.prelu = nn.PReLU()

    def forward(self, codes, numeric):
        inputs = self.norm(self.input_layer(codes, numeric))
        items = self.item_table(codes)
        items = self.lstm(self.attention(items, items, items)[0])[0].mean(dim=1)
        logit = self.embeddings[0](self.batch_norm(items)) + self.position_bias(inputs)
        logits = self.weighting(inputs) + self.debias + torch.cat([*self.task_bias])
        return NetworkOutput(self.prelu(logits + logit) + self.by_name["last_bias"])


def test_the_names_of_ones_own_modules_do_not_matter():
    model = small(
        network=Own,
        network_params=None,
        device="cpu",  # the simulated device has no LSTM
        weighting="uncertainty",
        weight_decay=0.01,
        optimizer_params={"embedding_lr": 0.1, "embedding_weight_decay": 0.5},
    ).fit(X, Y)
    net = model.net_
    found = {
        parameter: (group["lr"], group["weight_decay"])
        for group in net.optimizer_.param_groups
        for parameter in group["params"]
    }
    without = {"norm.weight", "batch_norm.weight", "prelu.weight"}
    own_names = {"bias", "in_proj_bias", "bias_ih_l0", "bias_hh_l0", "last_bias"}
    for name, parameter in net.module_.named_parameters():
        expected = model.lr, 0.01
        if name in {"item_table.weight", "input_layer.embeddings.0.weight"}:
            expected = 0.1, 0.5
        elif name in without or name.split(".")[-1] in own_names or "task_" in name:
            expected = model.lr, 0.0
        assert found.pop(parameter) == expected, name
    # The parameters of the weighting.
    assert [*found.values()] == [(model.lr, 0.0)]


@pytest.mark.parametrize("ctr", [0.01, 0.4])
def test_a_rare_task_that_shares_nothing_has_less_decay(ctr):
    data = make_ctr_cvr(2_000, ctr=ctr, cvr=0.2, random_state=0)
    model = small(network="single_task", network_params=None, weight_decay=0.1)
    model.fit(data.data, data.target)
    net = model.net_.module_
    found = decays(model)
    for task, rate in enumerate(net.spec.base_rates):
        share = min(1, rate / 0.05)
        table = net.input_layer.embeddings[task].weight
        n_codes, n_rows = sum(net.spec.cardinalities), sum(model._result.n_rows)
        ratio = 20 * np.sqrt(25 / (n_rows * len(net.spec.cardinalities) / n_codes))
        assert found[table] == pytest.approx(0.1 * ratio * share, rel=0.1)
        weight = net.towers[task].output.linear.weight
        assert found[weight] == pytest.approx(0.1 * share)
        assert found[net.towers[task].output.linear.bias] == 0


# The mean loss of more rows leaves less to a prior of the weights. Small batches have
# a lower limit.
@pytest.mark.parametrize(
    ("n_rows", "batch_size", "expected"),
    [
        (1_000, 1024, 1e-4),
        (2_000, 1024, 5e-4),
        (2_000, 4096, 5e-4),
        (2_000, 64, 1.25e-4),
        (10_000, 1024, 4e-4),
    ],
)
def test_the_decay_falls_with_the_number_of_rows(n_rows, batch_size, expected):
    data = make_ctr_cvr(n_rows, ctr=0.3, cvr=0.3, random_state=0)
    model = small(batch_size=batch_size).fit(data.data, data.target)
    assert two_decays(model)[1] == pytest.approx(expected)


def test_updates_have_a_decay_of_their_own(tmp_path):
    data = make_ctr_cvr(4_000, ctr=0.3, cvr=0.3, random_state=0)
    X, Y = data.data, data.target
    model = small(batch_size=1024).fit(X, Y)
    of_fit = two_decays(model)
    assert of_fit[1] == pytest.approx(5e-4)
    model.partial_fit(X[:100], Y[:100])
    assert two_decays(model) == pytest.approx([each / 5 for each in of_fit], rel=0.02)
    of_update = two_decays(model)
    model.save(tmp_path / "model")
    model = type(model).load(tmp_path / "model")
    # Other parameters let an update build another net.
    for params in ({}, {"lr": 0.01}):
        model.set_params(**params).partial_fit(X[:100], Y[:100])
        assert two_decays(model) == pytest.approx(of_update, rel=0.05)
    model.set_params(weight_decay=0.01).partial_fit(X[:100], Y[:100])
    assert two_decays(model)[1] == 0.01
    model.set_params(weight_decay="auto", warm_start=True).fit(X, Y)
    assert two_decays(model) == of_fit


def test_a_model_of_updates_has_one_decay():
    data, model = make_ctr_cvr(2_000, ctr=0.3, cvr=0.3, random_state=0), small()
    for rows in (slice(1_000), slice(1_000, None)):
        model.partial_fit(data.data[rows], data.target[rows])
        assert two_decays(model)[1] == 1e-4


@pytest.mark.parametrize("weight_decay", ["auto", 0.01])
def test_an_update_in_place_has_the_decay_of_one_that_builds_a_net(weight_decay):
    data = make_ctr_cvr(5_000, ctr=0.3, cvr=0.3, random_state=0)
    X, Y = data.data, data.target
    model = small(weight_decay=weight_decay).partial_fit(X[:1_000], Y[:1_000])
    of_first = two_decays(model)
    other = copy.deepcopy(model).set_params(n_iter_no_change=4)
    for each in (model, other):
        each.partial_fit(X[1_000:], Y[1_000:])
    assert two_decays(model) == two_decays(other)
    assert two_decays(model)[0] < of_first[0]  # more rows per value
    assert (model.predict_proba(X) == other.predict_proba(X)).all()


def test_an_optimizer_with_any_keyword_arguments():
    class Own(torch.optim.Adam):
        def __init__(self, params, **kwargs):
            super().__init__(params, **kwargs)

    model = small(optimizer=Own, optimizer_params={"betas": (0.5, 0.9)}).fit(X, Y)
    betas = {group["betas"] for group in model.net_.optimizer_.param_groups}
    assert betas == {(0.5, 0.9)}


@pytest.mark.parametrize(
    ("cardinalities", "bags", "n_rows", "ratio"),
    [
        ([150, 50], [], 2_500, 20),  # 25 rows per value
        ([150, 50], [], 1_000, 8),
        ([150, 50], [], 1, 5),
        ([150, 50], [], 10_000, 10),
        ([150], [BagSpec(50)], 10_000, 10),
        ([150, 50], [], 10**6, 5),
    ],
)
def test_embeddings_of_values_with_few_rows_decay_more(
    cardinalities, bags, n_rows, ratio
):
    spec = NetworkSpec(cardinalities, 2, 4, [0.5], bags=bags)
    params = {"embedding_lr": None, "embedding_weight_decay": None}
    settings = SimpleNamespace(optimizer="adam", optimizer_params=params)
    groups = dict(parameter_groups(settings, spec, n_rows, 0.1))
    assert groups["table"]["weight_decay"] == pytest.approx(0.1 * ratio)
    params["embedding_weight_decay"] = 0.3
    groups = dict(parameter_groups(settings, spec, n_rows, 0.1))
    assert groups["table"]["weight_decay"] == 0.3


def test_all_parameters_of_a_rare_task_have_less_decay():
    bags = [BagSpec(7, True), BagSpec(8, True, column=1, attends=True)]
    bins = {"numeric_bins": [0, 3, 20, 30], "bin_scales": [1, 1, 0.5, 1]}
    options = {"interaction": "cross", "domain_features": [0], "bags": bags, **bins}
    network = SingleTask(NetworkSpec([5, 6], 4, 4, [0.5, 0.01], **options))
    names, parameters = zip(*network.named_parameters(), strict=True)
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1)
    logits = network(*random_inputs(network, 50)).logits.sum(dim=0)
    is_rare = depends_on(logits, 1, parameters)
    assert is_rare == [not each for each in depends_on(logits, 0, parameters)]
    params = {"embedding_lr": None, "embedding_weight_decay": None}
    settings = SimpleNamespace(optimizer="adam", optimizer_params=params)
    groups = dict(parameter_groups(settings, network.spec, 10**6, 1.0))
    criterion = MultiTaskCriterion(BCE(["a", "b"]), Uncertainty(2))
    kinds = parameter_kinds(network, criterion)
    for name, parameter, of_rare in zip(names, parameters, is_rare, strict=True):
        decay = groups[kinds[parameter]]["weight_decay"]
        expected = 5.0 if ".embeddings." in name else float("bias" not in name)
        assert decay == pytest.approx(expected * (0.2 if of_rare else 1)), name


def log_of_two_keys(n_rows, seed):
    """Return rows whose labels depend on a key of 50 values and on a number."""
    rng = np.random.default_rng(seed)
    effects = np.random.default_rng(7).normal(size=50)
    item = rng.integers(0, 50, n_rows)
    number = rng.normal(size=n_rows)
    click = rng.random(n_rows) < 1 / (1 + np.exp(1 - effects[item] - 0.7 * number))
    conversion = click & (rng.random(n_rows) < 0.3)
    X = pd.DataFrame({"item": pd.Categorical(item), "number": number})
    return X, pd.DataFrame({"click": click, "conversion": conversion}).astype(int)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_small_updates_do_not_diverge(optimizer):
    """Warnings, such as that of a divergence, are errors."""
    later_X, later_Y = log_of_two_keys(4_000, seed=1)
    rates = later_Y.to_numpy().mean(axis=0)
    constant = -(rates * np.log(rates) + (1 - rates) * np.log1p(-rates))
    for seed in range(3):
        X, Y = log_of_two_keys(4_000, seed=10 + seed)
        model = MultiTaskCTRCVRClassifier(
            optimizer=optimizer, target_encoding=False, random_state=seed
        )
        for rows in np.array_split(np.arange(4_000), 8):
            model.partial_fit(X.iloc[rows], Y.iloc[rows])
        p, y = model.predict_proba(later_X), later_Y.to_numpy()
        losses = -(y * np.log(p) + (1 - y) * np.log1p(-p)).mean(axis=0)
        assert (losses < 1.03 * constant).all(), losses / constant


@pytest.mark.parametrize("alpha", [0.9, 0.99])
def test_the_first_step_of_rmsprop_in_updates_is_as_long_as_that_of_adam(alpha):
    def first_rate(**params):
        model = MultiTaskCTRCVRClassifier(lr=1e-4, random_state=0, **params)
        model.partial_fit(X, Y)
        return model.history_[-1]["lr"]

    share = 3.0  # of the full rate
    assert first_rate(optimizer="adam") == pytest.approx(share * 1e-4)
    # lr * g / sqrt((1 - alpha) * g**2) is the length of the step.
    rate = first_rate(optimizer="rmsprop", optimizer_params={"alpha": alpha})
    assert rate / np.sqrt(1 - alpha) == pytest.approx(share * 1e-4)


def test_the_parameter_takes_the_names_of_the_optimizers():
    assert set(OPTIMIZERS) == OPTIMIZER_NAMES
