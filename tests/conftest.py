import copy
import os
import random
import signal
import sys

import hypothesis
import joblib.parallel
import numpy as np
import pytest
import torch
from devices import VARIABLE, auto_device, requested_device
from numpy.testing import assert_array_equal
from simulated_device import NAME
from small_model import X, Y, small

# A slow machine is not a defect, and a failure in CI must be reproducible.
hypothesis.settings.register_profile(
    "sk_pwiser",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    max_examples=int(os.environ.get("SK_PWISER_EXAMPLES", "25")),
)
hypothesis.settings.load_profile("sk_pwiser")

# Sums over several threads differ from run to run in their last bits.
torch.set_num_threads(1)

# A call of joblib can wait forever if its idle workers stop at that moment, which they
# do after 300 seconds by default.
Processes = joblib.parallel.BACKENDS["loky"]
configure_processes = Processes.configure


def configure_with_patience(self, *args, **kwargs):
    kwargs["idle_worker_timeout"] = kwargs.get("idle_worker_timeout") or 7200
    return configure_processes(self, *args, **kwargs)


Processes.configure = configure_with_patience

DEVICE = requested_device(os.environ)


@pytest.fixture(scope="session")
def device():
    """The torch device of this run, from the variable SK_PWISER_TEST_DEVICE.

    The default is "cpu", also on machines with CUDA, so that results do not depend on
    the machine. `SK_PWISER_TEST_DEVICE=cuda python -m pytest` runs the suite on CUDA,
    and "sim" in place of "cuda" on a simulated accelerator:

    - All estimators with `device="auto"`, their default, train and predict on it.
    - A test that creates tensors or modules itself passes them `device`, or creates
      all of them there by ``@pytest.mark.usefixtures("tensors_on_device")``. It must
      then call `.cpu()` before `.numpy()`.
    """
    return DEVICE


@pytest.fixture
def accelerator(device):
    """The device, if it is not a CPU, which skips the test."""
    if device.type == "cpu":
        pytest.skip(f"needs an accelerator, which {VARIABLE} names")
    return device


@pytest.fixture
def simulated(device):
    """The simulated device, which counts; other devices skip the test."""
    if device.type != NAME:
        pytest.skip(f"needs {VARIABLE}={NAME}")
    return device


@pytest.fixture(scope="session", autouse=True)
def _interrupts():
    """Let tests raise interrupts, which a job in the background of a shell ignores."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _estimators_on_device():
    # Not through the fixture `device`, a name that tests may use for a parameter.
    with auto_device(DEVICE):
        yield


@pytest.fixture
def tensors_on_device(device):
    """Create the tensors and modules of a test on `device` if it names no other.

    Not for tests that fit an estimator, which must choose the device itself.
    """
    with device:
        yield


@pytest.fixture(autouse=True)
def _seeded_global_generators():
    # The package does not use them in training; tests that create tensors do.
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def trained_once(_estimators_on_device):
    model = small().fit(X, Y)
    return model, model.predict_proba(X)


@pytest.fixture
def earlier(trained_once):
    """A fitted estimator, which the test must leave unchanged."""
    first, predictions = trained_once
    model = copy.deepcopy(first)
    before = {name: value for name, value in vars(model).items() if name[-1] == "_"}
    yield model
    after = {name: value for name, value in vars(model).items() if name[-1] == "_"}
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert_array_equal(model.predict_proba(X), predictions)
    assert len(model.history_) == model.n_iter_ == 2


@pytest.fixture(autouse=True)
def _figures():
    """Close a test's figures: matplotlib warns of more than 20 open ones."""
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
