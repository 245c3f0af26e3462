"""Layers that belong to one task have parameter tensors of their own.

Weightings of gradients decide per tensor whether tasks share it.
"""

import itertools
import re
from fnmatch import fnmatch

import pytest
import torch
from rewrites import batch, dependencies, make

from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.networks._layers import StackedMLP

N_TASKS = 3

TOWERS = r"towers\.{}\..*"
EXPERTS = r"experts\.{}\..*"
GATES = r"gates\.{}\.(weight|bias)"
TABLES = r"input_layer\.embeddings\.{}\.weight"

# Patterns of the names of tensors that belong to task {} alone; tasks share all others.
OF_ONE_TASK = {
    "ctcl": [TOWERS],
    "fdn": [EXPERTS, TOWERS],
    "metaheac": [GATES, "critic_" + GATES, r"task_bias\.{}"],
    "mmoe": [GATES, TOWERS],
    "omoe": [TOWERS],
    "ple": [r"levels\.1\." + EXPERTS, r"levels\.\d\.task_" + GATES, TOWERS],
    "shared_bottom": [TOWERS],
    "single_task": [TABLES, TOWERS],
    "stem": [TABLES, EXPERTS, GATES, TOWERS],
}

# Networks in which a layer of a task reaches the logits of all later tasks.
CHAINS = ["aitm", "dcmt", "ddpo", "escm2", "esmm"]

# Beginnings of the names of tensors that only extra losses depend on.
FOR_TRAINING_ONLY = ("aux_heads", "transfer_nets")


def owner(name, parameter):
    """Return the task that a tensor belongs to, or None."""
    for task, pattern in itertools.product(range(N_TASKS), OF_ONE_TASK[name]):
        if re.fullmatch(pattern.replace("{}", str(task)), parameter):
            return task
    return None


@pytest.mark.parametrize("name", sorted(OF_ONE_TASK))
def test_a_task_depends_on_no_tensor_of_another_task(name):
    network = make(NETWORKS[name], N_TASKS)
    found = dependencies(network, *batch(200))
    for parameter, _ in network.named_parameters():
        if parameter.startswith(FOR_TRAINING_ONLY):
            continue
        tasks = [task for task in range(N_TASKS) if parameter in found[task]]
        task = owner(name, parameter)
        assert tasks == (list(range(N_TASKS)) if task is None else [task]), parameter


@pytest.mark.parametrize("name", CHAINS)
def test_a_task_of_a_chain_depends_on_no_tensor_of_a_later_task(name):
    found = dependencies(make(NETWORKS[name], N_TASKS), *batch(200))
    for task, masks in enumerate(found):
        heads = {int(n.split(".")[1]) for n in masks if n.startswith("towers")}
        bottoms = {int(n.split(".")[1]) for n in masks if n.startswith("bottoms")}
        so_far = set(range(task + 1))
        assert (heads, bottoms) == (
            ({task}, so_far) if name == "aitm" else (so_far, set())
        )


@pytest.fixture(params=sorted({*OF_ONE_TASK, *CHAINS}))
def name(request):
    return request.param


@pytest.mark.parametrize("task_space", ["entire", "conditional"])
@pytest.mark.parametrize(
    "interaction",
    [
        None,
        pytest.param("cross", marks=pytest.mark.slow),
        pytest.param("fm", marks=pytest.mark.slow),
    ],
)
def test_tasks_that_share_a_tensor_share_all_of_its_entries(
    name, interaction, task_space
):
    rates = [0.3, 0.1, 0.02]
    options = {"interaction": interaction, "task_space": task_space}
    network = NETWORKS[name](NetworkSpec([4, 6], 3, 5, rates, **options)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    for module in network.modules():
        if isinstance(module, StackedMLP):
            # A ReLU may be inactive for one task and active for another.
            module.activation = torch.nn.functional.softplus
    found = dependencies(network, *batch(200))
    for one, other in itertools.combinations(found, 2):
        for parameter in one.keys() & other.keys():
            assert torch.equal(one[parameter], other[parameter]), parameter


def test_every_network_is_tested_here():
    assert {*OF_ONE_TASK, *CHAINS} == NETWORKS.keys()


def test_biases_have_names_by_which_weight_decay_spares_them(name):
    network = make(NETWORKS[name], N_TASKS)
    names = [n for n, _ in network.named_parameters() if "bias" in n]
    assert names
    assert all(fnmatch(n, "*bias") or fnmatch(n, "*bias.*") for n in names)
