"""Probabilities of single rows and small batches, without tables."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from os import PathLike
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from torch import nn

from sk_pwiser._columns import _frames
from sk_pwiser._columns._bags import Bags, combine_bags
from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser._columns._number import NUMBERS
from sk_pwiser._columns._row_fields import as_list, repeat
from sk_pwiser._training._schema import Schema, bag_inputs
from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.export import _calibrated_network
from sk_pwiser.export._delta import Delta
from sk_pwiser.export._onnx import OnnxNetwork, checked_model
from sk_pwiser.export._row_explainer import RowExplainer
from sk_pwiser.export._served_model import (
    ServedModel,
    fitted_result,
    from_plain,
    to_plain,
)
from sk_pwiser.inspection import RowExplanations

# Values of these types are not the values of a column.
SCALARS = NUMBERS | {str}


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

    def __init__(self, schema: Schema) -> None:
        encoder = schema.encoder
        _calibrated_network.check_exportable(encoder)
        columns = encoder.read_columns_
        self.fields = [column.row_field() for column in columns]
        self._fields_by_name = {field.name: field for field in self.fields}
        # Pairs of the index of a field and the field.
        forms: dict[str | None, list[tuple[int, Any]]] = {
            "codes": [],
            "numeric": [],
            "bags": [],
            None: [],  # fields that others read
        }
        for index, (column, field) in enumerate(zip(columns, self.fields, strict=True)):
            forms[column.network_input].append((index, field))
        self._code_fields = forms["codes"]
        # With the indices of the fields of each combination.
        names = [column.name for column in columns]
        self._combination_fields = [
            ([names.index(name) for name in column.name], column.row_field())
            for column in encoder.combinations_
        ]
        self._numeric_fields = forms["numeric"]
        self._bag_fields = [field for _, field in forms["bags"]]
        self._bag_sizes = [shape.n_vectors for shape in encoder.bags_]
        self._n_codes = np.array(encoder.n_network_codes_, dtype=np.int64)
        self._statistics: list[tuple[int, np.ndarray]] = []
        # Of list columns, with the index of the table.
        self._list_statistics: list[tuple[int, int, np.ndarray]] = []
        self._parent_rates = None
        statistics = schema.statistics
        if statistics is not None:
            self._parent_rates = deepcopy(statistics.parent_rates)
            tables = [table.copy() for table in statistics.tables_]
            self._statistics = list(zip(statistics.columns, tables, strict=False))
            self._list_statistics = [(i, j, tables[j]) for i, j in statistics.lists]

    def encode(
        self, columns: Sequence[Any], n_rows: int
    ) -> tuple[np.ndarray, np.ndarray, Bags | None]:
        """Return codes, numeric inputs and bags; a field may have one value for all."""
        codes = [_encode(field, columns[index]) for index, field in self._code_fields]
        for indices, field in self._combination_fields:
            codes.append(_encode_cells(field, [columns[index] for index in indices]))
        numeric = []
        for index, field in self._numeric_fields:
            numeric += _encode(field, columns[index])
        rates: dict[int, np.ndarray] = {}  # by table, of the rows
        for j, (column, table) in enumerate(self._statistics):
            numeric += list(self._inputs(j, table[codes[column]], rates).T)
        bags = None
        if self._bag_fields:
            bag_columns = self._encode_bags(columns, n_rows)
            bags = combine_bags(bag_columns, self._bag_sizes)
            for index, j, table in self._list_statistics:
                list_rates = self._list_rates(index, bag_columns[index], j, table)
                numeric += list(list_rates[:, 0] if n_rows == 1 else list_rates)
        code_rows = as_rows(codes, n_rows, np.int64)
        # Rare values have target statistics, but no embedding.
        code_rows = np.where(code_rows < self._n_codes, code_rows, UNSEEN)
        return code_rows, as_rows(numeric, n_rows, np.float32), bags

    def _encode_bags(self, columns, n_rows):
        """Return the bags of each list field."""
        values = dict(zip(self._fields_by_name, columns, strict=True))
        return [
            field.encode_bag(values, self._fields_by_name, n_rows)
            for field in self._bag_fields
        ]

    def _inputs(self, j, values, rates):
        """Return the target statistics of rows from those of their values.

        They differ if values have parents, whose `rates` are those of the same rows.
        """
        if self._parent_rates is None or not self._parent_rates.has(j):
            return values
        inputs = self._parent_rates.inputs(j, np.atleast_2d(values), rates)
        # The value of a single row, or one for all rows.
        return inputs[0] if values.ndim == 1 and len(inputs) == 1 else inputs

    def _list_rates(self, index, bags, j, table):
        """Return the target statistics of lists, means over their elements."""
        column = self._bag_fields[index].column
        elements = column.elements_of(bags.indices, np.diff(bags.offsets))
        return elements.means(self._inputs(j, table[elements.codes], {})).T


def _encode(field, values):
    return field.encode_one(values[0]) if len(values) == 1 else field.encode(values)


def _encode_cells(field, columns):
    """Return the codes of a combination, one if all columns have a single value."""
    codes = field.encode(columns)
    return codes[0] if len(codes) == 1 else codes


class Scorer:
    """Predicts probabilities and values of rows that are dictionaries, for servers.

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
    explain : bool, default=False
        Whether the scorer has what `explain` needs: the encoded rows of `background`.
    background : {DataFrame, array-like} of shape (n_background, n_features), \
            default=None
        With `explain=True`, rows to compare with, such as a dozen of a day's rows, as
        in :func:`~sk_pwiser.inspection.explain_rows`. The time of `explain` is in
        proportion to their number. The scorer keeps them, encoded.

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
    value_names : list of str
        Names of the values of an estimator with `value_tasks`.

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

    def __init__(
        self,
        estimator: Any,
        *,
        runtime: str = "auto",
        explain: bool = False,
        background: Any = None,
    ) -> None:
        check_choice("runtime", runtime, ("auto", "onnx", "torch"))
        if explain != (background is not None):
            raise ValueError(
                "background must be given with explain=True, rows to compare with, and "
                f"only then; got explain={explain!r} and background of type "
                f"{type(background).__name__}."
            )
        network = fitted_result(estimator).net.module_
        served = ServedModel.of(estimator)
        self._serve(served, network, runtime=runtime, background=background)

    def _serve(
        self, served: ServedModel, network: nn.Module, *, runtime: str, background: Any
    ) -> None:
        """Set all attributes from a model and its network."""
        served = served.without_training()
        self._served = served
        self._encoder = RowEncoder(served.schema)
        self.field_names = [field.name for field in self._encoder.fields]
        self.task_names = list(served.task_names)
        self.value_names = list(served.value_names)
        self._market = _calibrated_network.market_of(served)
        self._network = _calibrated_network.ProbabilityNetwork(served, network)
        self._background = background
        self._explainer = None
        if background is not None:
            self._explainer = self._make_explainer(served, background)
        # Both classes of a single task with 1-D y.
        self._n_columns = served.n_columns
        self._requested = runtime
        self._model = None
        self._start()

    def apply(self, delta: Delta | str | PathLike[str]) -> Self:
        """Take over what a new model has learnt since the one that is served.

        The predictions are then those of a scorer of the new model, to the bit. They
        are those of the old one until the new one is complete, also in other threads;
        with ONNX, its graph is exported again, which takes seconds.

        Parameters
        ----------
        delta : Delta, str or path-like
            What :func:`delta` returned, or the file that :meth:`Delta.save` wrote.

        Returns
        -------
        Scorer
            This scorer.

        Raises
        ------
        ValueError
            If the delta belongs to another model than the one that is served, or is
            damaged. The scorer serves the same model as before.
        """
        if not isinstance(delta, Delta):
            delta = Delta.load(delta)
        served = vars(self).get("_served")
        if served is None:
            raise ValueError(
                "A scorer that an earlier version pickled takes no deltas: create it "
                "again from its model."
            )
        values, arrays = delta.applied_to(*to_plain(served, self._network.network))
        successor = object.__new__(type(self))
        successor._serve(
            *from_plain(values, arrays),
            runtime=self._requested,
            background=self._background,
        )
        # At once: other threads hold the earlier dictionary or read the new one.
        self.__dict__ = successor.__dict__
        return self

    def _as_of_now(self):
        """Return a scorer that no delta changes, for one prediction."""
        scorer = object.__new__(type(self))
        scorer.__dict__ = self.__dict__
        return scorer

    def _start(self):
        """Set the function that maps encoded inputs to probabilities."""
        runtime = self._requested
        self.runtime = "torch"
        self._run = self._network.predict
        self._run_heads = self._network.predict_heads
        if runtime == "torch":
            return
        try:
            if self._model is None:
                self._model, self._run = checked_model(self._network, "Scorer")
            else:  # of a pickle: an export would take seconds of the start of a server
                onnxruntime = import_extra("onnxruntime", "Scorer")
                self._run = OnnxNetwork(onnxruntime, self._model)
            self._run_heads = self._run.predict_heads
            self.runtime = "onnx"
        except Exception:  # exporter and runtime have many, for a user's own network
            if runtime == "onnx":
                raise

    def __getstate__(self):
        """Return the state without the session, which cannot be pickled."""
        sessions = ("_run", "_run_heads")
        return {key: value for key, value in vars(self).items() if key not in sessions}

    def __setstate__(self, state):
        # Earlier pickles have no values, and explain nothing.
        vars(self).update({"value_names": [], "_explainer": None} | state)
        self._start()

    def __call__(
        self, rows: Any, shared: Mapping[Any, Any] | None = None
    ) -> npt.NDArray[np.float32]:
        return self.predict_proba(rows, shared)

    def predict_proba(
        self, rows: Any, shared: Mapping[Any, Any] | None = None
    ) -> npt.NDArray[np.float32]:
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
        scorer = self._as_of_now()
        columns, n_rows = scorer._read(rows, shared)
        if n_rows == 0:  # a request without candidates
            return np.empty((0, scorer._n_columns), dtype=np.float32)
        return scorer._run(scorer._inputs(columns, n_rows))

    def predict_value(
        self,
        rows: Any,
        shared: Mapping[Any, Any] | None = None,
        *,
        given_event: bool = False,
    ) -> npt.NDArray[np.float64]:
        """Predict the mean amounts of the values.

        Parameters
        ----------
        rows : dict or list of dict
            As in `predict_proba`.
        shared : dict, default=None
            As in `predict_proba`.
        given_event : bool, default=False
            Whether to predict the mean amount given the event under which it arises,
            E[amount | event]. By default the mean per impression.

        Returns
        -------
        float64 ndarray of shape (n_rows, n_values) or (n_rows,)
            Mean amounts, in the unit of `Y`; 1-D for one value, as in `predict_value`
            of the estimator.

        Raises
        ------
        ValueError
            If the estimator was fitted without `value_tasks`.
        ValueError, TypeError
            If a field is missing or a value cannot be encoded, as in `predict_proba`.
        """
        scorer = self._as_of_now()
        if not scorer.value_names:
            raise ValueError(
                "predict_value needs an estimator that was fitted with value_tasks."
            )
        columns, n_rows = scorer._read(rows, shared)
        if n_rows == 0:
            values = np.empty((0, len(scorer.value_names)))
        else:
            name = _calibrated_network.VALUES
            if given_event:
                name = _calibrated_network.VALUES_GIVEN_EVENT
            values = scorer._run(scorer._inputs(columns, n_rows), name)
        return values[:, 0] if len(scorer.value_names) == 1 else values

    def explain(
        self,
        rows: Any,
        shared: Mapping[Any, Any] | None = None,
        *,
        tasks: Any = None,
        given_event: bool = False,
    ) -> tuple[npt.NDArray[np.float32], RowExplanations]:
        """Predict probabilities, and what each field contributes to them.

        Parameters
        ----------
        rows : dict or list of dict
            As in `predict_proba`.
        shared : dict, default=None
            As in `predict_proba`.
        tasks : int, str or list of these, default=None
            Tasks and values to explain, as in
            :func:`~sk_pwiser.inspection.explain_rows`.
        given_event : bool, default=False
            Whether values are explained given the event, as there.

        Returns
        -------
        probabilities : float32 ndarray of shape (n_rows, n_tasks)
            The result of `predict_proba`.
        explanations : RowExplanations
            The contributions, such as those of ``explanations.reasons(row=0)``. With
            more than eight columns, their permutations are the same in each call.

        Raises
        ------
        ValueError
            If the scorer was made without `explain=True`, or if there is no such task.
        ValueError, TypeError
            If a field is missing or a value cannot be encoded, as in `predict_proba`.
        """
        scorer = self._as_of_now()
        explainer = scorer._explainer
        if explainer is None:
            raise ValueError(
                "explain needs a scorer that was made with explain=True and background."
            )
        outputs = explainer.outputs(tasks, given_event)
        columns, n_rows = scorer._read(rows, shared)
        if n_rows == 0:
            no_probabilities = np.empty((0, scorer._n_columns), dtype=np.float32)
            return no_probabilities, explainer.of_no_rows(outputs)
        inputs = scorer._inputs(columns, n_rows)
        explanations = explainer.explain(
            inputs,
            scorer._explained_outputs,
            outputs=outputs,
            data=dict(zip(scorer.field_names, columns, strict=True)),
        )
        return scorer._run(inputs), explanations

    def _make_explainer(self, served, background):
        """Return what explains rows: it holds encoded rows of the background."""
        market = {}
        if self._market is not None:
            index, _ = self._market
            market = {"market": self.field_names[index], "shifts_of": self._shifts}
        return RowExplainer(served, background, **market)

    def _explained_outputs(self, inputs):
        """Return what is explained of the inputs of the network."""
        network = self._network
        heads = self._run_heads(inputs, network.head_names)
        return network.explained_outputs(heads, inputs.get("shifts"))

    def _inputs(self, columns, n_rows):
        """Return the inputs of the network by name."""
        codes, numeric, bags = self._encoder.encode(columns, n_rows)
        inputs = {"codes": codes, "numeric": numeric}
        if self._market is not None:
            index, _ = self._market
            shifts = self._shifts(as_list(columns[index]))
            inputs["shifts"] = np.array(repeat(list(shifts), n_rows))
        return inputs | bag_inputs(bags)

    def _shifts(self, markets):
        """Return the shifts of markets, (n_markets, n_tasks + n_values)."""
        _, shifts = self._market
        no_shift = np.zeros(len(self.task_names) + len(self.value_names))
        return np.array(
            [
                no_shift if _frames.is_missing(market) else shifts.get(market, no_shift)
                for market in markets
            ]
        )

    def _read(self, rows, shared):
        """Return the values of each field, or a shared one, and the number of rows."""
        if shared is not None and not isinstance(shared, Mapping):
            raise TypeError(
                "shared must be a dictionary of the fields that all rows share; got "
                f"{type(shared).__name__}."
            )
        shared = shared or {}
        if isinstance(rows, Mapping):
            fields = self._encoder.fields
            if not SCALARS.issuperset(map(type, rows.values())) and any(
                _is_column_of(rows.get(field.name), field) for field in fields
            ):
                return self._read_columns(rows, shared)
            rows = [{**shared, **rows}]
            shared = {}
        if not isinstance(rows, Sequence) or isinstance(rows, str | bytes):
            raise TypeError(
                f"rows must be a dict or a list of dicts; got {type(rows).__name__}."
            )
        names = self.field_names
        common = set()
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
            if repeated := sorted(common.intersection(row), key=str):
                raise ValueError(
                    f"Row {index} has the field {repeated[0]!r}, which row 0 takes "
                    "from shared; rows must not differ in their fields."
                )

    def _read_columns(self, rows, shared):
        columns = []
        lengths = {}
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
            if field.name in rows and not field.holds_lists
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
    if field.holds_lists and _is_column(value):
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
