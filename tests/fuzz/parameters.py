"""Strategies of the estimator's parameters: valid, or with one wrong value."""

from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._registry import NUMERIC_ENCODINGS
from sk_pwiser._settings import ENCODING_PARAMS, LOOP_PARAMS
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS

# Small networks, whose training takes milliseconds.
SMALL = {
    "max_epochs": 1,
    "batch_size": 8,
    "embedding_dim": 2,
    "random_state": 0,
    "network_params": {"tower_units": (3,)},
}

_TORCH = ["Adadelta", "Adamax", "NAdam", "RAdam", "Rprop", "ASGD", "Adafactor"]
OPTIMIZERS = [
    getattr(torch.optim, name) for name in _TORCH if hasattr(torch.optim, name)
]


def consistent(params):
    """Return parameters that forget values only if vocabularies grow."""
    if params.get("grow_vocabulary"):
        return params
    return {**params, "forget_after": None}


# Values that every table accepts.
VALID = {
    "network": st.sampled_from(sorted(NETWORKS)),
    "loss": st.sampled_from(sorted(LOSSES)),
    "pwiser_weight": st.floats(0, 1),
    "weighting": st.sampled_from(["equal", "uncertainty", "dwa", "nash", "ema"]),
    "numeric_encoding": st.sampled_from(sorted(NUMERIC_ENCODINGS)),
    "target_encoding": st.sampled_from(["auto", True, False]),
    "embedding_dim": st.sampled_from([1, 3, "auto", np.int64(2)]),
    "encoding_params": st.fixed_dictionaries(
        {},
        optional={
            "category_dropout": st.sampled_from([0, 0.5]),
            "min_frequency": st.integers(1, 3),
            "max_bins": st.integers(1, 20),
            "max_categories": st.sampled_from([None, 1, 2]),
            "n_hash_buckets": st.sampled_from([None, 1, 5]),
            "forget_after": st.sampled_from([None, 1, 3]),
            "grow_vocabulary": st.booleans(),
            "list_pooling": st.sampled_from(["mean", "sum", {}]),
            "target_encoding_blocks": st.integers(2, 4),
        },
    ).map(consistent),
    "negative_sampling_rate": st.floats(0.01, 1),
    "optimizer": st.sampled_from(["adam", "sgd", "adamw", "rmsprop", *OPTIMIZERS]),
    "optimizer_params": st.fixed_dictionaries(
        {},
        optional={
            "average_decay": st.sampled_from([0, None, 0.5]),
            "clip_grad_norm": st.sampled_from([None, 1.0]),
            "embedding_lr": st.sampled_from([None, 0.01]),
        },
    ),
    "lr": st.floats(1e-12, 1e-2),
    "batch_size": st.sampled_from([2, 7, 10**30]),
    "stratified_batches": st.booleans(),
    "early_stopping": st.sampled_from(["auto", False]),
    "precision": st.sampled_from(["float32", "bfloat16"]),
    "random_state": st.sampled_from([0, None, np.int64(3)]),
}


@st.composite
def valid_parameters(draw):
    """Draw a few parameters that must be accepted together."""
    names = draw(st.sets(st.sampled_from(sorted(VALID)), max_size=4))
    params = {**SMALL, **{name: draw(VALID[name]) for name in sorted(names)}}
    if params.get("network") not in (None, "shared_bottom", "mmoe", "ple"):
        params.pop("network_params")
    return params


class Odd:
    """An object of another class, with a short form in messages."""

    def __repr__(self):
        return "Odd()"


WRONG = [
    *(None, True, "text", "", -1, 0, 0.5, np.nan, np.inf, -np.inf, 1e300, 10**30),
    *(10**400, Fraction(1, 3), 1j, b"x", [], [1], ["text"], (), {}, {"a": 1}, {1: 2}),
    *(Odd(), Odd, int, len, pd.NA, np.float32(1), np.array([1, 2]), np.array(1.5)),
    *(torch.ones(2), torch.nn.Linear, torch.nn.Identity()),
]

# Not fuzzed: what prints, compiles, or trains for as many epochs as it says.
LEFT_OUT = {"verbose", "compile", "max_epochs", "warm_start"}
NAMES = sorted(MultiTaskCTRCVRClassifier().get_params().keys() - LEFT_OUT)

# Entries of the dictionaries.
ENTRIES = {
    "network_params": [
        *("bottom_units", "cross_rank", "domain_features", "dropout", "interaction"),
        *("monotonicity_weight", "n_cross_layers", "task_space", "tower_units"),
    ],
    "loss_params": ["margins", "score", "surrogate", "tasks"],
    "encoding_params": sorted(ENCODING_PARAMS),
    "optimizer_params": ["amsgrad", "betas", "eps", "foreach", *sorted(LOOP_PARAMS)],
}


@st.composite
def wrong_parameters(draw):
    """Draw parameters with one that may be wrong, and its name as the culprit."""
    wrong = draw(st.sampled_from(WRONG))
    if draw(st.booleans()):
        name = draw(st.sampled_from(NAMES))
        return {**SMALL, name: wrong}, rf"\b{name}\b|\b{name.removesuffix('_params')}\b"
    of = draw(st.sampled_from(sorted(ENTRIES)))
    entry = draw(st.sampled_from([*ENTRIES[of], "unknown"]))
    params = {**SMALL, of: {**SMALL.get(of, {}), entry: wrong}}
    return params, rf"\b{entry}\b|\b{of}\b"
