"""How far apart the embeddings of frequent values start."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sk_pwiser.networks._layers import INITIAL_STD

if TYPE_CHECKING:
    from sk_pwiser._training._encoded_data import EncodedData
    from sk_pwiser.networks import MultiTaskNetwork

# A value with so many rows or less starts near 0, and departs only as far as these few
# rows require.
ROWS_OF_SMALLEST_START = 25

# Standard deviation of the initial embeddings of the most frequent values.
LARGEST_INITIAL_STD = 1.0

# Evenly spaced rows from which the rows of each value are estimated.
N_SAMPLED = 100_000


def spread_frequent_values(network: "MultiTaskNetwork", data: "EncodedData") -> None:
    """Let the embeddings of values with many rows start further apart.

    What the network learns of an embedding passes through the weights that read it,
    whose gradients are products with the embedding. Near 0 they are smaller than weight
    decay, and Adam scales both alike, so that the decay takes these weights to 0 before
    a combination of two columns, whose gradient is a product of both embeddings, has
    grown, however many rows have it. The initial standard deviation therefore grows
    with the root of the number of rows, as the certainty of a mean does.
    """
    input_layer = network.input_layer
    codes = data.train.spaced(N_SAMPLED).column("codes")
    if not len(codes):
        return
    rows_per_sampled_row = data.n_counted / len(codes)
    # Sums over lists add up many embeddings of their column.
    summed = {bag.column for bag in network.spec.bags}
    factors = torch.ones(sum(input_layer.cardinalities))
    starts = input_layer.offsets.tolist()
    for column, cardinality in enumerate(input_layer.cardinalities):
        if column not in summed:
            places = slice(starts[column], starts[column] + cardinality)
            counts = _counts(codes[:, column], cardinality)
            factors[places] = _start_factors(counts * rows_per_sampled_row)
    with torch.no_grad():
        for table in input_layer.tables:
            table.mul_(factors.to(table).unsqueeze(1))


def _counts(codes: Tensor, cardinality: int) -> Tensor:
    """Count the rows of each code; larger codes have a vector, but no embedding."""
    codes = codes[codes < cardinality].long().cpu()
    return torch.bincount(codes, minlength=cardinality).double()


def _start_factors(n_rows: Tensor) -> Tensor:
    """Return the initial standard deviation per number of rows, over the smallest."""
    factors = (n_rows / ROWS_OF_SMALLEST_START).sqrt()
    return factors.clamp(1.0, LARGEST_INITIAL_STD / INITIAL_STD).float()
