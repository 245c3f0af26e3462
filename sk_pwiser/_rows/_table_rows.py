"""The rows of a table in memory: read, checked, and encoded."""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sk_pwiser._columns._encoding_params import check_encoding_params
from sk_pwiser._columns._frames import as_table, collected, refuse_parts
from sk_pwiser._rows._checked_rows import CheckedRows, GivenRows, named_place
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._protocol import RowEncoder, Rows
from sk_pwiser._rows._row_summary import RowSummary
from sk_pwiser._rows._table_store import TableStore
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._groups import check_groups, number_groups
from sk_pwiser._tasks._labels import SoftTargets, Targets, check_tasks
from sk_pwiser._tasks._row_match import check_match
from sk_pwiser._tasks._weights import (
    combine_weights,
    n_unlabelled,
    warn_about_left_out,
)
from sk_pwiser._utils._warnings import warn_user


class TableRows:
    """The rows of a table in memory: a data set of one part."""

    stays_in_memory = True
    sample_rows: int | None = None  # all rows are read
    max_values: int | None = None  # all values are counted

    def __init__(
        self,
        settings: Settings,
        rows: CheckedRows,
        *,
        weight_scale: float | None = None,
        scales_counts: bool = False,
        origin: str = "the training rows",  # as errors name them
        given_groups: "GivenGroups | None" = None,
    ) -> None:
        self.settings = settings
        self.rows: Any = rows
        self.given_groups = given_groups
        self.origin = origin
        self.n_rows = len(rows)
        self.has_groups = rows.groups is not None
        self.summary: Any = RowSummary(weight_scale, scales_counts)
        self.summary.add(rows.targets, rows.weights)
        self.tasks: Targets = self.summary.tasks
        self.has_task_weights: bool = self.summary.per_task

    def again(self) -> "TableRows":
        """Return the same rows for another fit: encoding releases those of a fit."""
        return copy(self)

    def parts(self, label: str) -> Iterator[CheckedRows]:
        """Yield the rows; `label` is what is done with them."""
        yield self.rows

    def feature_names(self, default: Sequence[Any]) -> Sequence[Any]:
        """Return the names of the columns, `default` if they have none."""
        return list(getattr(self.rows.X, "columns", default))

    def check_features(
        self, eval_rows: Mapping[str, Rows], schema: RowEncoder | None
    ) -> None:
        """Do nothing: a table is checked when it is encoded."""

    def eval_rows(self, dataset: Any) -> Rows:
        """Raise: training on a table is validated on tables."""
        raise TypeError(
            f"eval_set must be a pair (X, Y); got {type(dataset).__name__}."
        )

    def value_of_group(self, number: int) -> Any:
        """Return a group as the user passed it, None if there are no groups."""
        if self.given_groups is None:
            return None
        first_row = int(np.argmax(self.rows.groups == number))
        return self.given_groups.value_of(first_row)

    def new_store(self) -> TableStore:
        """Return an empty store of encoded rows."""
        return TableStore()

    def encode(self, schema: RowEncoder, loss: Any) -> Impressions:
        """Encode validation rows like the rows of a prediction."""
        rows = self.rows
        with named_place(self.origin):
            encoded = schema.transform(rows.X, as_shown=True)
        return encoded.labelled(
            rows.targets.values,
            self.summary.scaled,
            rows.groups,
            rows.targets.amounts,
        ).with_scaled_amounts(schema.value_scales)

    def release(self) -> None:
        """Free the memory of the table: training reads tensors only."""
        self.rows = None
        self.summary = None


class GivenGroups(NamedTuple):
    """Groups as the user passed them, for messages that name one."""

    values: Any
    indices: np.ndarray  # of all rows, by `check_groups`
    used_indices: np.ndarray  # of the rows with a weight

    def value_of(self, row: int) -> Any:
        """Return the group of one of the rows with a weight."""
        place = int(np.argmax(self.indices == self.used_indices[row]))
        return np.asarray(collected(self.values), dtype=object)[place]


# A mean of the weights that is so many times larger or smaller than that of the first
# call is probably in another unit.
LARGEST_RATIO = 10.0


def read_table(
    settings: Settings,
    given_rows: GivenRows,
    expected: Targets | None = None,
    classes: Any = None,
    *,
    may_lack_class: bool = False,
    weight_scale: float | None = None,
    scales_counts: bool = False,
    origin: str = "the training rows",
) -> TableRows:
    """Check all but the table itself, and leave out the rows of weight 0.

    `expected` has the tasks of the earlier fit, or of the training rows. Weights are
    divided by `weight_scale`, by default by their mean; it may be a mean of counts.
    Rows of an update, and validation rows, `may_lack_class`: they may have only one of
    the classes.
    """
    refuse_parts(given_rows.X)
    Y = collected(given_rows.Y)
    targets = Y
    check_encoding_params(settings.encoding_params)
    if not isinstance(Y, SoftTargets):
        targets = check_tasks(
            settings, Y, expected, classes, may_lack_class=may_lack_class
        )
    X = as_table(given_rows.X)
    sample_weight = given_rows.sample_weight
    groups = given_rows.groups
    n_samples = len(targets.values)
    check_match(X, n_samples, Y=Y, sample_weight=sample_weight, groups=groups)
    warn_about_left_out(n_unlabelled(targets), n_samples, origin)
    targets, weights = combine_weights(targets, sample_weight)
    group_indices = check_groups(groups, n_samples)
    rows = CheckedRows(
        X=X, targets=targets, weights=weights, groups=group_indices
    ).with_weight()
    given_groups = None
    if rows.groups is not None:
        given_groups = GivenGroups(groups, group_indices, rows.groups)
        rows = replace(rows, groups=number_groups(rows.groups))
    if sample_weight is None:
        weight_scale = 1.0  # the weights, if any, are 0 for missing labels
    checked = TableRows(
        settings,
        rows,
        weight_scale=weight_scale,
        scales_counts=scales_counts,
        origin=origin,
        given_groups=given_groups,
    )
    mean = checked.summary.weights.added_mean
    if sample_weight is not None and None not in (weight_scale, mean):
        ratio = mean / weight_scale
        if not 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
            warn_user(
                f"The mean of sample_weight is {mean:g}, but {weight_scale:g} in the "
                "first call, which is 1 without weights. partial_fit divides by the "
                f"latter, so that these rows count {ratio:.3g} times as much as those. "
                "Scale the weights if that is not intended."
            )
    return checked
