"""How each column of a table would enter the network, for a look at data before."""

from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from sk_pwiser._columns._encoder import vector_counts
from sk_pwiser._columns._encoding_params import check_encoding_params
from sk_pwiser._fit import take_time_column
from sk_pwiser._fit._choose_combinations import ScannedRows, choose
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._labels import Targets
from sk_pwiser._tasks._weights import base_rates
from sk_pwiser._training._schema import (
    Schema,
    make_encoder,
    task_labels,
    unfitted_statistics,
)
from sk_pwiser.networks import numeric_widths


class ColumnInput(NamedTuple):
    """How a column enters the network of a fit, or why a fit refuses it."""

    kind: str
    encoding: str = ""
    vectors: int = 0  # number of embeddings of its values
    width: int = 0  # number of inputs of the first layer
    content: str | None = None  # "amounts" or "dates", if its categories are such text
    error: str = ""


def column_inputs(
    settings: Settings, X: Any, targets: Targets, estimator_name: str
) -> tuple[Any, dict[Any, ColumnInput]]:
    """Return a table as a fit reads it, and how each column would enter the network."""
    check_encoding_params(settings.encoding_params)
    # Of several columns of dates, each is refused by itself.
    with suppress(ValueError):
        settings = take_time_column(settings, X, warns=False)
    encoder = make_encoder(settings, estimator_name)
    errors: dict[Any, str] = {}
    X = encoder.fit(X, errors=errors).X
    encoder.columns_ = [
        column for column in encoder.columns_ if column.name not in errors
    ]
    shape = (X.shape[0], targets.values.shape[1])
    statistics = unfitted_statistics(settings, encoder, shape)
    rates = base_rates(targets.values, parents=targets.parents)
    schema = Schema.of(settings, encoder, targets, rates, statistics)
    spec = schema.spec(settings)
    names = encoder.names_
    if encoder.is_sparse_:
        sparse = ColumnInput(
            kind="sparse", encoding="embedding", vectors=1, width=spec.embedding_dim
        )
        return X, dict.fromkeys(names, sparse)
    widths_of_numbers = numeric_widths(spec)
    places = schema.places()
    n_vectors = vector_counts(encoder)
    input_of_column = {
        name: ColumnInput(kind="refused", error=text) for name, text in errors.items()
    }
    for column in encoder.columns_:
        codes, inputs, bags = places.get(column.name, ((), (), ()))
        encoding = column.encoding
        if inputs and (codes or bags):
            encoding += ", rates"
        width = sum(spec.widths[code] for code in codes)
        width += spec.embedding_dim * len(bags)
        width += sum(widths_of_numbers[i] for i in inputs)
        input_of_column[column.name] = ColumnInput(
            kind=column.kind,
            encoding=encoding,
            vectors=n_vectors.get(column.name, 0),
            width=width,
            content=column.content_,
        )
    return X, {name: input_of_column[name] for name in names}


def found_combinations(
    settings: Settings, X: Any, targets: Targets, times: Any, estimator_name: str
) -> list[tuple[tuple[Any, ...], float | None]]:
    """Return the names of the combinations of a fit, and what they gain.

    The gain is a share of the log loss, None if the user names the combination. Columns
    that a fit refuses are left out, and the times of rows order them if there are any.
    """
    with suppress(ValueError):
        settings = take_time_column(settings, X, warns=False)
    encoder = make_encoder(settings, estimator_name)
    errors: dict[Any, str] = {}
    encoded = encoder.fit(X, errors=errors)
    table = encoder.read(encoded.X)
    encoder.columns_ = [
        column for column in encoder.columns_ if column.name not in errors
    ]
    labels, weights = task_labels(settings, targets, None)
    if targets.missing is not None:
        weights = np.where(targets.missing, 0.0, weights)
    rows = ScannedRows(labels=labels, weights=weights, groups=None, times=times)
    combinations = choose(settings, encoder, table, encoded.columns, rows)
    return [(column.name, column.gain) for column in combinations]
