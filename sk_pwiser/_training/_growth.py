"""How embedding tables change with the vocabularies of an update."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser._columns._encoder import TableEncoder, add_vectors, grow_encoder
from sk_pwiser._columns._target_statistics import ExtendedStatistics
from sk_pwiser._settings import Settings
from sk_pwiser._training._schema import Schema


class Growth(NamedTuple):
    """The earlier row of each row of tables, and whether it is that of a new value.

    New rows are copies of the row of unseen values of their column. Lists that share a
    vocabulary have no such row, and no new one.
    """

    columns: tuple[np.ndarray, np.ndarray]  # embedding tables of category columns
    bags: tuple[np.ndarray, np.ndarray]  # vectors that lists do not share
    # Earlier numbers of codes of columns where new values have codes of forgotten ones.
    reused_sizes: frozenset[int] = frozenset()


def grow_schema(
    schema: Schema, X: Any, forget_after: int | None = None
) -> tuple[Schema, Growth | None]:
    """Return a schema with codes for the frequent new values, and how tables grow.

    The second result is None if there are no such values. With `forget_after`, they may
    have the codes, and so the rows of tables, of values that so many updates have not
    had.
    """
    earlier_encoder = schema.encoder
    encoder, origins, vectors = grow_encoder(earlier_encoder, X, forget_after)
    has_grown = _table_sizes(encoder) != _table_sizes(earlier_encoder)
    if forget_after is None and not has_grown:
        return schema, None
    if not has_grown and _are_unchanged([*origins, *vectors]):
        # The columns have recorded which values the rows have.
        return replace(schema, encoder=encoder), None
    statistics = schema.statistics
    if statistics is not None:
        statistics = ExtendedStatistics(
            statistics, origins, "new", adds=True, vectors=vectors
        )
    rows = [
        # A value that was rare has a code, but no embedding.
        np.where(origin[:n_new] < n_old, origin[:n_new], -1)
        for origin, n_old, n_new in zip(
            origins, earlier_encoder.cardinalities_, encoder.cardinalities_, strict=True
        )
    ]
    reused_sizes = [
        n_old
        for row, n_old in zip(rows, earlier_encoder.cardinalities_, strict=True)
        if (row[:n_old] < 0).any()
    ]
    n_bag_vectors = [column.n_vectors for column in earlier_encoder.bag_columns_]
    growth = Growth(
        columns=_in_one_table(rows, earlier_encoder.cardinalities_),
        bags=_in_one_table(vectors, n_bag_vectors),
        reused_sizes=frozenset(reused_sizes),
    )
    return replace(schema, encoder=encoder, statistics=statistics), growth


def _are_unchanged(origins: Sequence[np.ndarray]) -> bool:
    """Return whether all codes are those that they were before."""
    return all(np.array_equal(origin, np.arange(len(origin))) for origin in origins)


def add_vectors_to_schema(schema: Schema, tables: Mapping[Any, Any]) -> Schema:
    """Return a schema with further vectors of ids, by column, without embeddings."""
    encoder, origins, vectors = add_vectors(schema.encoder, tables)
    statistics = schema.statistics
    if statistics is not None:
        statistics = ExtendedStatistics(
            statistics, origins, "new", adds=True, vectors=vectors
        )
    return replace(schema, encoder=encoder, statistics=statistics)


def changed_vectors(settings: Settings, earlier_settings: Settings) -> dict[Any, Any]:
    """Return the tables of vectors that an earlier fit did not have, by column."""
    earlier_tables = earlier_settings.encoding_params["vectors"] or {}
    return {
        name: table
        for name, table in (settings.encoding_params["vectors"] or {}).items()
        if not table.is_in_file and table != earlier_tables.get(name)
    }


def _table_sizes(encoder: TableEncoder) -> list[int]:
    """Return the numbers of vectors of all columns."""
    columns = [*encoder.bag_columns_, *encoder.code_columns_]
    return [column.n_vectors for column in columns]


def _in_one_table(
    origins: Sequence[np.ndarray], sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Join rows of parts of a table, which had these sizes; -1 marks new rows."""
    pairs = zip(origins, np.cumsum([0, *sizes])[:-1], strict=True)
    rows = [first + np.where(origin < 0, UNSEEN, origin) for origin, first in pairs]
    is_new = [np.zeros(0, dtype=bool), *(origin < 0 for origin in origins)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *rows]), np.concatenate(is_new)
