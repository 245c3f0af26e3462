"""Entries of `optimizer_params` that are not arguments of the optimiser."""

from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
import torch

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._training._optimizers import parameter_groups
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.networks import BagSpec, NetworkSpec, SingleTask
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
        assert decays[id(table)] == pytest.approx(0.5 * share)
        weight = net.towers[task].output.linear.weight
        assert decays[id(weight)] == pytest.approx(0.1 * share)
        assert decays[id(net.towers[task].output.linear.bias)] == 0


def test_the_values_of_the_estimator_are_the_defaults_of_the_embeddings(impressions):
    plain = fitted(impressions)
    same = fitted(
        impressions,
        optimizer_params={
            "embedding_lr": plain.lr,
            "embedding_weight_decay": 5 * plain.weight_decay,
        },
    )
    expected = plain.predict_proba(impressions.data)
    assert (same.predict_proba(impressions.data) == expected).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer_params": {"embedding_lr": 0.0}}, "embedding_lr"),
        ({"optimizer_params": {"embedding_weight_decay": -1.0}}, "embedding_weight"),
        (
            {
                "optimizer": torch.optim.Rprop,
                "optimizer_params": {"embedding_weight_decay": 0.1},
            },
            "has no weight decay",
        ),
    ],
)
def test_bad_values_are_refused(impressions, params, message):
    with pytest.raises(ValueError, match=message):
        fitted(impressions, **params)


def test_an_optimizer_with_any_keyword_arguments(impressions):
    class Own(torch.optim.Adam):
        def __init__(self, params, **kwargs):
            super().__init__(params, **kwargs)

    model = fitted(impressions, optimizer=Own, optimizer_params={"betas": (0.5, 0.9)})
    betas = {group["betas"] for group in model.net_.optimizer_.param_groups}
    assert betas == {(0.5, 0.9)}


def test_all_parameters_of_a_rare_task_have_less_decay():
    bags = [BagSpec(7, True), BagSpec(8, True, column=1, attends=True)]
    bins = {"numeric_bins": [0, 3, 20, 30], "bin_scales": [1, 1, 0.5, 1]}
    options = {"interaction": "cross", "domain_features": [0], "bags": bags, **bins}
    network = SingleTask(NetworkSpec([5, 6], 4, 4, [0.5, 0.01], **options))
    names, parameters = zip(*network.named_parameters(), strict=True)
    for parameter in parameters:
        torch.nn.init.normal_(parameter, std=0.1)
    logits = network(*network._random_inputs(50)).logits.sum(dim=0)
    is_rare = depends_on(logits, 1, parameters)
    assert is_rare == [not each for each in depends_on(logits, 0, parameters)]
    params = {"embedding_lr": None, "embedding_weight_decay": None}
    settings = SimpleNamespace(weight_decay=1.0, optimizer_params=params)
    groups = parameter_groups(settings, network)
    for name, of_rare in zip(names, is_rare, strict=True):
        found = [group for pattern, group in groups if fnmatch(name, pattern)]
        decay = found[0]["weight_decay"] if found else settings.weight_decay
        expected = 5.0 if ".embeddings." in name else float("bias" not in name)
        assert decay == pytest.approx(expected * (0.2 if of_rare else 1)), name
