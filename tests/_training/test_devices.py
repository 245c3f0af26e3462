"""Devices: copies to CUDA, its free memory, and what other devices support."""

from contextlib import nullcontext
from functools import cache

import pytest
import torch
from small_model import X, Y, small

from sk_pwiser._rows import _batches, _encoded_rows
from sk_pwiser._rows._batches import BatchIterator, copied_ahead
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._training import _optimizers
from sk_pwiser._training._result_files import from_state, to_state


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
    expected = [
        *("new stream", "copy 1", "copy 2", "copy 3", "copy 4"),
        *("wait for copies up to 2", "copy 5", "copy 6"),
        *("wait for copies up to 4", "wait for copies up to 6"),
    ]
    assert expected == LOG
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
    assert _encoded_rows._free_memory(torch.device("cuda")) == 4_000


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
    assert min([s["step"] for s in result.net.optimizer_.state.values()]) > 0
    model._result = result
    model.partial_fit(X, Y)


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
