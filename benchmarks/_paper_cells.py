"""Cells of the table of the paper: what is run, and the figures of one fit."""

import hashlib
import time
import warnings
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from _figures import funnel_figures
from _real_tables import ALIEXPRESS, GENERATED, KUAIRAND, load_tables

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.networks import NETWORKS

FIRST_BLOCK, SECOND_BLOCK = "embeddings", "target-encoding"
BLOCKS = (FIRST_BLOCK, SECOND_BLOCK)
LARGE = (*ALIEXPRESS, "ali-ccp")
DATA = (*KUAIRAND, "hillstrom", "oulad", *GENERATED, *LARGE)
THREE_NETWORKS = ("shared_bottom", "mmoe", "stem")
# Target encoding is for columns of many values, which the other data sets lack.
ENCODED = (*KUAIRAND, *LARGE)
WEIGHTS = ("0.1", "0.3", "1")
# They bound the time. The averaged weights make the validation loss smooth enough for
# a patience of one epoch.
MAX_EPOCHS, PATIENCE = 15, 1
KEY = ("block", "part", "data", "network", "loss", "weight", "seed")


class Cell(NamedTuple):
    """One fit: its place in the table, its loss and its seed.

    Parameters
    ----------
    block : {"embeddings", "target-encoding"}
        Whether the estimator uses target encoding.
    part : {"validation", "test"}
        The held-out rows.
    data, network, loss : str
        Their names.
    weight : str
        The value of `pwiser_weight`; "" for other losses.
    seed : int
        Seed of the estimator and of generated impressions.
    """

    block: str
    part: str
    data: str
    network: str
    loss: str
    weight: str
    seed: int


def default_weight():
    """Return the default of `pwiser_weight` as the text in the results."""
    value = MultiTaskCTRCVRClassifier().pwiser_weight
    return value if isinstance(value, str) else f"{value:g}"


def networks_of(block, data):
    """Return the names of the networks of a data set."""
    every = block == FIRST_BLOCK and data in KUAIRAND
    return tuple(NETWORKS) if every else THREE_NETWORKS


def tuning_cells(block, data, seeds):
    """Return the fits that choose the weight of a data set, on validation rows."""
    return [
        Cell(block, "validation", data, "shared_bottom", "pwiser", weight, seed)
        for seed in range(seeds)
        for weight in WEIGHTS
    ]


def test_cells(block, data, networks, weight, seeds):
    """Return the fits for the test rows: BCE, the chosen weight and the default."""
    losses = [("bce", "")]
    # The chosen weight may be the default, which is then fitted once.
    losses += [("pwiser", w) for w in dict.fromkeys([weight, default_weight()])]
    return [
        Cell(block, "test", data, network, loss, value, seed)
        for seed in range(seeds)
        for network in networks
        for loss, value in losses
    ]


def build(cell, max_epochs):
    """Return the estimator of a cell."""
    params = {"network": cell.network, "loss": cell.loss}
    params |= {"max_epochs": max_epochs, "n_iter_no_change": PATIENCE}
    if cell.weight:
        is_word = cell.weight.isalpha()
        params["pwiser_weight"] = cell.weight if is_word else float(cell.weight)
    # The encoding of numbers that was the default when the table was begun.
    params["numeric_encoding"] = "piecewise_linear"
    params["encoding_params"] = {"max_bins": 16}
    params["target_encoding"] = "auto" if cell.block == SECOND_BLOCK else False
    return MultiTaskCTRCVRClassifier(random_state=cell.seed, **params)


def settings_of(estimator):
    """Return a short hash of the parameters that all cells share."""
    names = ("network", "loss", "pwiser_weight", "target_encoding", "random_state")
    names += ("checkpoint_dir",)  # without influence on the result
    params = estimator.get_params(deep=False)
    shared = {key: value for key, value in params.items() if key not in names}
    return hashlib.sha256(repr(sorted(shared.items())).encode()).hexdigest()[:8]


# Cells of one data set follow each other, so that a process reads its files once.
@lru_cache(maxsize=2)
def _tables(name, path, part, seed):
    return load_tables(name, path, part, seed)


def run_cell(cell, path, max_epochs, threads=1):
    """Fit one cell and return its row of the results."""
    torch.set_num_threads(threads)
    seed_of_data = cell.seed if cell.data in GENERATED else 0
    tables = _tables(cell.data, path, cell.part, seed_of_data)
    estimator = build(cell, max_epochs)
    settings = settings_of(estimator)
    started = time.perf_counter()
    with warnings.catch_warnings():
        # Warnings on rare conversions and on the number of epochs.
        warnings.simplefilter("ignore")
        estimator.fit(tables.X, tables.Y)
    seconds = time.perf_counter() - started
    y = tables.probabilities if tables.probabilities is not None else tables.Y_test
    p = estimator.predict_proba(tables.X_test).astype(float)
    # As `predict_cvr`, which would encode the rows once more.
    cvr = np.minimum(p[:, -1] / p[:, 0], 1)
    figures = funnel_figures(y, p, cvr, tables.users)
    return {
        **cell._asdict(),
        "default_weight": default_weight(),
        "rows": len(tables.X),
        "rate": f"{tables.Y.iloc[:, -1].mean():.5f}",
        **{name: f"{value:.6f}" for name, value in figures.items()},
        "epochs": estimator.n_iter_,
        "seconds": f"{seconds:.1f}",
        "settings": settings,
    }
