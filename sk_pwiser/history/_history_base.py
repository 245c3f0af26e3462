"""The inner steps of `HistoryFeatures`: reading tables, queries, the state."""

import copy

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils._set_output import _get_output_config

from sk_pwiser._times import check_kind, read_times
from sk_pwiser._utils import warn_user
from sk_pwiser.history._history_state import (
    Rows,
    empty_state,
    read_column,
    read_history_labels,
)
from sk_pwiser.history._history_tables import ListOutput, Table
from sk_pwiser.history._plan import Plan, check_params

# Number of rows that are computed at a time.
BLOCK = 2**15


class HistoryBase(TransformerMixin, BaseEstimator):
    """What the public methods of `HistoryFeatures` consist of."""

    def __getstate__(self):
        state = super().__getstate__()
        # What is derived from the state is built again when needed.
        return state | {
            name: None for name in ("_derived", "_one_row") if name in state
        }

    def __sklearn_is_fitted__(self):
        """Return whether there is a state."""
        return hasattr(self, "_state")

    def __sklearn_tags__(self):
        """Return the tags: text, categories and missing values are taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.categorical = True
        tags.input_tags.allow_nan = True
        return tags

    def _fitted(self):
        if not hasattr(self, "_state"):
            raise NotFittedError(
                "This HistoryFeatures has no state yet; call fit, fit_transform or "
                "partial_fit first."
            )
        return self._state, self._plan

    def _set_state(self, state, plan):
        self._state, self._plan = state, plan
        self._derived = self._one_row = None

    def _pasts(self):
        if self._derived is None:
            self._derived = self._state.pasts(self._plan)
        return self._derived

    def _fit(self, X, y, returns_features):
        params = self.get_params(deep=False)
        check_params(params)
        table = Table(X)
        times = read_times(table.column(self.time), self.time)
        labels = read_history_labels(y, table.n_rows)
        plan = Plan(copy.deepcopy(params), times.kind, labels.names)
        self._check_names(table, plan)
        rows = Rows(self._columns(table, plan), times.values, labels)
        state = empty_state(plan, times.kind, labels).extended(rows, plan)
        pasts = state.pasts(plan)
        names = np.array(table.names, dtype=object)
        result = None
        if returns_features:
            kept = self._kept(names)
            result = self._output(table, rows, rows.time, state, plan, pasts, kept)
        state = state.folded(*pasts).compacted(plan)
        self.feature_names_in_, self.n_features_in_ = names, len(names)
        self._set_state(state, plan)
        return result

    def _read(self, X, y, state, plan, has_labels=True):
        """Return the rows of a later table, checked, and the table."""
        table = Table(X)
        times = read_times(table.column(self.time), self.time)
        check_kind(times.kind, state.kind, self.time)
        labels = read_history_labels(y, table.n_rows, state) if has_labels else None
        for name in self._kept():
            table.column(name)
        return Rows(self._columns(table, plan), times.values, labels), table

    def _columns(self, table, plan):
        return {name: read_column(table.column(name), name) for name in plan.columns}

    def _check_names(self, table, plan):
        if not all(isinstance(name, str) for name in table.names):
            raise TypeError(f"The columns of X must have text as names: {table.names}.")
        names = plan.feature_names()
        names += self._kept(table.names) if self.passthrough else []
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"The new columns would repeat the names {repeated}; rename columns of "
                "X, or remove equal lists."
            )

    def _kept(self, names=None):
        """Return the names of the columns that pass through."""
        names = self.feature_names_in_ if names is None else names
        return [name for name in names if name != self.time] if self.passthrough else []

    def _refuse_early(self, rows, state, overlap="error"):
        if overlap == "merge" or state.end is None or not len(rows.time):
            return
        is_early = rows.time < state.end
        if is_early.any():
            raise ValueError(
                f"Column {self.time!r}: {is_early.sum()} rows are from before the end "
                f"of the state, {self.end_}, the first in row {is_early.argmax()}. "
                "update(..., overlap='merge') adds late rows."
            )

    def _warn_early(self, n_rows):
        warn_user(
            f"{n_rows} rows are from before the end of the state, {self.end_}, and are "
            "transformed as if they came then: this may include later rows, or their "
            "own labels. fit_transform and replay give each row what was known at its "
            "time."
        )

    def _output(self, table, rows, times, state, plan, pasts, kept=None):
        features = _features(rows, times, state, plan, *pasts)
        kind = _get_output_config("transform", self)["dense"]
        kind = table.kind if kind == "default" else kind
        return table.with_features(
            self._kept() if kept is None else kept, features, kind
        )


def _features(rows, times, state, plan, pasts, of_all):
    """Return the new columns by name."""
    features, codes = {}, []
    rates = of_all.base_rates(times)
    for key, (names, past) in enumerate(zip(plan.keys, pasts, strict=True)):
        code = state.codes(names, state.logs[key], state.ids(rows.columns, names))
        codes.append(code)
        # Queries in the order of the log read its memory in this order, and blocks of
        # them keep what is computed in the cache.
        order = np.lexsort([times, code])
        own = np.empty((len(plan.names_of_key(key)), len(times)))
        for start in range(0, len(times), BLOCK):
            block = order[start : start + BLOCK]
            own[:, block] = past.numbers(code[block], times[block], rates[block])
        features |= dict(zip(plan.names_of_key(key), own, strict=True))
    places = [0] * len(pasts)
    for each in plan.lists:
        past, code = pasts[each.key], codes[each.key]
        sizes, values, ages = past.last_values(places[each.key], code, times)
        places[each.key] += 1
        index = state.indices[each.column]
        features[each.name] = ListOutput(sizes, values, index.values)
        if each.ages == "buckets":
            ages = np.floor(np.log2(1 + ages)).astype(np.int64)
        if each.ages:
            features[f"{each.name}_ages"] = ListOutput(sizes, ages)
    return features
