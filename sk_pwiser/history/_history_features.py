"""The transformer: features of a log's own past."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._set_output import _get_output_config
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._model_files import PlainForm, read_file, refusing, write_file
from sk_pwiser._times import Duration, check_kind, read_times
from sk_pwiser._utils._checks import check_boolean, check_choice
from sk_pwiser._utils._doc_links import DocLink
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser._version import __version__
from sk_pwiser.history._history_state import (
    HistoryState,
    Rows,
    ValueIndex,
    empty_state,
    read_columns,
    read_history_labels,
    refuse_labels,
)
from sk_pwiser.history._history_tables import ListOutput, Table
from sk_pwiser.history._key_log import Array, KeyLog, Past, Slices, unique_keys
from sk_pwiser.history._one_row import MemoryRow
from sk_pwiser.history._plan import Plan, check_params

# Number of rows that are computed at a time.
BLOCK = 2**15
FORM = PlainForm([KeyLog, Slices])
# Changes with the fields of files and of the records of stores.
NUMBER_OF_FORM = 6
# Form 5 is that of version 0.1.0, which has no `values`.
READABLE_FORMS = (5, 6)


class HistoryFeatures(DocLink, TransformerMixin, BaseEstimator):
    r"""Features of what users, items and pairs did before, without leaks.

    For each key of a row, such as its user, the past of the key becomes columns: the
    numbers of impressions and of events per task, as log(1 + n), log-odds of the rates,
    and the time since the last impression and event; over all the past, over windows
    and with exponential decay. Lists hold the last values of a column.

    A row sees what is strictly earlier than itself: impressions whose time plus
    `state_delay` is earlier, and labels of those whose time plus `state_delay` and
    `label_delay` is earlier. Rows of equal time see none of each other. See
    :ref:`history`.

    Parameters
    ----------
    keys : list of str or tuple of str
        Columns whose values have a past, such as ``["user", "item"]``; a tuple stands
        for the pairs of values, such as ``("user", "category")``. Rows in which a value
        is missing have no past for this key.
    time : str
        The column of times: dates, or numbers of any unit.
    label_delay : duration or dict, default=0
        How long after its impression a label is known, for all tasks, or a dict from
        names of tasks. A duration is a number, in the unit of the times (in seconds if
        these are dates), a text such as "30min", "1h" or "7d", or a timedelta.
    state_delay : duration, default=0
        How old the state is when a row is served: the longest time from an impression
        to the end of the `update` that appends it, such as "5min". Every row, in
        training as in serving, sees only what a state of this age has: impressions
        that are earlier by more than `state_delay`, and labels of those that are
        earlier by more than `state_delay` and `label_delay` together. 0 stands for a
        server that appends each impression as soon as it has served it.
    windows : list of duration, default=()
        Numbers are counted over all the past, and over the last of each of these
        durations. A window that is not longer than the delays of a label contains no
        event, which gives a warning.
    half_lives : list of duration, default=()
        Numbers are also counted with weights that halve with each of these ages.
    lists : list of dict, default=()
        Columns of last values, newest last. A dict has the fields

        - "column": the column of the values;
        - "key": one of `keys`, by default the first;
        - "n": the largest number of values, by default 20;
        - "task": a task that must have happened, by name or index, by default none.
          Values of equal times are then sorted, numbers before text, since their labels
          may come in any order; without a task they are in the order of the rows;
        - "ages": "values" adds a column with lists of the values' ages, which the
          estimator takes as `list_ages` of `encoding_params` for a list with attention,
          "buckets" one with the integers ``floor(log2(1 + age))``, which it takes as
          categories.
    values : dict, default=None
        Columns of ``y`` with amounts, such as money, and the task under which each
        arises, ``{"spend": "conversion"}``, by names or indices. They become sums and
        means of the amounts of each key. An amount is known when the label of its task
        is; one that is missing in an event is left out.
    smoothing : float, default=2.0
        Strength of the shrinkage of rates to the rate over all keys: the number of
        events of the rarer kind that the added rows would have. For mean amounts it is
        the number of added events with the mean amount over all keys.
    max_age : duration, default=None
        A key that has no impression for longer than this begins anew, and is dropped
        from the state.
    passthrough : bool, default=True
        Whether the columns of ``X`` precede the new ones. The column of times is left
        out; a copy of it under another name is not.

    Attributes
    ----------
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns of ``X`` in `fit`.
    n_features_in_ : int
        Their number.
    task_names_ : list of str
        Names of the tasks, from the columns of ``y``.
    end_ : int, float or numpy.datetime64
        Time of the last row; in UTC if the times have a time zone.

    See Also
    --------
    sk_pwiser.model_selection.FunnelTimeSplit : Folds in the order of time.

    Notes
    -----
    With counts :math:`n` of known labels and :math:`k` of events of a key, :math:`N`
    and :math:`K` of all keys, and :math:`p = (K + 1/2) / (N + 1)`, the log-odds are

    .. math:: \operatorname{logit} \frac{k + a p}{n + a} - \operatorname{logit} p,
        \quad a = \frac{\mathtt{smoothing}}{\min(p, 1 - p)}.

    With :math:`k` known amounts of a key, whose sum is :math:`s`, and the mean
    :math:`m` of the amounts of all keys, the numbers of a value are

    .. math:: \log\left(1 + \frac{s}{m}\right) \quad \text{and} \quad
        \log \frac{s / m + \mathtt{smoothing}}{k + \mathtt{smoothing}},

    for example ``user__log_spend`` and ``user__spend_log_mean``. Amounts in another
    unit give the same numbers. As long as all amounts are 0, each of them is the mean.

    The new columns are named by key, task and horizon, such as
    ``user__click_logit_7d``; a tuple is named ``user_x_category``. Ages are in seconds
    if times are dates, and NaN if there is no impression or event.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sk_pwiser.history import HistoryFeatures
    >>> log = pd.DataFrame({"user": ["a", "a", "b", "a"], "time": [1, 2, 2, 5]})
    >>> click = pd.Series([1, 0, 1, 0], name="click")
    >>> history = HistoryFeatures(["user"], time="time", passthrough=False)
    >>> history.fit_transform(log, click)["user__since_impression"].tolist()
    [nan, 1.0, nan, 3.0]
    >>> row = history.transform_row({"user": "a", "time": 6})
    >>> row["user__since_click"], round(np.expm1(row["user__log_impressions"]))
    (5.0, 3)
    """

    feature_names_in_: npt.NDArray[Any]
    n_features_in_: int
    _learnt: tuple[HistoryState, Plan]
    # Histories of earlier versions have no values.
    values: Mapping[str | int, str | int] | None = None
    # What `transform_row` reads, None until then.
    _one_row: Any = None

    def __init__(
        self,
        keys: Sequence[str | tuple[str, ...]],
        *,
        time: str,
        label_delay: Duration | Mapping[str, Duration] = 0,
        state_delay: Duration = 0,
        windows: Sequence[Duration] = (),
        half_lives: Sequence[Duration] = (),
        lists: Sequence[Mapping[str, Any]] = (),
        values: Mapping[str | int, str | int] | None = None,
        smoothing: float = 2.0,
        max_age: Duration | None = None,
        passthrough: bool = True,
    ) -> None:
        self.keys = keys
        self.time = time
        self.label_delay = label_delay
        self.state_delay = state_delay
        self.windows = windows
        self.half_lives = half_lives
        self.lists = lists
        self.values = values
        self.smoothing = smoothing
        self.max_age = max_age
        self.passthrough = passthrough

    def fit(self, X: Any, y: Any = None) -> Self:
        """Learn the state at the end of a log.

        Parameters
        ----------
        X : DataFrame or Arrow table of shape (n_samples, n_features)
            The log, in any order.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
            Labels, 0 or 1; with one task any two labels. Missing labels are not known
            yet. Without labels there are numbers of impressions only. The columns of
            `values` are beside them.

        Returns
        -------
        HistoryFeatures
            This object.

        Raises
        ------
        ValueError, TypeError
            If a parameter is invalid, if a column is absent, if a time is missing or
            cannot be sorted, or if a label is neither 0 nor 1. An earlier fit is kept.
        """
        self._fit(X, y, returns_features=False)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Learn the state, and return each row with what was known at its time.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            The rows, as for `fit`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
            Labels.

        Returns
        -------
        table
            Of the kind of ``X``, or that of `set_output`, in the order of ``X``.
        """
        return self._fit(X, y, returns_features=True)

    def update(
        self, X: Any, y: Any = None, *, overlap: Literal["error", "merge"] = "error"
    ) -> Self:
        """Append a later period of the log to the state.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            The rows, as in `fit`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
            Labels. None if no label is known.
        overlap : {"error", "merge"}, default="error"
            What rows from before the end of the state are: an error, or rows that
            arrive late and are added as if they had been in time, which needs
            ``max_age=None``: a key that was over may have been dropped from the state.

        Returns
        -------
        HistoryFeatures
            This object.

        Raises
        ------
        ValueError, TypeError
            As in `fit`, and if a column has text where it had numbers, or the reverse;
            the state is unchanged.
        """
        check_choice("overlap", overlap, ("error", "merge"))
        state, plan = self._fitted()
        rows, _ = self._read(X, y, state, plan)
        if overlap == "error" or plan.max_age is not None:
            self._refuse_early(rows, state, plan)
        newer = state.extended(rows, plan).folded(plan)
        self._learnt = state.joined(newer, plan), plan
        return self

    def complete(self, X: Any, y: Any) -> Self:
        """Fill in labels that were not known when their rows were appended.

        Append impressions at once, with `update` and without the labels that come
        later, and complete them once they are known, not later than `label_delay` after
        the impression. The state is then the same as if `update` had had the labels.

        Rows are found by the values of all keys and the time. If several rows have the
        same ones, it does not matter which of them gets a label.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            The rows, in any order: the columns of the keys, of the time, and those of
            `lists`.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,)
            The labels that are new. Missing ones (NaN) change nothing: they are not
            known yet, or known from an earlier call. An amount is filled in together
            with its event.

        Returns
        -------
        HistoryFeatures
            This object.

        Raises
        ------
        ValueError, TypeError
            As in `update`; if the state does not have a row: it keeps those of the
            longest `label_delay` plus `state_delay` before its end; or if a label is
            known already. The state is unchanged.
        """
        state, plan = self._fitted()
        if y is None:
            raise TypeError("y must be labels; got None.")
        rows, _ = self._read(X, y, state, plan, is_completion=True)
        newer, is_absent, is_final = state.completed(rows, plan)
        refuse_labels(is_absent, is_final, state, plan)
        self._learnt = state.joined(newer, plan), plan
        return self

    def transform(self, X: Any) -> Any:
        """Return rows with what is known at their time from the rows of the state.

        The rows of ``X`` are no part of the past of each other.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            Rows from the end of the state on. An earlier row is transformed as if it
            came at the end, with a warning, since this may include its own label.

        Returns
        -------
        table
            Of the kind of ``X``, or that of `set_output`.

        Raises
        ------
        ValueError, TypeError
            As in `fit`.
        """
        state, plan = self._fitted()
        rows, table = self._read(X, None, state, plan)
        if (is_early := rows.time < state.end).any():
            self._warn_early(int(is_early.sum()))
            rows = rows._replace(time=np.maximum(rows.time, state.end))
        keys_state = state.for_keys_of(rows, plan)
        features = _features(rows, keys_state, plan, keys_state.pasts(plan))
        return self._output(
            table, plan.passed_through(self.feature_names_in_), features
        )

    def replay(self, X: Any, y: Any = None, *, update: bool = False) -> Any:
        """Walk a later period in the order of time, each row with what was known then.

        This is the honest way to evaluate a model on a later period: a row sees the
        state and the earlier rows of ``X``, as it would have in operation.

        Parameters
        ----------
        X : table of shape (n_samples, n_features)
            Rows from the end of the state on, in any order.
        y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
            Labels. None if no label is known.
        update : bool, default=False
            Whether to append the rows to the state, as `update` does, too.

        Returns
        -------
        table
            Of the kind of ``X``, or that of `set_output`.

        Raises
        ------
        ValueError, TypeError
            As in `fit`, and if a row is from before the end of the state.
        """
        check_boolean("update", update)
        state, plan = self._fitted()
        rows, table = self._read(X, y, state, plan)
        self._refuse_early(rows, state, plan)
        newer = state.extended(rows, plan)
        pasts = newer.pasts(plan)
        features = _features(rows, newer, plan, pasts)
        result = self._output(
            table, plan.passed_through(self.feature_names_in_), features
        )
        if update:
            self._learnt = state.joined(newer.folded(plan, pasts), plan), plan
        return result

    def transform_row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return a row with what is known at its time; for serving.

        The values are those of `transform`, rounded to float32 as well, from lookups
        that build no table: see ``benchmarks/history.py`` for the time per row.

        Parameters
        ----------
        row : dict
            The fields of the row: those of the keys and the time, and others.

        Returns
        -------
        dict
            The new columns, after the fields of the row with ``passthrough=True``.

        Raises
        ------
        ValueError, TypeError
            If a field is absent, the time is none, or a key is text where the keys of
            the state are numbers, or the reverse, or one of them is an integer rounded
            to a float.
        """
        state, plan = self._fitted()
        one_row = self._one_row
        # Another thread may have set another state since it was built.
        if one_row is None or one_row.state is not state:
            one_row = MemoryRow(state, plan, one_row)
            self._one_row = one_row
        features, is_early = one_row.features(row)
        if is_early:
            self._warn_early(1)
        return {name: row[name] for name in plan.passed_through(row)} | features

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Return the names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features,), default=None
            Ignored; exists for compatibility.

        Returns
        -------
        ndarray of str of shape (n_columns,)
            The names.
        """
        _, plan = self._fitted()
        names = [
            *plan.passed_through(self.feature_names_in_),
            *plan.feature_names(),
        ]
        return np.array(names, dtype=object)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the history to a file that holds no code.

        The file has the parameters and the state, so that a loaded history gives the
        same values and can be updated. It is in the format of safetensors, has a
        checksum, and appears at once or not at all; see :ref:`files`.

        Parameters
        ----------
        path : str or path-like
            The file. One that exists is replaced.

        Raises
        ------
        TypeError
            If values of keys or lists are not numbers, text or tuples.
        """
        state, plan = self._fitted()
        state = state.whole(plan)
        content = self._describe() | {
            "indices": {name: index.values for name, index in state.indices.items()},
            # Copies, without what is derived from them.
            "logs": [replace(log) for log in state.logs],
            "everything": state.everything,
        }
        write_file(path, *FORM.encode(content, "history"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a history from a file that `save` wrote; nothing in it is executed.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        HistoryFeatures
            The history.

        Raises
        ------
        ValueError
            If the file is damaged, altered or not one of a history.
        """
        values, arrays = read_file(path)
        with refusing(path, "holds no valid history"):
            content, plan = read_description(values, arrays)
            indices = {
                name: ValueIndex(values, content["kinds"][name])
                for name, values in content["indices"].items()
            }
            state = HistoryState(
                classes=content["classes"],
                end=content["end"],
                indices=indices,
                logs=content["logs"],
                everything=content["everything"],
            )
            return cls._of(content, plan, state)

    @property
    def end_(self) -> Any:
        """Time of the last row of the state."""
        state, plan = self._fitted()
        return plan.as_time(state.end)

    @property
    def task_names_(self) -> list[str]:
        """Names of the tasks."""
        _, plan = self._fitted()
        return list(plan.task_names)

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        # What is derived from the state is built again when needed.
        return {name: value for name, value in state.items() if name != "_one_row"}

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_learnt")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        return tags

    def _fitted(self) -> tuple[HistoryState, Plan]:
        if not hasattr(self, "_learnt"):
            check_is_fitted(self)  # raises
        # One attribute, since other threads may serve rows while it is replaced.
        return self._learnt

    @property
    def _state(self) -> HistoryState:
        state, _ = self._learnt
        return state

    def _fit(self, X: Any, y: Any, *, returns_features: bool) -> Any:
        params = self.get_params(deep=False)
        check_params(params)
        table = Table(X)
        if not table.n_rows:
            raise ValueError("X must have at least one row in fit; it has none.")
        times = read_times(table.column(self.time), self.time)
        labels = read_history_labels(y, table, values=self.values)
        plan = Plan(params, times.kind, labels.names)
        plan.warn()
        self._check_names(table, plan)
        rows = Rows(read_columns(table, plan.columns), times.values, labels)
        state = empty_state(plan, labels.classes).extended(rows, plan)
        pasts = state.pasts(plan)
        result = None
        if returns_features:
            features = _features(rows, state, plan, pasts)
            result = self._output(table, plan.passed_through(table.names), features)
        state = state.folded(plan, pasts).compacted(plan)
        self.feature_names_in_ = np.array(table.names, dtype=object)
        self.n_features_in_ = len(table.names)
        self._one_row = None
        self._learnt = state, plan
        return result

    def _read(
        self,
        X: Any,
        y: Any,
        state: HistoryState,
        plan: Plan,
        *,
        is_completion: bool = False,
    ) -> tuple[Rows, Table]:
        """Return the rows of a later table, checked, and the table."""
        table = Table(X)
        times = read_times(table.column(plan.time), plan.time)
        check_kind(times.kind, plan.kind, plan.time)
        labels = read_history_labels(
            y,
            table,
            plan.task_names,
            state.known_classes,
            values=plan.params.get("values"),
            is_completion=is_completion,
        )
        columns = read_columns(table, plan.columns)
        for name, (_, values) in columns.items():
            # Values that can equal none of those of before are a mistake.
            state.indices[name].check_kinds(values, name)
            state.indices[name].check_exact(values, name)
        return Rows(columns, times.values, labels), table

    def _check_names(self, table: Table, plan: Plan) -> None:
        if not all(isinstance(name, str) for name in table.names):
            raise TypeError(f"The columns of X must have text as names: {table.names}.")
        names = plan.feature_names() + plan.passed_through(table.names)
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"The new columns would repeat the names {repeated}; rename columns of "
                "X, or remove equal keys, windows, half-lives or lists."
            )

    def _refuse_early(self, rows: Rows, state: HistoryState, plan: Plan) -> None:
        if (is_early := rows.time < state.end).any():
            cure = "update(..., overlap='merge') adds late rows."
            if plan.max_age is not None:
                cure = "With max_age, a history takes no late rows."
            raise ValueError(
                f"Column {plan.time!r}: {is_early.sum()} rows are from before the end "
                f"of the state, {self.end_}, such as row {is_early.argmax()}. {cure}"
            )

    def _warn_early(self, n_rows: int) -> None:
        warn_user(
            f"{n_rows} rows are from before the end of the state, {self.end_}, and are "
            "transformed as if they came then, maybe with their own labels. "
            "fit_transform and replay give each row what was known at its time."
        )

    def _describe(self) -> dict[str, Any]:
        """Return what the state has beside its arrays."""
        state, plan = self._fitted()
        return {
            "class": "HistoryFeatures",
            "form": NUMBER_OF_FORM,
            "sk_pwiser": __version__,
            "params": plan.params,
            "features": list(self.feature_names_in_),
            "kind": plan.kind,
            "task_names": plan.task_names,
            "classes": state.classes,
            "end": state.end,
            "kinds": {
                name: sorted(index.kinds) for name, index in state.indices.items()
            },
        }

    @classmethod
    def _of(cls, content: Mapping[str, Any], plan: Plan, state: HistoryState) -> Self:
        history = cls(**content["params"])
        history.feature_names_in_ = np.array(content["features"], dtype=object)
        history.n_features_in_ = len(content["features"])
        history._learnt = state, plan
        return history

    def _output(
        self,
        table: Table,
        passed_through: Sequence[str],
        features: Mapping[str, Array | ListOutput],
    ) -> Any:
        """Return columns of a table, and new ones behind them, as `set_output` says."""
        kind = _get_output_config("transform", self)["dense"]
        kind = table.kind if kind == "default" else kind
        return table.with_features(passed_through, features, kind)


def _features(
    rows: Rows, state: HistoryState, plan: Plan, pasts: Sequence[Past]
) -> dict[str, Array | ListOutput]:
    """Return the new columns of rows."""
    *key_pasts, past_of_all = pasts
    times = rows.time
    codes = state.codes(rows.columns, plan)
    no_code = np.zeros(len(times), dtype=np.int64)  # all rows have the same key
    priors = past_of_all.priors(no_code, times)
    amount_priors = past_of_all.amount_priors(no_code, times)
    features: dict[str, Array | ListOutput] = {}
    for code, past in zip(codes, key_pasts, strict=True):
        names = past.plan.number_names
        numbers = _numbers(
            past, code, times, priors=priors, amount_priors=amount_priors
        )
        features |= dict(zip(names, numbers, strict=True))
    for list_plan in plan.lists:
        past = key_pasts[list_plan.key]
        code = codes[list_plan.key]
        sizes, elements, ages = past.last_values(list_plan.place, code, times)
        index = state.indices[list_plan.column]
        distinct, places = unique_keys(elements[:, np.newaxis])
        # Values of each type, so that lists have one type, whichever values they hold.
        values = [*index.at(distinct[:, 0].tolist()), *index.samples.values()]
        features[list_plan.name] = ListOutput(sizes, places, values)
        if list_plan.ages == "buckets":
            ages = np.floor(np.log2(1 + ages)).astype(np.int64)
        if list_plan.ages:
            features[f"{list_plan.name}_ages"] = ListOutput(sizes, ages)
    return features


def _numbers(
    past: Past,
    code: Array,
    times: Array,
    *,
    priors: Sequence[Sequence[Array]],
    amount_priors: Sequence[Sequence[Array]],
) -> Array:
    """Return the numbers of rows for one kind of keys, float32 (n_numbers, n_rows)."""
    n_numbers = len(past.plan.number_names)
    numbers = np.empty((n_numbers, len(times)), dtype=np.float32)
    # Queries in the order of the log read its memory in this order, and blocks of them
    # keep what is computed in the cache.
    order = np.lexsort([times, code])
    for start in range(0, len(times), BLOCK):
        block = order[start : start + BLOCK]
        block_priors = [[array[block] for array in prior] for prior in priors]
        block_amount_priors = [
            [array[block] for array in prior] for prior in amount_priors
        ]
        numbers[:, block] = past.numbers(
            code[block], times[block], block_priors, block_amount_priors
        )
    return numbers


def read_description(
    values: Mapping[str, Any], arrays: Mapping[str, Array] | None = None
) -> tuple[dict[str, Any], Plan]:
    """Return the decoded content of a file, checked, and the plan."""
    if values["class"] != "HistoryFeatures":
        raise ValueError(f"it is one of {values['class']!r}")
    if values.get("form") not in READABLE_FORMS:
        raise ValueError(
            "another version of sk_pwiser wrote it; write the history again"
        )
    content = FORM.decode(values, arrays or {})
    content["params"] = {"values": None} | content["params"]
    check_params(content["params"])
    return content, Plan(content["params"], content["kind"], content["task_names"])
