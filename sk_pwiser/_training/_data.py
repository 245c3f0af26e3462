"""A table becomes tensors: the one place where training meets `_table`."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from sklearn.utils import _safe_indexing

from sk_pwiser._table import (
    UNSEEN,
    TableEncoder,
    Targets,
    check_groups,
    check_row_weights,
    check_targets,
    n_rows,
)
from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._net import TrainingData
from sk_pwiser._training._settings import Settings
from sk_pwiser.model_selection import funnel_holdout
from sk_pwiser.networks import NetworkSpec


@dataclass(frozen=True)
class Rows:
    """Labels, weights and groups that were checked, with a table not yet encoded.

    Parameters
    ----------
    X : DataFrame or array-like of shape (n_samples, n_features)
        The table.
    targets : Targets
        Labels of the tasks.
    weights : float32 ndarray of shape (n_samples,) or None
        Row weights > 0 with mean 1.
    groups : int64 ndarray of shape (n_samples,) or None
        Numbers of the rows' groups.
    """

    X: Any
    targets: Targets
    weights: np.ndarray | None
    groups: np.ndarray | None


@dataclass(frozen=True)
class Schema:
    """What a fitted network needs to know of the table and the tasks.

    Parameters
    ----------
    encoder : TableEncoder
        Encodes tables as the training rows were encoded.
    targets : Targets
        Classes and names of the tasks, without labels.
    base_rates : ndarray of shape (n_tasks,)
        Rates of ones, where the output biases started.
    """

    encoder: TableEncoder
    targets: Targets
    base_rates: np.ndarray

    def spec(self, settings: Settings, **shared: Any) -> NetworkSpec:
        """Describe the table to a network."""
        return NetworkSpec(
            self.encoder.cardinalities_,
            self.encoder.n_numeric_,
            settings.embedding_dim,
            self.base_rates.tolist(),
            unseen_code=UNSEEN,
            category_dropout=settings.encoding_params["category_dropout"],
            numeric_bins=self.encoder.numeric_bins_,
            **shared,
        )


@dataclass(frozen=True)
class EncodedData:
    """The rows as tensors, and the schema that they were encoded by."""

    rows: TrainingData
    schema: Schema


def check_rows(
    settings: Settings,
    X: Any,
    Y: Any,
    sample_weight: Any,
    groups: Any,
    earlier: Schema | None,
    classes: Any,
) -> Rows:
    """Check all but the table itself, and leave out the rows of weight 0.

    Raises
    ------
    ValueError, TypeError
        If labels, weights or groups are invalid, differ in length from `X`, or do not
        have the tasks of the earlier fit.
    """
    targets = _check_tasks(settings, Y, earlier, classes)
    n_samples = len(targets.values)
    if n_rows(X) != n_samples:
        raise ValueError(
            "X and Y have inconsistent numbers of samples: X has "
            f"{n_rows(X)} rows, Y has {n_samples}."
        )
    weights = check_row_weights(sample_weight, n_samples)
    rows = Rows(X, targets, weights, check_groups(groups, n_samples))
    if weights is not None and not weights.all():
        rows = _with_weight(rows)
    return _without_equal_weights(rows)


def _check_tasks(
    settings: Settings, Y: Any, earlier: Schema | None, classes: Any
) -> Targets:
    """Check the labels; a continued fit must have the tasks of the earlier one."""
    if earlier is None:
        return check_targets(Y, settings.task_names, classes=classes)
    expected = earlier.targets
    targets = check_targets(
        Y, settings.task_names, default_names=expected.task_names, classes=classes
    )
    if targets.classes.shape == (2,) == expected.classes.shape:
        # The name of a single task is not checked: a Series may have any.
        targets = replace(targets, task_names=expected.task_names)
    is_same = np.array_equal(targets.classes, expected.classes)
    if targets.task_names != expected.task_names or not is_same:
        raise ValueError(
            f"Training continues with the tasks {list(expected.task_names)} and the "
            f"classes {expected.classes.tolist()}; Y has {list(targets.task_names)} "
            f"and {targets.classes.tolist()}."
        )
    return targets


def _with_weight(rows: Rows) -> Rows:
    """Leave out rows of weight 0, and scale the other weights to a mean of 1."""
    assert rows.weights is not None
    kept = np.flatnonzero(rows.weights)
    weights = rows.weights[kept]
    return Rows(
        _safe_indexing(rows.X, kept),
        replace(rows.targets, values=rows.targets.values[kept]),
        weights / weights.mean(),
        None if rows.groups is None else rows.groups[kept],
    )


def _without_equal_weights(rows: Rows) -> Rows:
    """Drop weights that are all equal, for the result without them, to the bit."""
    weights = rows.weights
    if weights is None or (weights != weights[0]).any():
        return rows
    return replace(rows, weights=None)


def encode(
    settings: Settings,
    rows: Rows,
    earlier: Schema | None,
    holds_out: bool,
    random_state: np.random.RandomState,
    estimator_name: str,
) -> EncodedData:
    """Encode the table, by the earlier schema if there is one, and hold rows out.

    Raises
    ------
    ValueError, TypeError
        If a column cannot be encoded, or differs from those of the earlier fit.
    """
    if earlier is None:
        encoder = TableEncoder(
            settings.categorical_features,
            min_frequency=settings.encoding_params["min_frequency"],
            numeric_encoding=settings.numeric_encoding,
            estimator_name=estimator_name,
        )
        codes, numeric = encoder.fit_transform(rows.X, rows.weights)
        rates = base_rates(rows.targets.values, rows.weights)
        schema = Schema(encoder, rows.targets.without_labels(), rates)
    else:
        schema = earlier
        codes, numeric = schema.encoder.transform(rows.X)
    tensors = (
        None if array is None else torch.from_numpy(array)
        for array in (codes, numeric, rows.targets.values, rows.weights, rows.groups)
    )
    impressions = Impressions(*tensors)  # type: ignore[arg-type]
    if not holds_out:
        return EncodedData(TrainingData(impressions), schema)
    parts = funnel_holdout(
        rows.targets.values,
        test_size=settings.validation_fraction,
        random_state=random_state,
    )
    train, valid = (impressions.at(torch.from_numpy(part)) for part in parts)
    return EncodedData(TrainingData(train, valid), schema)


def base_rates(y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Return each task's rate of ones, above 0 and below the rate of the task before.

    Half a row is added to the ones and to the zeros, both of all rows and of the rows
    where the task before happened.
    """
    if weights is None:
        n_samples, positives = float(len(y)), y.sum(axis=0, dtype=np.float64)
    else:
        n_samples = weights.sum(dtype=np.float64)
        positives = weights.astype(float) @ y
    rates, before, rate = [], n_samples, 1.0
    for ones in positives:
        # Labels that break the funnel may have more ones in a later task.
        total, rate = (before, rate) if ones <= before else (n_samples, 1.0)
        rate *= (ones + 0.5) / (total + 1.0)
        rates.append(rate)
        before = ones
    return np.array(rates)
