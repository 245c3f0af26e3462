"""Rows as codes and numeric inputs, the same as those of a table."""

import numpy as np

from sk_pwiser._table import UNSEEN
from sk_pwiser.export._fields import CategoryField, make_fields


class RowEncoder:
    """Encode fields of rows as the schema of a fit encodes the columns of a table.

    Parameters
    ----------
    schema : Schema
        The encoding of a fitted estimator, which stays unchanged.
    """

    def __init__(self, schema):
        self.fields = make_fields(schema.encoder)
        self._cardinalities = np.array(schema.encoder.cardinalities_, dtype=np.int64)
        self._statistics = []
        if schema.statistics is not None:
            columns, tables = schema.statistics.columns, schema.statistics.tables_
            self._statistics = [
                (column, table.copy())
                for column, table in zip(columns, tables, strict=True)
            ]

    def encode(self, columns, n_rows):
        """Encode the values of each field.

        Parameters
        ----------
        columns : list of (list or ndarray)
            Values of each field, in the order of the fields.
        n_rows : int
            Number of rows.

        Returns
        -------
        codes : int64 ndarray of shape (n_rows, n_category_columns)
        numeric : float32 ndarray of shape (n_rows, n_numeric)
        """
        codes, numeric = [], []
        for field, values in zip(self.fields, columns, strict=True):
            if isinstance(field, CategoryField):
                codes.append(field.encode(values))
            else:
                numeric += field.encode(values)
        codes = np.array(codes, dtype=np.int64).reshape(-1, n_rows).T
        numeric = np.array(numeric, dtype=np.float32).reshape(-1, n_rows).T
        if self._statistics:
            inputs = [table[codes[:, column]] for column, table in self._statistics]
            numeric = np.hstack([numeric, *inputs])
        # Rare values have statistics of their own, but no embedding.
        codes = np.where(codes < self._cardinalities, codes, UNSEEN)
        return codes, np.ascontiguousarray(numeric)
