import os
import random

import hypothesis
import numpy as np
import pytest
import torch

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
