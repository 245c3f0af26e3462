"""A step of two processes is that of one process on the joined batch."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed

PROGRAM = Path(__file__).parents[1] / "two_workers.py"


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """Return what each of two processes wrote, by case."""
    if not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    folder = tmp_path_factory.mktemp("meeting")
    programs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(PROGRAM), str(rank), str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [program.communicate(timeout=300)[1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0], errors
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_all_losses_networks_and_weightings_are_compared(figures):
    assert len(figures[0]) > 35
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
