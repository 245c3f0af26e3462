"""Weights and moments that have decayed to almost 0 become 0, for speed."""

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._training._embedding_tables import sparse_tables
from sk_pwiser._training._weight_average import WeightAverage

# Weights without a gradient, and their moments in the optimiser, decay towards 0. With
# values below 1e-38 a CPU is much slower: late epochs took ten times as long as the
# first ones. Values below these limits, which change no result in float32, are
# therefore set to 0.
TINY_WEIGHT = 1e-20
TINY_MOMENT = 1e-30

# Steps between two flushes, in which the first moment of Adam shrinks by a factor of
# 1e-3 at most.
FLUSH_INTERVAL = 64


@torch.no_grad()
def flush_tiny_values(
    network: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
) -> None:
    """Set tiny weights, averages of weights and moments of an optimiser to 0."""
    # `LazyAdam` does so for the rows of a step.
    tables = set(sparse_tables(network))
    weights: list[Tensor] = [p for p in network.parameters() if p not in tables]
    states = (optimizer.state.get(p, {}).values() for p in weights)
    moments = [
        value
        for value in chain.from_iterable(states)
        if isinstance(value, Tensor) and value.dim()  # not the count of steps
    ]
    if average is not None:
        weights += average.groups[0].averages
    for tensors, tiny in ((weights, TINY_WEIGHT), (moments, TINY_MOMENT)):
        for tensor in tensors:
            if tensor.is_floating_point():
                tensor.copy_(F.hardshrink(tensor, tiny))
