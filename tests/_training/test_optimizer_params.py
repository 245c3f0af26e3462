"""Entries of `optimizer_params` that are not arguments of the optimiser."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._optimizers import parameter_groups, parameter_kinds
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
from sk_pwiser.weighting._gradient import depends_on


@pytest.fixture(scope="module")
def impressions():
    return make_ctr_cvr(300, ctr=0.4, cvr=0.4, random_state=0)


def fitted(impressions, **params):
    model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0, **params)
    return model.fit(impressions.data, impressions.target)


@pytest.mark.parametrize("network", ["shared_bottom", "stem"])
def test_embeddings_have_a_learning_rate_and_decay_of_their_own(impressions, network):
    model = fitted(
        impressions,
        network=network,
        optimizer_params={"embedding_lr": 0.1, "embedding_weight_decay": 0.5},
    )
    tables = {
        id(module.weight)
        for module in model.net_.module_.modules()
        if isinstance(module, torch.nn.Embedding)
    }
    groups = model.net_.optimizer_.param_groups
    of_tables = {
        (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
        if id(parameter) in tables
    }
    of_others = {
        group["lr"]
        for group in groups
        for parameter in group["params"]
        if id(parameter) not in tables
    }
    assert of_tables == {(0.1, 0.5)}
    assert of_others == {model.lr}


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


def test_the_names_of_ones_own_modules_do_not_matter(impressions):
    model = fitted(
        impressions,
        network=Own,
        weighting="uncertainty",
        weight_decay=0.01,
        optimizer_params={"embedding_lr": 0.1, "embedding_weight_decay": 0.5},
    )
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
    model = fitted(data, network="single_task", weight_decay=0.1)
    net = model.net_.module_
    decays = {
        id(parameter): group["weight_decay"]
        for group in model.net_.optimizer_.param_groups
        for parameter in group["params"]
    }
    for task, rate in enumerate(net.spec.base_rates):
        share = min(1, rate / 0.05)
        table = net.input_layer.embeddings[task].weight
        n_codes, n_rows = sum(net.spec.cardinalities), sum(model._result.n_rows)
        ratio = 20 * np.sqrt(25 / (n_rows * len(net.spec.cardinalities) / n_codes))
        assert decays[id(table)] == pytest.approx(0.1 * ratio * share, rel=0.1)
        weight = net.towers[task].output.linear.weight
        assert decays[id(weight)] == pytest.approx(0.1 * share)
        assert decays[id(net.towers[task].output.linear.bias)] == 0


def test_the_values_of_the_estimator_are_the_defaults_of_the_embeddings(impressions):
    plain = fitted(impressions)
    groups = plain.net_.optimizer_.param_groups
    decay = max(group["weight_decay"] for group in groups)
    same = fitted(
        impressions,
        optimizer_params={
            "embedding_lr": plain.lr,
            "embedding_weight_decay": decay,
        },
    )
    expected = plain.predict_proba(impressions.data)
    assert (same.predict_proba(impressions.data) == expected).all()


def test_an_optimizer_with_any_keyword_arguments(impressions):
    class Own(torch.optim.Adam):
        def __init__(self, params, **kwargs):
            super().__init__(params, **kwargs)

    model = fitted(impressions, optimizer=Own, optimizer_params={"betas": (0.5, 0.9)})
    betas = {group["betas"] for group in model.net_.optimizer_.param_groups}
    assert betas == {(0.5, 0.9)}


@pytest.mark.parametrize(
    ("cardinalities", "bags", "n_rows", "ratio"),
    [
        ([150, 50], [], 2_500, 20),  # 25 rows per value
        ([150, 50], [], 1, 20),
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
    settings = SimpleNamespace(weight_decay=0.1, optimizer_params=params)
    groups = dict(parameter_groups(settings, spec, n_rows))
    assert groups["table"]["weight_decay"] == pytest.approx(0.1 * ratio)
    params["embedding_weight_decay"] = 0.3
    groups = dict(parameter_groups(settings, spec, n_rows))
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
    settings = SimpleNamespace(weight_decay=1.0, optimizer_params=params)
    groups = dict(parameter_groups(settings, network.spec, 10**6))
    kinds = parameter_kinds(network, BCE(["a", "b"]), Uncertainty(2))
    for name, parameter, of_rare in zip(names, parameters, is_rare, strict=True):
        decay = groups[kinds[parameter]]["weight_decay"]
        expected = 5.0 if ".embeddings." in name else float("bias" not in name)
        assert decay == pytest.approx(expected * (0.2 if of_rare else 1)), name
