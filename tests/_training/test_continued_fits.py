"""What two fits of a few epochs have in common with one of all of them."""

import numpy as np
import pytest
from checkpointed import history
from numpy.testing import assert_array_equal
from refusals import X, Y, small

from sk_pwiser.weighting import WEIGHTINGS

# The average of the weights replaces the weights of the last step.
EXACT = {"early_stopping": False, "optimizer_params": {"average_decay": 0}}


def in_parts(n_epochs, **params):
    model = small(warm_start=True, **params)
    for n in n_epochs:
        model.set_params(max_epochs=n).fit(X, Y)
    return model


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"network_params": {"dropout": 0.5}, "stratified_batches": True},
        {"target_encoding": True, "encoding_params": {"category_dropout": 0.3}},
        {"optimizer_params": {"average_decay": None, "lazy_embeddings": True}},
        {"network": "mmoe", "network_params": None, "loss": "jrc"},
        {"weighting": "gradnorm", "loss": "combined_pair"},
        *(
            {
                "weighting": name,
                "weighting_params": {"weights": [1, 2]} if name == "fixed" else None,
            }
            for name in WEIGHTINGS
            if name != "torchjd"
        ),
    ],
    ids=str,
)
def test_two_fits_equal_one_longer_fit(params):
    params = {**EXACT, **params}
    parts, whole = in_parts([2, 2], **params), in_parts([4], **params)
    assert_array_equal(history(parts), history(whole))
    assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))


def test_updates_equal_epochs_of_a_fit():
    updated = small(**EXACT)
    for _ in range(3):
        updated.partial_fit(X, Y)
    fitted = small(**EXACT, max_epochs=3).fit(X, Y)
    assert_array_equal(updated.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize(
    "params",
    [
        {"early_stopping": False},  # with the average of the weights
        {**EXACT, "early_stopping": True, "lr": 0.1, "n_iter_no_change": 9},
    ],
)
def test_what_ends_a_fit_makes_two_fits_differ(params):
    """The second fit starts from the average, or from the best epoch's weights."""
    parts, whole = in_parts([3, 3], **params), in_parts([6], **params)
    assert not np.array_equal(parts.predict_proba(X), whole.predict_proba(X))
    # The orders of the rows, and so the first epochs, are the same all the same.
    assert_array_equal(history(parts)[:3], history(whole)[:3])
