"""Batches that are copied ahead to a CUDA device."""

import pytest
import torch

from sk_pwiser._training import BatchIterator, Impressions
from sk_pwiser._training._devices import one_ahead


def test_an_item_is_yielded_once_the_next_one_was_started():
    events = []

    def start(item):
        events.append(f"start {item}")
        return item

    for item in one_ahead("abc", start):
        events.append(f"use {item}")
    assert events == [
        "start a",
        "start b",
        "use a",
        "start c",
        "use b",
        "use c",
    ]


@pytest.mark.parametrize("items", ["", "a"])
def test_few_items(items):
    assert list(one_ahead(items, str.upper)) == [item.upper() for item in items]


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
