"""Embedding tables that grow in place, for the new category values of an update."""

from contextlib import ExitStack
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._embedding_tables import TABLES
from sk_pwiser._training._growth import Growth
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._schema import Schema
from sk_pwiser._training._undo import Undo


def grow_tables(net: MultiTaskNet, schema: Schema, growth: Growth, undo: Undo) -> None:
    """Add rows to a net's embedding tables in place, for new category values.

    New rows have no state in the optimiser.
    """
    layer = net.module_.input_layer
    spec = net.module_.spec
    encoder = schema.encoder
    bag_tables = () if layer.bags is None else layer.bags.tables
    earlier_tables = []
    grown_tables = []
    for origin, tables in zip(growth, (layer.tables, bag_tables), strict=True):
        rows, is_new = (torch.from_numpy(array).to(net.device) for array in origin)
        for table in tables:
            weight = table.detach()
            state = net.optimizer_.state.get(table, {})
            earlier_tables.append((weight, dict(state)))
            grown_state = {
                key: _grow_state(value, len(weight), rows, is_new)
                for key, value in state.items()
            }
            grown_tables.append((weight[rows], grown_state))
    n_vectors = [bag.n_vectors for bag in spec.bags]
    undo.append(
        partial(_set_tables, net, list(spec.cardinalities), n_vectors, earlier_tables)
    )
    n_vectors = [n for n, *_ in encoder.bags_]
    _set_tables(net, encoder.cardinalities_, n_vectors, grown_tables)
    # The vectors of ids are those of other codes.
    undo.append(partial(net.module_.set_vectors, list(spec.vectors)))
    net.module_.set_vectors(schema.vectors())


@torch.no_grad()
def check_own_tables(net: MultiTaskNet, rows: TrainingRows, n_before: int) -> None:
    """Raise if a network reads codes through tables of its own, which do not grow.

    It runs on one of the rows, with the largest code of every column. A table with the
    earlier number of codes, `n_before`, would mix up the columns even within its rows.
    """
    network: Any = net.module_
    own_modules = set(network.input_layer.modules())

    def check(path: str, module: Any, args: Any, kwargs: Any) -> None:
        indices: Any = [*args, *kwargs.values()][0]
        n_rows = module.num_embeddings
        if n_rows == n_before or int(indices.max()) >= n_rows:
            raise IndexError(f"{path} has {n_rows} rows")

    inputs, _ = next(iter(net.get_iterator(rows.spaced(1))))
    largest = torch.tensor(network.spec.cardinalities, device=net.device) - 1
    inputs["codes"] = largest.expand(inputs["codes"].shape)
    net._set_training(False)
    with ExitStack() as hooks:
        for path, module in network.named_modules():
            if isinstance(module, TABLES) and module not in own_modules:
                hook: Any = partial(check, path)
                hooks.enter_context(
                    module.register_forward_pre_hook(hook, with_kwargs=True)
                )
        try:
            net.infer(inputs)
        except IndexError as error:
            raise ValueError(
                "grow_vocabulary must be False in encoding_params: a part of the "
                f"network does not grow with the vocabularies ({error}). Let "
                f"{type(network).__name__} read codes by input_layer: its tables grow."
            ) from error


def _set_tables(
    net: MultiTaskNet,
    cardinalities: list[int],
    n_vectors: list[int],
    tables: list[tuple[Tensor, dict[str, Any]]],
) -> None:
    """Set the weights of embedding tables, and their states in the optimiser."""
    layer = net.module_.input_layer
    net.module_.set_tables(cardinalities, [weight for weight, _ in tables], n_vectors)
    tables_of_net = list(layer.tables)
    if layer.bags is not None:
        tables_of_net += layer.bags.tables
    for table, (_, state) in zip(tables_of_net, tables, strict=True):
        if state:
            net.optimizer_.state[table] = state


def _grow_state(value: Any, n_rows: int, rows: Tensor, is_new: Tensor) -> Any:
    """Add rows to the optimiser's state of a table; copy values without rows."""
    if not isinstance(value, Tensor) or value.shape[:1] != (n_rows,):
        return deepcopy(value)  # the number of steps changes in place
    grown = value[rows]
    grown[is_new] = 0
    return grown
