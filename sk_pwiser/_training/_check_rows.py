"""Labels, weights and groups, checked before the table is encoded."""

from dataclasses import replace
from typing import Any

import numpy as np

from sk_pwiser._table import (
    SoftTargets,
    Targets,
    as_table,
    check_groups,
    check_target_encoding,
    check_targets,
    check_vocabulary,
    combine_weights,
    n_rows,
    scale_weights,
)
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import check_boolean


def check_rows(
    settings: Settings,
    X: Any,
    Y: Any,
    sample_weight: Any,
    groups: Any,
    expected: Targets | None,
    classes: Any,
    single_pass: bool,
) -> Rows:
    """Check all but the table itself, and leave out the rows of weight 0.

    `expected` has the tasks of the earlier fit, or of the training rows.

    Raises
    ------
    ValueError, TypeError
        If labels, weights or groups are invalid, differ in length from `X`, or do not
        have the tasks of the earlier fit.
    """
    check_target_encoding(settings.encoding_params)
    check_vocabulary(settings.encoding_params)
    check_boolean("grow_vocabulary", settings.encoding_params["grow_vocabulary"])
    targets = Y
    if not isinstance(Y, SoftTargets):
        targets = _check_tasks(settings, Y, expected, classes, single_pass)
    X = as_table(X)
    n_samples = len(targets.values)
    if n_rows(X) != n_samples:
        raise ValueError(
            "X and Y have inconsistent numbers of samples: X has "
            f"{n_rows(X)} rows, Y has {n_samples}."
        )
    targets, weights = combine_weights(targets, sample_weight)
    rows = Rows(X, targets, weights, check_groups(groups, n_samples))
    return _with_weight(rows)


def _check_tasks(
    settings: Settings,
    Y: Any,
    expected: Targets | None,
    classes: Any,
    single_pass: bool,
) -> Targets:
    """Check the labels; their tasks must be the expected ones."""
    if expected is None:
        return check_targets(
            Y,
            settings.task_names,
            classes=classes,
            missing_labels=settings.missing_labels,
        )
    if single_pass and expected.classes.ndim == 1:
        if classes is not None and not np.array_equal(
            np.unique(classes), expected.classes
        ):
            raise ValueError(
                f"classes must be {expected.classes.tolist()}, those of the earlier "
                f"fit; got {np.unique(classes).tolist()}."
            )
        classes = expected.classes  # these rows may have only one of them
    targets = check_targets(
        Y,
        settings.task_names,
        default_names=expected.task_names,
        classes=classes,
        missing_labels=settings.missing_labels,
    )
    if targets.classes.shape == (2,) == expected.classes.shape:
        # The name of a single task is not checked: a Series may have any.
        targets = replace(targets, task_names=expected.task_names)
    is_same = np.array_equal(targets.classes, expected.classes)
    if targets.task_names != expected.task_names or not is_same:
        raise ValueError(
            f"Training uses the tasks {list(expected.task_names)} and the classes "
            f"{expected.classes.tolist()}; Y has {list(targets.task_names)} and "
            f"{targets.classes.tolist()}."
        )
    return targets


def _with_weight(rows: Rows) -> Rows:
    """Leave out rows of weight 0, and scale the other weights to a mean of 1."""
    if rows.weights is None:
        return rows
    kept = np.flatnonzero(rows.weights.reshape(len(rows.weights), -1).any(axis=1))
    if len(kept) < len(rows.weights):
        rows = rows.at(kept)
    return replace(rows, weights=scale_weights(rows.weights))
