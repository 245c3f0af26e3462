"""Devices: copies to CUDA, its free memory, and what other devices support."""

from contextlib import nullcontext
from functools import cache

import pytest
import torch
from refusals import X, Y, small
from torch.utils._python_dispatch import TorchDispatchMode

from sk_pwiser._training import _batches, _optimizers
from sk_pwiser._training._batches import BatchIterator, Impressions, copied_ahead
from sk_pwiser._training._state import from_state, to_state
from sk_pwiser.losses import JRC, PWiseR, _pairwise, _ranking


class Copied:
    """A tensor on the device; the log says when it is copied."""

    def __init__(self, tensor, device):
        self.tensor = tensor
        LOG.append(f"copy {tensor.item()}")

    def record_stream(self, stream):
        assert stream == "current"


class Stream:
    def __init__(self, device):
        LOG.append("new stream")


class Event:
    def record(self, stream):
        assert isinstance(stream, Stream)
        self.name = LOG[-1].replace("copy", "copies up to")


LOG: list[str] = []


def test_a_batch_waits_for_its_own_copy_alone(monkeypatch):
    class Current(str):
        def wait_event(self, event):
            LOG.append(f"wait for {event.name}")

    LOG.clear()
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Current("current"))
    monkeypatch.setattr(_batches, "_copy", Copied)
    monkeypatch.setattr(
        _batches, "_copy_stream", cache(_batches._copy_stream.__wrapped__)
    )
    batches = [({"x": torch.tensor(i)}, torch.tensor(i + 1)) for i in (1, 3, 5)]
    found = list(copied_ahead(batches, torch.device("cuda")))
    assert [y.tensor.item() for _, y in found] == [2, 4, 6]
    assert LOG == [
        "new stream",
        "copy 1",
        "copy 2",
        "copy 3",
        "copy 4",
        "wait for copies up to 2",
        "copy 5",
        "copy 6",
        "wait for copies up to 4",
        "wait for copies up to 6",
    ]
    list(copied_ahead(batches, torch.device("cuda")))
    assert LOG.count("new stream") == 1
    assert list(copied_ahead([], torch.device("cuda"))) == []


@pytest.mark.parametrize(("n_rows", "pins"), [(8, False), (9, True)])
def test_the_rows_of_a_single_batch_are_not_pinned(n_rows, pins, monkeypatch):
    copied = []
    monkeypatch.setattr(_batches, "copied_ahead", lambda *args: copied.append(1) or [])
    monkeypatch.setattr(_batches, "moved", lambda batch, copy: batch)
    rows = Impressions(torch.zeros(n_rows, 1), torch.zeros(n_rows, 1))
    batches = list(BatchIterator(rows, 8, device=torch.device("cuda")))
    assert bool(copied) is pins
    assert len(batches) == 1 - pins


def test_memory_in_the_cache_of_torch_is_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1_000, 9_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2_000)
    assert _batches._free_memory(torch.device("cuda")) == 4_000


@pytest.mark.parametrize("fuses", [False, True])
def test_a_loaded_optimizer_is_fused_where_this_machine_can(monkeypatch, fuses):
    monkeypatch.setattr(_optimizers, "can_fuse", lambda *args: not fuses)
    model = small().fit(X, Y)
    state = to_state(model._result)
    assert bool(state["optimizer"]["param_groups"][0]["fused"]) is not fuses
    monkeypatch.setattr(_optimizers, "can_fuse", lambda *args: fuses)
    result = from_state(state, model.get_params(deep=False))
    for group in result.net.optimizer_.param_groups:
        assert bool(group["fused"]) is fuses
    steps = [s["step"] for s in result.net.optimizer_.state.values()]
    assert min(steps) > 0
    model._result = result
    model.partial_fit(X, Y)


class NoFloat64(TorchDispatchMode):
    """Raises where a tensor of float64 is made, as on Apple's GPUs."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64:
            raise TypeError("the device has no float64")
        return result


@pytest.mark.parametrize("is_weighted", [False, True])
def test_losses_on_a_device_without_float64(monkeypatch, is_weighted):
    """Pairs are the exception: their scores are moved to the CPU."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 2, generator=generator)
    y = (torch.rand(40, 2, generator=generator) < 0.4).float().cummin(dim=1).values
    weight = torch.rand(40, generator=generator) if is_weighted else None
    groups = torch.arange(40) // 5
    names = ("click", "conversion")
    losses = [JRC(names), PWiseR(names)]
    expected = [loss(logits, y, weight, groups) for loss in losses]
    for module in (_ranking, _pairwise):
        monkeypatch.setattr(module, "widest_float", lambda device: torch.float32)
    monkeypatch.setattr(_pairwise, "selects_without_sync", lambda device: False)
    mean = _pairwise._mean

    def on_the_cpu(*args, **params):
        with torch.utils._python_dispatch._disable_current_modes():
            return mean(*args, **params)

    monkeypatch.setattr(_pairwise, "_mean", on_the_cpu)
    with NoFloat64():
        found = [loss(logits, y, weight, groups) for loss in losses]
    for value, known in zip(found, expected, strict=True):
        torch.testing.assert_close(value, known, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_rows_that_stay_on_the_host_give_the_same_batches():
    rows = Impressions(
        torch.arange(1_000).view(-1, 1), torch.rand(1_000, 3), torch.rand(1_000, 2)
    )
    device = torch.device("cuda")
    found = BatchIterator(rows, 64, device=device)
    on_device = Impressions(*(t.to(device) for t in (rows.codes, rows.numeric, rows.y)))
    expected = BatchIterator(on_device, 64)
    for (inputs, y), (same_inputs, same_y) in zip(found, expected, strict=True):
        assert y.device.type == "cuda"
        torch.testing.assert_close(inputs, same_inputs, rtol=0, atol=0)
        torch.testing.assert_close(y, same_y, rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_pinned_rows():
    rows = Impressions(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4, 2))
    pinned = rows.pinned()
    assert pinned.numeric.is_pinned()
    torch.testing.assert_close(pinned.codes, rows.codes)
