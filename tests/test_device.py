"""The device of the test run, which an environment variable chooses."""

import pytest
import torch
from devices import VARIABLE, requested_device
from small_model import X, Y, small


def test_requested_device():
    assert requested_device({}) == torch.device("cpu")
    assert requested_device({VARIABLE: ""}) == torch.device("cpu")
    assert requested_device({VARIABLE: "cpu:0"}) == torch.device("cpu:0")
    # A device without values cannot run the tests.
    for name in ("meta", "gpu"):
        with pytest.raises(pytest.UsageError, match=f"{VARIABLE}='{name}' cannot"):
            requested_device({VARIABLE: name})


def test_estimators_run_on_the_device_of_the_fixture(device):
    model = small(max_epochs=1).fit(X, Y)
    found = {p.device.type for p in model.net_.module_.parameters()}
    assert found == {device.type}
    assert model.predict_proba(X).shape == (len(X), 2)


@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_the_package_prefers_cuda_for_auto(kind, monkeypatch):
    from sk_pwiser._training import _device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: kind == "cuda")
    if hasattr(torch, "accelerator"):
        monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert _device.find_device.__wrapped__("auto") == torch.device(kind)
