import copy
import os
import random

import hypothesis
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from refusals import X, Y, small

# A slow machine is not a defect, and a failure in CI must be one that repeats.
hypothesis.settings.register_profile("sk_pwiser", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "sk_pwiser")

# The sums of several threads differ from run to run in their last bits.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded_global_generators():
    # The package leaves these alone; tests that build bare layers or tensors do not.
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def trained_once():
    model = small().fit(X, Y)
    return model, model.predict_proba(X)


@pytest.fixture
def earlier(trained_once):
    """An earlier fit, which must come out of the test as it went in."""
    first, predictions = trained_once
    model = copy.deepcopy(first)
    before = {name: value for name, value in vars(model).items() if name[-1] == "_"}
    yield model
    after = {name: value for name, value in vars(model).items() if name[-1] == "_"}
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert_array_equal(model.predict_proba(X), predictions)
    assert len(model.history_) == model.n_iter_ == 2
