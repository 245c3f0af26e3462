"""Probabilities of single rows and small batches, without tables."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sk_pwiser.export._encoding import RowEncoder
from sk_pwiser.export._network import fitted_result, probability_network


class Scorer:
    """Probabilities of rows that are dictionaries, as a server receives them.

    A scorer looks category values up in dictionaries, and calls the network with no
    training loop around it, which is faster than a DataFrame with one row. It is a
    copy: later fits of the estimator do not change it. It can be pickled, and contains
    no training data and no optimiser. Like every pickle, its file must come from a
    trusted source.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        The fitted estimator.

    Attributes
    ----------
    field_names : list of str or int
        Names of the fields that each row must have: the columns of fit, or their
        indices if `fit` saw no names.
    task_names : list of str
        Names of the tasks.

    Raises
    ------
    TypeError
        If `estimator` is not a :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
    ValueError
        If a column is of another kind than categories and numbers, such as lists. The
        message names the column.
    NotFittedError
        If it is not fitted.

    Notes
    -----
    The scorer computes on the CPU in float32. It differs by rounding from an estimator
    on another device, and by more from one with `precision="bfloat16"`.

    PyTorch uses several threads. In a server with one worker per core, call
    ``torch.set_num_threads(1)``, so that the workers do not compete for the cores.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.export import Scorer
    >>> data = make_ctr_cvr(500, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    >>> scorer = Scorer(model.fit(data.data, data.target))
    >>> row = data.data.iloc[0].to_dict()
    >>> scorer(row).shape
    (1, 2)
    """

    def __init__(self, estimator):
        schema = fitted_result(estimator).schema
        self._encoder = RowEncoder(schema)
        self._network = probability_network(estimator)
        self.field_names = [field.name for field in self._encoder.fields]
        self.task_names = list(estimator.task_names_)

    def __call__(self, rows):
        """Return the same as `predict_proba`."""
        return self.predict_proba(rows)

    def predict_proba(self, rows):
        """Predict probabilities over impressions.

        Parameters
        ----------
        rows : dict or list of dict
            One of

            - a dictionary from the names of the fields to their values: one row;
            - a list of such dictionaries;
            - a dictionary from the names of the fields to lists or 1-D arrays of equal
              length.

            Missing values are None or NaN. Further fields are ignored. Each row is
            encoded on its own: a value of another kind than in `fit`, such as text
            instead of numbers, is an error also if other rows are valid.

        Returns
        -------
        float32 ndarray of shape (n_rows, n_tasks)
            Column k is P(Y_k = 1 | impression). For a single task with 1-D `y`, the
            `(n_rows, 2)` of `predict_proba`.

        Raises
        ------
        ValueError, TypeError
            If a field is missing or a value cannot be encoded. The message names the
            row, counted from 0, and the field.
        """
        columns, n_rows = self._read(rows)
        if n_rows == 0:
            raise ValueError("rows must contain at least one row; it is empty.")
        codes, numeric = self._encoder.encode(columns, n_rows)
        with torch.inference_mode():
            inputs = torch.from_numpy(codes), torch.from_numpy(numeric)
            return self._network(*inputs).numpy()

    def _read(self, rows):
        """Return the values of each field, and the number of rows."""
        if not isinstance(rows, Mapping):
            return self._read_list(rows)
        if any(_is_column(rows.get(name)) for name in self.field_names):
            return self._read_columns(rows)
        return self._read_list([rows])

    def _read_list(self, rows):
        is_list = isinstance(rows, Sequence) and not isinstance(rows, str | bytes)
        if not is_list:
            raise TypeError(
                "rows must be a dictionary or a list of dictionaries; got "
                f"{type(rows).__name__}."
            )
        try:
            columns = [[row[name] for row in rows] for name in self.field_names]
        except (KeyError, TypeError, IndexError):
            self._find_fault(rows)
            raise
        return columns, len(rows)

    def _find_fault(self, rows):
        """Raise an error that names the first row that is not complete."""
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise TypeError(
                    f"Row {index} must be a dictionary; got {type(row).__name__}."
                )
            absent = [name for name in self.field_names if name not in row]
            if absent:
                raise ValueError(
                    f"Row {index} has no field {absent[0]!r}; pass None for a missing "
                    f"value. {len(absent)} of {len(self.field_names)} fields are "
                    "absent."
                )

    def _read_columns(self, rows):
        columns = []
        for name in self.field_names:
            if name not in rows:
                raise ValueError(f"rows has no field {name!r}.")
            if not _is_column(rows[name]):
                raise ValueError(
                    f"Field {name!r} must be a list or a 1-D array, as other fields "
                    f"are; got {rows[name]!r}."
                )
            columns.append(_as_values(rows[name]))
        lengths = [len(column) for column in columns]
        for name, length in zip(self.field_names, lengths, strict=True):
            if length != lengths[0]:
                raise ValueError(
                    f"Field {name!r} has {length} values; {self.field_names[0]!r} has "
                    f"{lengths[0]}."
                )
        return columns, lengths[0]


def _is_column(value):
    """Return whether a value is a list or a 1-D array of the values of all rows."""
    return isinstance(value, list) or len(getattr(value, "shape", ())) == 1


def _as_values(column):
    """Return the values of a column as an array of numbers, or as a list."""
    if isinstance(column, list):
        return column
    array = np.asarray(column)
    # Dates must stay what they are: `tolist` returns some of them as integers.
    return array if array.dtype.kind in "biuf" else list(array)
