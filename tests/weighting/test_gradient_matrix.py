"""The gradients of several tasks as one matrix."""

import pytest
import torch

from sk_pwiser.weighting._gradient import (
    LARGE_TABLE,
    GradientMatrix,
    copy_overlapping,
    nonzero_rows,
)


def sparse_table(rows, width=3):
    table = torch.zeros(LARGE_TABLE, width)
    table[rows] = torch.randn(len(rows), width)
    return table


@pytest.mark.parametrize("skips_rows", [True, False])
def test_combined_gradients_come_back_in_the_shapes_of_the_parameters(skips_rows):
    small = [torch.randn(2, 4), None]
    large = [sparse_table([0, 7]), sparse_table([7, 4000])]
    matrix = GradientMatrix([small, large], skips_rows)
    first, second = matrix.matrices
    assert first.shape == (2, 8)
    assert second.shape == (2, 9 if skips_rows else 3 * LARGE_TABLE)
    weights = torch.tensor([2.0, 10.0])
    expected = [2 * small[0], 2 * large[0] + 10 * large[1]]
    found = matrix.restore([weights @ first, weights @ second], [small[0], large[0]])
    for gradient, values in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, values)


def test_skipped_rows_are_0_for_all_tasks():
    tables = [sparse_table([3, 9]), sparse_table([9, 4095])]
    assert nonzero_rows(tables).tolist() == [3, 9, 4095]


@pytest.mark.parametrize("shape", [(LARGE_TABLE - 1, 2), (LARGE_TABLE,)])
def test_all_rows_of_small_tables_are_kept(shape):
    assert nonzero_rows([torch.zeros(shape)] * 2) is None


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("offset", [0, 1])
def test_tables_of_any_width_and_offset_in_memory(width, offset):
    memory = torch.zeros(offset + width * LARGE_TABLE)
    table = memory[offset:].view(LARGE_TABLE, width)
    table[7, width - 1] = 1.0
    assert nonzero_rows([table, torch.zeros_like(table)]).tolist() == [7]


def test_overlapping_gradients_are_copied():
    whole = torch.ones(2, 3)
    expanded = torch.ones(1).expand(4)
    part = whole[:1]
    found = copy_overlapping([whole, whole, part, expanded])
    assert found[0] is whole
    for k, gradient in enumerate(found):
        gradient.fill_(k)
    assert [gradient.unique().tolist() for gradient in found] == [[0], [1], [2], [3]]
