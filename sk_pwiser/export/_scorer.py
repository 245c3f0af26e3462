"""Probabilities of single rows and small batches, without tables."""

import copy
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from sk_pwiser._columns import _category, _frames, _value_kinds
from sk_pwiser._columns._bags import combine_bags
from sk_pwiser._columns._list import Elements, ListColumn
from sk_pwiser._columns._list_weights import ListWeights
from sk_pwiser._training._schema import bag_inputs
from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.export import _calibrated_network
from sk_pwiser.export._onnx import OnnxNetwork, checked_model

# For more rows than this, a vectorised call is faster than a loop.
FEW_ROWS = 8

LARGEST = np.finfo(np.float64).max.item()
# Values of these types are numbers, or missing, and need no conversion.
NUMBERS = {bool, float, int, np.float64, type(None)}
# Values of these types are not the values of a column.
SCALARS = NUMBERS | {str}
# Elements of these types are of a kind of those in fit, without a further check.
TYPES_OF_KINDS = {"text": {str}, "numbers": {bool, int, float}}


def make_field(column):
    if isinstance(column, _category.CategoryColumn):
        return CategoryField(column)
    if isinstance(column, ListColumn):
        return ListField(column)
    return Field(column) if isinstance(column, ListWeights) else NumericField(column)


class Field:
    """A field that another one reads: numbers of the elements of lists."""

    def __init__(self, column):
        self.name = column.name
        self.column = column


class ListField(Field):
    """Encodes the lists of categories of a column."""

    def encode(self, values, categories, n_rows):
        """Return the bags, from the values and the category fields by name."""
        column, items = self.column, self.column.items_
        if column.shared_name is not None:
            items = categories[column.shared_name].column
        names = self.name, column.weights_name, column.ages_name
        used = [None if name is None else values[name] for name in names]
        n_read = max(len(each) for each in used if each is not None)
        lists, *numbers = (
            None if each is None else as_column(repeat(each, n_read)) for each in used
        )
        lists, items = _frames.read_lists(lists, self.name), column.named(items)
        self._check_kinds(lists, items)
        bags = column.encode(lists, items, items.transform(lists.elements), *numbers)
        if n_read == n_rows:
            return bags
        # The entries of one row, in all rows.
        entries = [None if a is None else np.tile(a, n_rows) for a in bags[1:]]
        return type(bags)(np.arange(n_rows + 1) * len(bags.indices), *entries)

    def _check_kinds(self, lists, items):
        """Raise if no element of a list is of a kind in fit, whatever other lists have.

        A table is checked as a whole, but a row of a request is checked by itself.
        """
        types = [TYPES_OF_KINDS.get(kind, ()) for kind in items.kinds_]
        if set(map(type, lists.elements)).issubset({type(None)}.union(*types)):
            return
        ends = np.maximum(lists.sizes, 0).cumsum().tolist()
        for row, (start, end) in enumerate(pairwise([0, *ends])):
            try:
                items.transform(lists.elements[start:end])
            except (TypeError, ValueError) as error:
                raise type(error)(f"Row {row}, field {self.name!r}: {error}") from error


class CategoryField:
    """Encodes the values of a category column by lookup, in a copy of the column.

    Categories may be integers above 2^53, or floats above it, but not both. A number of
    the other kind is refused, as in a table, even if it equals a category.
    """

    def __init__(self, column):
        self.name = column.name
        self.column = copy.copy(column)
        self.column.place = None  # messages begin with the row
        self.column.codes_ = dict(column.codes_)
        self._inexact = _value_kinds.inexact_classes(column.large)
        # Unknown values of these types are unseen values, without a further check.
        self._unseen_types = set()
        if column.vocabulary.n_hash_buckets is None:
            types = {"text": {str}, "numbers": {int, bool}}
            known = [types.get(kind, set()) for kind in column.kinds_]
            self._unseen_types.update(*known)

    def encode_one(self, value):
        try:
            code = None if self._inexact else self.column.codes_.get(value)
        except TypeError:
            code = None
        return self.encode([value])[0] if code is None else code

    def encode(self, values):
        """Return the codes of a list or array of values; rare values keep their own."""
        find, values = self.column.codes_.get, as_list(values)
        try:
            codes = [find(value) for value in values]
        except TypeError:  # of a value without a hash, which `transform` refuses
            codes = [None] * len(values)
        if None in codes or self._inexact:
            codes = [
                self._other_code(value, row)
                if code is None or isinstance(value, self._inexact)
                else code
                for row, (value, code) in enumerate(zip(values, codes, strict=True))
            ]
        return codes

    def _other_code(self, value, row):
        """Return the code of a value that is not in the vocabulary, or inexact."""
        if _frames.is_missing(value):
            return self.column.missing_code_
        if type(value) in self._unseen_types and not isinstance(value, self._inexact):
            return _category.UNSEEN
        # `transform` checks the kind of the value.
        try:
            return int(self.column.transform(as_column([value]))[0])
        except (TypeError, ValueError) as error:
            raise type(error)(f"Row {row}, field {self.name!r}: {error}") from error


class NumericField:
    """Encodes a numeric column by interpolation between the nodes of its encoding."""

    def __init__(self, column):
        self.name = column.name
        self.has_missing = column.has_missing_
        self._fill_value = float(column.fill_value_)
        nodes, inputs = column.nodes
        self._arrays = nodes, inputs
        self._nodes, self._inputs = nodes.tolist(), inputs.tolist()
        self._slopes = (np.diff(inputs) / np.diff(nodes)).tolist()

    def encode_one(self, value, row=0):
        """Return the input, and whether the value is missing if fit had any such."""
        if value is None:
            value = math.nan
        elif type(value) not in NUMBERS or not (
            -LARGEST <= value <= LARGEST or value != value
        ):
            value = self._read([value], row)[0].item()
        nodes, inputs = self._nodes, self._inputs
        if value != value:
            encoded = self._fill_value
        else:
            place = bisect_right(nodes, value) - 1
            if place < 0:
                encoded = inputs[0]
            elif place >= len(self._slopes):
                encoded = inputs[-1]
            else:
                encoded = inputs[place] + self._slopes[place] * (value - nodes[place])
        return (encoded, value != value) if self.has_missing else (encoded,)

    def encode(self, values):
        """Return the inputs, and an indicator of missing values if fit had any."""
        if len(values) <= FEW_ROWS:
            rows = [self.encode_one(value, row) for row, value in enumerate(values)]
            return zip(*rows, strict=True)
        numbers = self._read(values)
        missing = np.isnan(numbers)
        inputs = np.interp(numbers, *self._arrays)
        inputs[missing] = self._fill_value
        return [inputs, missing] if self.has_missing else [inputs]

    def _read(self, values, first_row=0):
        """Return the values as an array of numbers, with NaN for missing values."""
        try:
            if isinstance(values, list) and NUMBERS.issuperset(map(type, values)):
                numbers = np.array(values, dtype=np.float64)  # None becomes NaN
            else:
                numbers = _frames.to_float(as_column(values))
        except (TypeError, ValueError, OverflowError):
            self._find_fault(values, first_row)
            raise
        if np.isinf(numbers).any():
            self._find_fault(values, first_row)
        return numbers

    def _find_fault(self, values, first_row):
        """Raise an error that names the first row without a finite number."""
        for row, value in enumerate(values, start=first_row):
            where = f"Row {row}, field {self.name!r}:"
            (number,) = _frames.read_numbers(as_column([value]), f"{where} the value")
            if np.isinf(number):
                raise ValueError(f"{where} the number must be finite; got {value!r}.")


def as_column(values):
    """Return a list of values as an array of objects; arrays are returned unchanged."""
    if isinstance(values, np.ndarray):
        return values
    return np.fromiter(values, dtype=object, count=len(values))


def as_list(values):
    """Return an array as a list of Python numbers, as in `fit`; lists unchanged."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def repeat(values, n_rows):
    """Return the values of all rows; a list of one value holds for all of them."""
    return values * n_rows if len(values) == 1 < n_rows else values


def as_rows(columns, n_rows, dtype):
    """Return an array (n_rows, n_columns) of columns, which may be single values."""
    if n_rows == 1:
        return np.array([columns], dtype=dtype)
    rows = np.empty((n_rows, len(columns)), dtype=dtype)
    for place, column in enumerate(columns):
        rows[:, place] = column
    return rows


class RowEncoder:
    """Encodes the fields of rows like the columns of a table."""

    def __init__(self, schema):
        _calibrated_network.check_exportable(schema.encoder)
        self.fields = [make_field(column) for column in schema.encoder.read_columns_]
        self._bag_sizes = [n for n, *_ in schema.encoder.bags_]
        self._cardinalities = np.array(schema.encoder.cardinalities_, dtype=np.int64)
        self._statistics, self._list_statistics = [], []
        if schema.statistics is not None:
            given, tables = schema.statistics, schema.statistics.tables_
            tables = [table.copy() for table in tables]
            self._statistics = list(zip(given.columns, tables, strict=False))
            self._list_statistics = [(index, tables[j]) for index, j in given.lists]

    def encode(self, columns, n_rows):
        """Return codes, numeric inputs and bags; a field may have one value for all."""
        codes, numeric, lists, categories = [], [], [], {}
        for field, values in zip(self.fields, columns, strict=True):
            if isinstance(field, ListField):
                lists.append(field)
                continue
            if isinstance(field, Field):  # which a list reads
                continue
            is_one = len(values) == 1
            found = field.encode_one(values[0]) if is_one else field.encode(values)
            if isinstance(field, CategoryField):
                codes.append(found)
                categories[field.name] = field
            else:
                numeric += found
        for column, table in self._statistics:
            numeric += list(table[codes[column]].T)
        bags = None
        if lists:
            names = [field.name for field in self.fields]
            values = dict(zip(names, columns, strict=True))
            parts = [field.encode(values, categories, n_rows) for field in lists]
            bags = combine_bags(parts, self._bag_sizes)
            for index, table in self._list_statistics:
                part, shared_name = parts[index], lists[index].column.shared_name
                sizes = np.diff(part.offsets)
                elements = Elements.of_bags(part.indices, sizes, shared_name)
                rates = elements.means(table[elements.codes]).T
                numeric += list(rates[:, 0] if n_rows == 1 else rates)
        codes = as_rows(codes, n_rows, np.int64)
        # Rare values have target statistics, but no embedding.
        codes = np.where(codes < self._cardinalities, codes, _category.UNSEEN)
        return codes, as_rows(numeric, n_rows, np.float32), bags


class Scorer:
    """Predicts probabilities of rows that are dictionaries, for servers.

    A scorer looks up category values in dictionaries and runs the network in ONNX
    Runtime, which is much faster than `predict_proba` on a DataFrame with one row. It
    is a copy: later fits of the estimator do not change it. Threads can share it. It
    can be pickled, and contains neither training data nor the optimiser. Only load
    pickles from a trusted source.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier or FunnelCalibrator
        The fitted estimator, or the fitted calibrator of one.
    runtime : {"auto", "onnx", "torch"}, default="auto"
        What runs the network: ONNX Runtime, or PyTorch, which takes several times as
        long for few rows. "auto" is "onnx" if the extra `onnx` is installed and the
        network can be exported, which is checked with random rows, and "torch"
        otherwise. "auto" decides again when a pickle is loaded.

    Attributes
    ----------
    runtime : {"onnx", "torch"}
        What runs the network.
    field_names : list of str or int
        Names of the fields that each row must contain: the names of the columns in
        `fit`, or their indices if they had no names, without the `time_column` if it
        is no feature.
    task_names : list of str
        Names of the tasks.

    Raises
    ------
    TypeError
        If `estimator` is neither a :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` nor a
        :class:`~sk_pwiser.calibration.FunnelCalibrator` of one.
    ValueError
        If `fit` saw a sparse table or a column of arrays of numbers, which is named, if
        `runtime` is unknown, or if it is "onnx" and the network cannot be exported.
    ImportError
        If `runtime` is "onnx" and a package is missing, which is named.

    Notes
    -----
    The scorer runs the network on the CPU in float32. Its log-odds differ from those of
    the estimator by rounding errors, so that its probabilities do in proportion to
    their size, and more from those of an estimator with `precision="bfloat16"`. A steep
    calibration curve multiplies the differences.

    With ONNX, creating a scorer takes several seconds, nearly all of them for the
    exporter of PyTorch; with PyTorch, some milliseconds. Create it once, and pickle it:
    a scorer and its pickle contain the weights twice, in the network of PyTorch and in
    the graph of ONNX, so that a server that loads the pickle need not export the
    network again.

    ONNX Runtime computes on the thread that calls the scorer. PyTorch uses
    several threads: in a server with one worker per core, call
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

    Candidates of one user:

    >>> items = [{"category_0": value} for value in range(100)]
    >>> scorer(items, shared=row).shape
    (100, 2)
    """

    def __init__(self, estimator, *, runtime="auto"):
        schema = _calibrated_network.fitted_result(estimator).schema
        check_choice("runtime", runtime, ("auto", "onnx", "torch"))
        self._encoder = RowEncoder(schema)
        self.field_names = [field.name for field in self._encoder.fields]
        self.task_names = list(estimator.task_names_)
        self._market = _calibrated_network.market_of(estimator, schema.encoder)
        self._network = _calibrated_network.ProbabilityNetwork(estimator)
        # Both classes of a single task with 1-D y.
        self._n_columns = len(estimator.classes_)
        self._requested, self._model = runtime, None
        self._start()

    def _start(self):
        """Set the function that maps encoded inputs to probabilities."""
        runtime, self.runtime = self._requested, "torch"
        self._run = self._network.predict
        if runtime == "torch":
            return
        try:
            if self._model is None:
                self._model, self._run = checked_model(self._network, "Scorer")
            else:  # of a pickle: an export would take seconds of the start of a server
                onnxruntime = import_extra("onnxruntime", "Scorer")
                self._run = OnnxNetwork(onnxruntime, self._model)
            self.runtime = "onnx"
        except Exception:  # exporter and runtime have many, for a user's own network
            if runtime == "onnx":
                raise

    def __getstate__(self):
        """Return the state without the session, which cannot be pickled."""
        return {key: value for key, value in vars(self).items() if key != "_run"}

    def __setstate__(self, state):
        vars(self).update(state)
        self._start()

    def __call__(self, rows, shared=None):
        return self.predict_proba(rows, shared)

    def predict_proba(self, rows, shared=None):
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
        shared : dict, default=None
            One value for each field that the rows do not have, such as those of the
            user to whom all candidates are shown. The result is that of the rows
            ``{**shared, **row}``, but these values are encoded once. The rows must not
            differ in their fields.

        Returns
        -------
        float32 ndarray of shape (n_rows, n_tasks)
            Column k is P(Y_k = 1 | impression). For a single task with 1-D `y`, the
            shape is `(n_rows, 2)`, as in `predict_proba`. Without rows, such as for an
            empty list, the array is empty.

        Raises
        ------
        ValueError, TypeError
            If a field is missing or a value cannot be encoded. The message names the
            row, counted from 0, and the field.
        """
        if shared is not None and not isinstance(shared, Mapping):
            raise TypeError(
                "shared must be a dictionary of the fields that all rows share; got "
                f"{type(shared).__name__}."
            )
        columns, n_rows = self._read(rows, shared or {})
        if n_rows == 0:  # a request without candidates
            return np.empty((0, self._n_columns), dtype=np.float32)
        codes, numeric, bags = self._encoder.encode(columns, n_rows)
        inputs = {"codes": codes, "numeric": numeric}
        if self._market is not None:
            index, shifts = self._market
            keys, common = as_list(columns[index]), np.zeros(len(self.task_names))
            known = [
                common if _frames.is_missing(k) else shifts.get(k, common) for k in keys
            ]
            inputs["shifts"] = np.array(repeat(known, n_rows))
        return self._run(inputs | bag_inputs(bags))

    def _read(self, rows, shared):
        """Return the values of each field, or a shared one, and the number of rows."""
        if isinstance(rows, Mapping):
            fields = self._encoder.fields
            if not SCALARS.issuperset(map(type, rows.values())) and any(
                _is_column_of(rows.get(field.name), field) for field in fields
            ):
                return self._read_columns(rows, shared)
            rows, shared = [{**shared, **rows}], {}
        if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
            raise TypeError(
                f"rows must be a dict or a list of dicts; got {type(rows).__name__}."
            )
        names, common = self.field_names, set()
        try:
            if shared and rows:
                common = {n for n in names if n in shared and n not in rows[0]}
                names = [n for n in names if n not in common]
            columns = {name: [row[name] for row in rows] for name in names}
            if common and not all(map(common.isdisjoint, rows)):
                raise KeyError(common)
        except (KeyError, TypeError, IndexError):
            self._find_fault(rows, names, common)
            raise
        if len(names) < len(self.field_names):
            columns = {n: columns.get(n) or [shared[n]] for n in self.field_names}
        return [*columns.values()], len(rows)

    def _find_fault(self, rows, names, common):
        """Raise an error that names the first incomplete row, or one unlike row 0."""
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise TypeError(
                    f"Row {index} must be a dictionary; got {type(row).__name__}."
                )
            absent = [name for name in names if name not in row]
            if absent:
                raise ValueError(
                    f"Row {index} has no field {absent[0]!r}; pass None for a missing "
                    f"value. It lacks {len(absent)} of {len(names)} fields."
                )
            if own := sorted(common.intersection(row), key=str):
                raise ValueError(
                    f"Row {index} has the field {own[0]!r}, which row 0 takes from "
                    "shared; rows must not differ in their fields."
                )

    def _read_columns(self, rows, shared):
        columns, lengths = [], {}
        self._refuse_single_columns(rows)
        for name in self.field_names:
            if name not in rows and name in shared:
                columns.append([shared[name]])
                continue
            if not _is_column(rows.get(name)):
                raise ValueError(
                    f"Field {name!r} must be a list or a 1-D array like other fields, "
                    f"unless all are single values; got {rows.get(name)!r}."
                )
            columns.append(_as_values(rows[name]))
            lengths[name] = len(columns[-1])
        if len({*lengths.values()}) > 1:
            raise ValueError(f"Fields must have equally many values; got {lengths}.")
        return columns, lengths.popitem()[1]

    def _refuse_single_columns(self, rows):
        """Raise if fewer fields are columns than single values: it is one row."""
        are_columns = {
            field.name: _is_column(rows[field.name])
            for field in self._encoder.fields
            # The value of a list column is a list in a row, too.
            if field.name in rows and not isinstance(field, Field)
        }
        names = [name for name, is_column in are_columns.items() if is_column]
        if 0 < 2 * len(names) <= len(are_columns):
            raise ValueError(
                f"Field {names[0]!r} must be a single value like other fields, unless "
                f"all are lists or 1-D arrays; got {rows[names[0]]!r}."
            )


def _is_column(value):
    """Return whether a value is a column: a list or a 1-D array."""
    return isinstance(value, list) or len(getattr(value, "shape", ())) == 1


def _is_column_of(value, field):
    """Return whether a value is the column of a field rather than a row's value."""
    if isinstance(field, Field) and _is_column(value):
        value = _frames.first_known(value)  # of a list of lists
    return _is_column(value)


def _as_values(column):
    """Return the values of a column as an array of numbers, or as a list."""
    if isinstance(column, list):
        return column
    array = np.asarray(column)
    if array.dtype == "datetime64[D]":  # whose hashes differ from those of dates
        return array.tolist()
    # Not `tolist`, which returns some dates as integers.
    if array.dtype.kind not in "biuf":
        return list(array)
    return array if len(array) > 1 else array.tolist()
