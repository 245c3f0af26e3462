"""A step of two processes is that of one process on the joined batch."""

import pytest
import torch.distributed
from two_processes import run_jointly

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Return what each of two processes wrote, by case."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    return run_jointly("two_workers", tmp_path_factory.mktemp("meeting"))


def test_all_losses_networks_and_weightings_are_compared(figures):
    assert len(figures[0]) > 30
    assert figures[0].keys() == figures[1].keys()


def test_the_loss_is_that_of_the_joined_batch(figures):
    for found in figures:
        assert {n: f["loss"] for n, f in found.items() if f["loss"] > 1e-12} == {}


def test_the_gradients_are_those_of_the_joined_batch(figures):
    for found in figures:
        wrong = {n: f["gradients"] for n, f in found.items() if f["gradients"] > 1e-12}
        assert wrong == {}


def test_the_cases_differ(figures):
    """Pairs, weights and groups count: their losses differ from the plain one."""
    values = {name: f["value"] for name, f in figures[0].items()}
    names = ("loss bce", "loss pwiser", "funnel pairs", "loss jrc", "groups")
    weighted = ("row weights", "task weights", "weights of one worker")
    assert len({values[name] for name in (*names, *weighted)}) == 8
