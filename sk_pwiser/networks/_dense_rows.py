"""The dense inputs of many rows, of which the columns of one input are permuted."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser.networks._bags import Bags
from sk_pwiser.networks._input import InputLayer
from sk_pwiser.networks._layers import StackedLinear

# Rows of one step, whose hidden layers stay in the cache of a core.
STEP = 2048
# Largest number of outputs of a linear map, of all rows, that are kept.
LARGEST_OUTPUT = 2**27


class GivenInput(nn.Module):
    """Takes the place of an input layer, and returns the output for given columns."""

    def __init__(self, layer: InputLayer) -> None:
        super().__init__()
        self._layer = (layer,)  # not as a part of this module
        self.columns: list[Tensor] = []

    def forward(self, codes: Tensor, numeric: Tensor) -> Tensor:
        """Return the output of the layer; the arguments are ignored."""
        return self._layer[0].combine(self.columns)


class DenseRows:
    """The dense inputs of many rows, and a copy of the network that reads them.

    The embeddings are looked up once. A permutation of one input replaces its columns,
    and with `in_parts` a linear map that reads all columns only computes the part of
    these. The network must read `batches` through its `input_layer` alone.
    """

    def __init__(
        self,
        network: Any,
        batches: Iterable[tuple[Tensor, Tensor, Bags | None]],
        in_parts: bool,
    ) -> None:
        layer: InputLayer = network.input_layer
        parts = []
        for codes, numeric, bags in batches:
            if bags is not None:
                numeric = layer.with_sums(codes, numeric, bags)
            parts.append(layer.columns(codes, numeric))
        self._tables = [torch.cat(table) for table in zip(*parts, strict=True)]
        self._owners = layer.owners(network.spec)
        self._given = GivenInput(layer)
        # The layer, which may be large, is replaced and not copied.
        self._network = copy.deepcopy(network, {id(layer): self._given}).eval()
        self._is_exact = False
        self._choose(())
        if in_parts and len(self._tables) == 1:
            for module in self._network.modules():
                if isinstance(module, nn.Linear | StackedLinear):
                    self._compute_in_parts(module)

    def outputs(self, inputs: Sequence[int], order: Tensor) -> Iterator[Any]:
        """Yield the output for consecutive rows, with `inputs` as in the rows `order`.

        Inputs are counted as in `InputLayer.owners`. The first call must have none.
        """
        if inputs != self._inputs:
            _put(self._tables, self._columns, self._values)
            self._choose(inputs)
        for start in range(0, len(order), STEP):
            self._rows = slice(start, start + STEP)
            self._new = [values[order[self._rows]] for values in self._values]
            self._given.columns = [table[self._rows] for table in self._tables]
            # The tables themselves are changed: a copy of all columns takes longer.
            _put(self._given.columns, self._columns, self._new)
            codes = order.new_zeros(len(self._new[0]), 0)
            yield self._network(codes, codes.float())

    def exact_output(self, rows: Tensor) -> Any:
        """Return the output for rows of the last permutation, rounded as usual."""
        self._given.columns = [table[rows] for table in self._tables]
        codes = rows.new_zeros(len(rows), 0)
        self._is_exact = True
        try:
            return self._network(codes, codes.float())
        finally:
            self._is_exact = False

    def _choose(self, inputs: Sequence[int]) -> None:
        """Set the columns of some inputs, as slices, and their values."""
        self._inputs: Sequence[int] = inputs
        self._columns: list[slice] = []
        places = [place for place, owner in enumerate(self._owners) if owner in inputs]
        for place in places:
            if self._columns and self._columns[-1].stop == place:
                self._columns[-1] = slice(self._columns[-1].start, place + 1)
            else:
                self._columns.append(slice(place, place + 1))
        self._values = [_take(table, self._columns) for table in self._tables]
        # By linear map: its output for the other columns, and the weights of these.
        self._parts: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def _compute_in_parts(self, module: nn.Linear | StackedLinear) -> None:
        """Let a linear map add the part of the chosen columns to that of the others.

        The latter is a difference, in double precision, so that rows with equal inputs
        have equal outputs.
        """
        forward, weight = module.forward, module.weight
        bias = None if module.bias is None else module.bias.flatten()
        if isinstance(module, StackedLinear):
            weight = weight.transpose(0, 1).flatten(1)
        else:
            weight = weight.t()
        n_rows, width = self._tables[0].shape
        if len(weight) != width or n_rows * weight.shape[1] > LARGEST_OUTPUT:
            return
        whole: list[Tensor] = []

        def of_rest() -> tuple[Tensor, Tensor]:
            part = _take(weight.t(), self._columns).t()
            own, outputs = part.double(), []
            for rest, values in zip(
                *map(_steps, (whole[0], self._values[0])), strict=True
            ):
                outputs.append(rest.addmm(values.double(), own, alpha=-1).float())
            return torch.cat(outputs), part

        def add_part(inputs: Tensor) -> Any:
            if self._is_exact or inputs is not self._given.columns[0]:
                return forward(inputs)
            if not whole:
                if self._columns:  # the table has permuted values already
                    return forward(inputs)
                double = weight.double()
                parts = [part.double() @ double for part in _steps(self._tables[0])]
                product = torch.cat(parts)
                whole.append(product if bias is None else product.add_(bias))
            if module not in self._parts:
                self._parts[module] = of_rest()
            rest, part = self._parts[module]
            outputs = torch.addmm(rest[self._rows], self._new[0], part)
            if not isinstance(module, StackedLinear):
                return outputs
            return outputs.view(len(inputs), *module.bias.shape[::2]).transpose(0, 1)

        module.forward = add_part  # type: ignore[method-assign]


def _steps(table: Tensor) -> list[Tensor]:
    """Return the rows of a table, `STEP` at a time."""
    return [table[start : start + STEP] for start in range(0, len(table), STEP)]


def _take(table: Tensor, columns: list[slice]) -> Tensor:
    """Return a copy of some columns."""
    parts = [table[:, each] for each in columns]
    return torch.cat(parts, dim=1) if parts else table[:, :0]


def _put(tables: list[Tensor], columns: list[slice], values: list[Tensor]) -> None:
    """Write values to some columns of each table."""
    sizes = [each.stop - each.start for each in columns]
    for table, own in zip(tables, values, strict=True):
        for each, part in zip(columns, own.split_with_sizes(sizes, dim=1), strict=True):
            table[:, each] = part
