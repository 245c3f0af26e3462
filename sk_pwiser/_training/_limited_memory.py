"""A network of a file takes memory in proportion to the file's weights."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# How many elements a network may have: so many times those of its weights, since it is
# also built for a toy table, and so many beside them.
N_TIMES = 4
N_BESIDE = 1_000_000
# The elements as which a tensor counts beside its own, for the objects of its layer.
N_PER_TENSOR = 100

# What the layers of torch make their weights with.
FACTORIES = {
    torch.empty,
    torch.full,
    torch.ones,
    torch.rand,
    torch.randn,
    torch.zeros,
}


class LimitedMemory(TorchFunctionMode):
    """Refuses tensors beyond a number of elements, before they take memory.

    A file of some kilobytes may name any width of a layer, and any number of layers.

    Parameters
    ----------
    weights : dict of str to array
        The weights that a network must have.
    """

    def __init__(self, weights: Mapping[str, Any]) -> None:
        super().__init__()
        n_weights = sum(math.prod(weight.shape) for weight in weights.values())
        self.largest = N_TIMES * n_weights + N_BESIDE
        self.n_elements = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES:
            size = kwargs.get("size", args[0] if args else ())
            if isinstance(size, int):
                size = [width for width in args if isinstance(width, int)]
            self.n_elements += N_PER_TENSOR + math.prod(size)
            if self.n_elements > self.largest:
                raise ValueError(
                    "its weights do not fit its parameters, which are those of a "
                    f"larger network: a layer has the size {tuple(size)}"
                )
        return func(*args, **kwargs)
