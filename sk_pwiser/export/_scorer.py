"""Probabilities of single rows and small batches, without tables."""

import copy
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sk_pwiser._table import (
    UNSEEN,
    CategoryColumn,
    Elements,
    ListColumn,
    ListWeights,
    TargetStatistics,
    combine_bags,
    first_known,
    is_missing,
    read_lists,
    to_float,
)
from sk_pwiser.export._network import (
    check_exportable,
    fitted_result,
    probability_network,
    shifts_of,
)

# For more rows than this, a vectorised call is faster than a loop.
FEW_ROWS = 8

LARGEST = np.finfo(np.float64).max.item()


def make_fields(encoder):
    """Return the field of each column of a fitted `TableEncoder`."""
    check_exportable(encoder)
    kinds = {CategoryColumn: CategoryField, ListColumn: ListField, ListWeights: Field}
    return [
        next((f for c, f in kinds.items() if isinstance(column, c)), NumericField)(
            column
        )
        for column in encoder.columns_
    ]


class Field:
    """A field that another one reads: numbers of the elements of lists."""

    has_lists = True

    def __init__(self, column):
        self.name = column.name


class ListField(Field):
    """Encodes the lists of categories of a column."""

    def __init__(self, column):
        super().__init__(column)
        self.column = column

    def encode(self, values, categories):
        """Return the bags of this field; `values` has the columns of all fields.

        `categories` has the fields of category columns by name.
        """
        column, items = self.column, self.column.items_
        if column.shared_name is not None:
            items = categories[column.shared_name].column
        numbers = [
            None if name is None else as_column(values[name])
            for name in (column.weights_name, column.ages_name)
        ]
        lists = read_lists(as_column(values[self.name]), self.name)
        return column.transform(lists, items, *numbers)


class CategoryField:
    """Encodes the values of a category column by lookup, in a copy of the column."""

    has_lists = False

    def __init__(self, column):
        self.name = column.name
        self.column = copy.copy(column)
        self.column.place = None  # messages begin with the row
        self.column.codes_ = dict(column.codes_)
        is_hashed = column.vocabulary.n_hash_buckets is not None
        # Unknown values of these types are unseen values, without a further check.
        self._unseen_types = set()
        if not is_hashed:
            self._unseen_types |= {str} if "text" in column.kinds_ else set()
            self._unseen_types |= {int, bool} if "numbers" in column.kinds_ else set()

    def encode(self, values):
        """Return the codes of a list or array of values; rare values keep their own."""
        find = self.column.codes_.get
        if isinstance(values, np.ndarray):
            values = values.tolist()  # Python numbers, as in fit
        try:
            codes = [find(value) for value in values]
        except TypeError:
            row = next(r for r, value in enumerate(values) if not _has_hash(value))
            raise TypeError(
                f"Row {row}, field {self.name!r}: {values[row]!r} cannot be a category."
            ) from None
        if None in codes:
            codes = [
                self._other_code(value, row) if code is None else code
                for row, (value, code) in enumerate(zip(values, codes, strict=True))
            ]
        return codes

    def _other_code(self, value, row):
        """Return the code of a value that is not in the vocabulary."""
        if is_missing(value):
            return self.column.missing_code_
        if type(value) in self._unseen_types:
            return UNSEEN
        try:
            return int(self.column.transform(as_column([value])).take(0))
        except (TypeError, ValueError) as error:
            raise type(error)(f"Row {row}, field {self.name!r}: {error}") from error


class NumericField:
    """Encodes a numeric column by interpolation between the nodes of its encoding."""

    has_lists = False

    def __init__(self, column):
        self.name = column.name
        self.has_missing = column.has_missing_
        self._fill_value = float(column.fill_value_)
        nodes, inputs = column.nodes
        self._nodes, self._inputs = nodes.tolist(), inputs.tolist()
        self._slopes = (np.diff(inputs) / np.diff(nodes)).tolist()

    def encode(self, values):
        """Return the inputs, and an indicator of missing values if fit had any."""
        numbers = self._read(values)
        if len(numbers) <= FEW_ROWS:
            numbers = numbers.tolist() if isinstance(numbers, np.ndarray) else numbers
            inputs = [self._input(number) for number in numbers]
            missing = [math.isnan(number) for number in numbers]
        else:
            numbers = np.asarray(numbers, dtype=np.float64)
            missing = np.isnan(numbers)
            inputs = np.interp(numbers, self._nodes, self._inputs)
            inputs[missing] = self._fill_value
        return [inputs, missing] if self.has_missing else [inputs]

    def _input(self, number):
        nodes, inputs = self._nodes, self._inputs
        if number != number:
            return self._fill_value
        place = bisect_right(nodes, number) - 1
        if place < 0:
            return inputs[0]
        if place >= len(self._slopes):
            return inputs[-1]
        return inputs[place] + self._slopes[place] * (number - nodes[place])

    def _read(self, values):
        """Return the values as numbers, with NaN for missing values."""
        if not isinstance(values, np.ndarray):
            numbers = [math.nan if value is None else value for value in values]
            if all(map(_is_plain_number, numbers)):
                return numbers
        try:
            numbers = to_float(as_column(values))
        except (TypeError, ValueError, OverflowError):
            self._find_fault(values)
            raise
        if np.isinf(numbers).any():
            self._find_fault(values)
        return numbers

    def _find_fault(self, values):
        """Raise an error that names the first row without a finite number."""
        for row, value in enumerate(values):
            where = f"Row {row}, field {self.name!r}:"
            try:
                number = to_float(as_column([value]))[0]
            except TypeError as error:
                raise TypeError(f"{where} not a number: {error}.") from error
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{where} not a number: {error}.") from error
            if np.isinf(number):
                raise ValueError(f"{where} the number must be finite; got {value!r}.")


def as_column(values):
    """Return a list of values as an array of objects; arrays are returned unchanged."""
    if isinstance(values, np.ndarray):
        return values
    return np.fromiter(values, dtype=object, count=len(values))


def _is_plain_number(value):
    """Return whether a value is a number, not infinite, that needs no conversion."""
    is_number = isinstance(value, (float, int))
    return is_number and (-LARGEST <= value <= LARGEST or value != value)


def _has_hash(value):
    try:
        hash(value)
    except TypeError:
        return False
    return True


class RowEncoder:
    """Encodes the fields of rows like the columns of a table."""

    def __init__(self, schema):
        self.fields = make_fields(schema.encoder)
        self._bag_sizes = [n for n, *_ in schema.encoder.bags_]
        self._cardinalities = np.array(schema.encoder.cardinalities_, dtype=np.int64)
        self._statistics, given = None, schema.statistics
        if given is not None:  # without the counts, which updates change
            self._statistics = TargetStatistics(
                given.columns, given.cardinalities, given.lists
            )
            self._statistics.n_tasks_ = given.n_tasks_
            self._statistics.tables_ = [table.copy() for table in given.tables_]

    def encode(self, columns, n_rows):
        """Return int64 codes, float32 numbers, each (n_rows, n_columns), and bags.

        Bags, of lists, are None if there are no lists.
        """
        codes, numeric, lists, categories = [], [], [], {}
        for field, values in zip(self.fields, columns, strict=True):
            if isinstance(field, CategoryField):
                codes.append(field.encode(values))
                categories[field.name] = field
            elif isinstance(field, ListField):
                lists.append(field)
            elif isinstance(field, NumericField):
                numeric += field.encode(values)
        codes = np.array(codes, dtype=np.int64).reshape(-1, n_rows).T
        numeric = np.array(numeric, dtype=np.float32).reshape(-1, n_rows).T
        bags, elements = None, []
        if lists:
            names = [field.name for field in self.fields]
            values = dict(zip(names, columns, strict=True))
            parts = [field.encode(values, categories) for field in lists]
            elements = [
                Elements.of_bags(part, field.column.shared_name)
                for part, field in zip(parts, lists, strict=True)
            ]
            bags = combine_bags(parts, self._bag_sizes)
        if self._statistics is not None:
            rates = self._statistics.transform(codes, elements)
            numeric = np.hstack([numeric, rates])
        # Rare values have target statistics, but no embedding.
        codes = np.where(codes < self._cardinalities, codes, UNSEEN)
        return codes, np.ascontiguousarray(numeric), bags


class Scorer:
    """Predicts probabilities of rows that are dictionaries, for servers.

    A scorer looks up category values in dictionaries and calls the network directly,
    which is much faster than `predict_proba` on a DataFrame with one row. It is a copy:
    later fits of the estimator do not change it. It can be pickled, and contains
    neither training data nor the optimiser. Only load pickles from a trusted source.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier or FunnelCalibrator
        The fitted estimator, or the fitted calibrator of one.

    Attributes
    ----------
    field_names : list of str or int
        Names of the fields that each row must contain: the names of the columns in
        `fit`, or their indices if they had no names.
    task_names : list of str
        Names of the tasks.

    Raises
    ------
    TypeError
        If `estimator` is neither a :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` nor a
        :class:`~sk_pwiser.calibration.FunnelCalibrator` of one.
    ValueError
        If `fit` saw a sparse table or a column of arrays of numbers, which is named.

    Notes
    -----
    The scorer computes on the CPU in float32. Its predictions differ from those of an
    estimator on another device by rounding errors, and more from an estimator with
    `precision="bfloat16"`.

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
        self._shifts = shifts_of(estimator)
        if self._shifts is not None:
            # `by` is an index, or a name that the encoder knows, too.
            by = estimator.by
            names = self.field_names
            self._by = names.index(by) if by in names else by

    def __call__(self, rows):
        """Return the predictions of `predict_proba`."""
        return self.predict_proba(rows)

    def predict_proba(self, rows):
        """Predict probabilities over impressions.

        Parameters
        ----------
        rows : dict or list of dict
            One of the following:

            - one row, as a dictionary from field names to values;
            - a list of such dictionaries;
            - columns, as a dictionary from field names to lists or 1-D arrays of equal
              length. The value of a list column is then a list of lists.

            Missing values are None or NaN. Other fields are ignored. Each row is
            checked separately: a value of a different kind than in `fit`, such as text
            instead of a number, is an error even if all other rows are valid.

        Returns
        -------
        float32 ndarray of shape (n_rows, n_tasks)
            Column k is P(Y_k = 1 | impression). For a single task with 1-D `y`, the
            shape is `(n_rows, 2)`, as in `predict_proba`.

        Raises
        ------
        ValueError, TypeError
            If a field is missing or a value cannot be encoded. The message names the
            row, counted from 0, and the field.
        """
        columns, n_rows = self._read(rows)
        if n_rows == 0:
            raise ValueError("rows must contain at least one row; got none.")
        codes, numeric, bags = self._encoder.encode(columns, n_rows)
        inputs = [codes, numeric]
        if self._shifts is not None:
            inputs.append(self._find_shifts(columns[self._by]))
        if bags is not None:
            inputs += bags._replace(indices=bags.indices.astype(np.int64))
        with torch.inference_mode():
            tensors = [None if a is None else torch.from_numpy(a) for a in inputs]
            return self._network(*tensors).numpy()

    def _find_shifts(self, values):
        """Return the shifts of the log-odds of the rows, (n_rows, n_tasks)."""
        common = np.zeros(len(self.task_names))
        keys = values.tolist() if isinstance(values, np.ndarray) else values
        return np.array(
            [
                common if is_missing(key) else self._shifts.get(key, common)
                for key in keys
            ]
        )

    def _read(self, rows):
        """Return the values of each field, and the number of rows."""
        if not isinstance(rows, Mapping):
            return self._read_list(rows)
        if any(_is_column_of(rows.get(f.name), f) for f in self._encoder.fields):
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
        """Raise an error that names the first incomplete row."""
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise TypeError(
                    f"Row {index} must be a dictionary; got {type(row).__name__}."
                )
            absent = [name for name in self.field_names if name not in row]
            if absent:
                raise ValueError(
                    f"Row {index} has no field {absent[0]!r}; pass None for a missing "
                    f"value. It lacks {len(absent)} of {len(self.field_names)} fields."
                )

    def _read_columns(self, rows):
        columns = []
        for name in self.field_names:
            if name not in rows:
                raise ValueError(f"rows has no field {name!r}.")
            if not _is_column(rows[name]):
                raise ValueError(
                    f"Field {name!r} must be a list or a 1-D array like the other "
                    f"fields; got {rows[name]!r}."
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
    """Return whether a value is a column: a list or a 1-D array."""
    return isinstance(value, list) or len(getattr(value, "shape", ())) == 1


def _is_column_of(value, field):
    """Return whether a value is the column of a field rather than a row's value."""
    if not _is_column(value) or not field.has_lists:
        return _is_column(value)
    return _is_column(first_known(value))  # a list of lists


def _as_values(column):
    """Return the values of a column as an array of numbers, or as a list."""
    if isinstance(column, list):
        return column
    array = np.asarray(column)
    # Not `tolist`, which returns some dates as integers.
    return array if array.dtype.kind in "biuf" else list(array)
