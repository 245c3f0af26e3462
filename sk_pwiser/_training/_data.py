"""A table becomes tensors: the one place where training meets `_table`."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sk_pwiser._table import (
    UNSEEN,
    TableEncoder,
    Targets,
    TargetStatistics,
    assign_blocks,
    base_rates,
    make_target_statistics,
    read_times,
    row_weights,
    warn_about_new_values,
)
from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._embedding_dims import automatic_dims
from sk_pwiser._training._net import TrainingData
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._task_labels import task_labels
from sk_pwiser.model_selection import funnel_holdout
from sk_pwiser.networks import NetworkSpec


@dataclass(frozen=True)
class Schema:
    """The encoding of the table and the tasks, as predictions and later fits use it.

    Parameters
    ----------
    encoder : TableEncoder
        Encodes tables as the training rows were encoded.
    targets : Targets
        Classes and names of the tasks, without labels.
    base_rates : ndarray of shape (n_tasks,)
        Rates of ones, where the output biases started.
    statistics : TargetStatistics, default=None
        Target statistics of category columns, which follow the encoder's numeric
        inputs.
    automatic_dims : tuple of int, default=()
        Widths of the columns' embeddings with `embedding_dim="auto"`, by the number of
        values in the first fit.
    """

    encoder: TableEncoder
    targets: Targets
    base_rates: np.ndarray
    statistics: TargetStatistics | None = None
    automatic_dims: tuple[int, ...] = ()

    def transform(self, X: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the codes and the numeric inputs of a table."""
        codes, numeric = self.encoder.transform(X)
        if self.statistics is not None:
            numeric = np.hstack([numeric, self.statistics.transform(codes)])
        return self.without_rare(codes), numeric

    def without_rare(self, codes: np.ndarray) -> np.ndarray:
        """Replace the codes of rare values by that of unseen values, in place."""
        sizes = zip(self.encoder.cardinalities_, self.encoder.n_codes_, strict=True)
        for column, (cardinality, n_codes) in enumerate(sizes):
            if n_codes > cardinality:
                of_rows = codes[:, column]
                of_rows[of_rows >= cardinality] = UNSEEN
        return codes

    def spec(self, settings: Settings, **shared: Any) -> NetworkSpec:
        """Describe the table to a network."""
        is_automatic = settings.embedding_dim == "auto"
        dims = self.automatic_dims if is_automatic else ()
        n_statistics = 0 if self.statistics is None else self.statistics.n_outputs
        return NetworkSpec(
            self.encoder.cardinalities_,
            self.encoder.n_numeric_ + n_statistics,
            max(dims, default=1) if is_automatic else settings.embedding_dim,
            self.base_rates.tolist(),
            unseen_code=UNSEEN,
            category_dropout=settings.encoding_params["category_dropout"],
            numeric_bins=[*self.encoder.numeric_bins_, *[0] * n_statistics],
            embedding_dims=dims,
            negative_sampling_rate=settings.negative_sampling_rate,
            **shared,
        )


@dataclass(frozen=True)
class EncodedData:
    """The rows as tensors, and the schema that they were encoded by.

    Parameters
    ----------
    rows : TrainingData
        Training and validation rows.
    schema : Schema
        The encoding of the table.
    labelled : tuple of ndarray, default=None
        Codes, labels and task weights of rows that the target statistics do not
        include yet.
    """

    rows: TrainingData
    schema: Schema
    labelled: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def update_statistics(self) -> None:
        """Add the rows of an update to the statistics that they were encoded by."""
        if self.labelled is not None and self.schema.statistics is not None:
            self.schema.statistics.update(*self.labelled)


def encode(
    settings: Settings,
    rows: Rows,
    earlier: Schema | None,
    random_state: np.random.RandomState,
    *,
    holds_out: bool,
    is_update: bool,
    estimator_name: str,
    extends: bool = False,
) -> EncodedData:
    """Encode the table, by the earlier schema if there is one, and hold rows out.

    Parameters
    ----------
    settings : Settings
        The estimator's parameters.
    rows : Rows
        The table and its checked labels.
    earlier : Schema or None
        Schema of the fit that training continues from.
    random_state : RandomState
        Draws the validation rows.
    holds_out : bool
        Whether there are validation rows.
    is_update : bool
        Whether the rows are added to those of the earlier fit. Their inputs are then
        the statistics before them, and otherwise those of the other blocks.
    estimator_name : str
        Name of the estimator, for messages.
    extends : bool, default=False
        Whether the statistics of `earlier` encode the rows, instead of new ones. Base
        rates are those of the rows.

    Raises
    ------
    ValueError, TypeError
        If a column cannot be encoded, or differs from those of the earlier fit.
    """
    if earlier is not None:
        rows = replace(rows, X=earlier.encoder.align(rows.X))
    schema, codes, numeric = _encode_columns(settings, rows, earlier, estimator_name)
    if is_update and earlier is not None and not settings.grows:
        warn_about_new_values(schema.encoder, codes, rows.X)
    y = rows.targets.values
    train, valid = np.arange(len(y)), None
    if holds_out:
        train, valid = funnel_holdout(
            rows.targets.with_nan(),
            test_size=settings.validation_fraction,
            random_state=random_state,
        )
    labelled = None
    if is_update and earlier is not None:
        if schema.statistics is not None:
            inputs = schema.statistics.transform(codes)
            numeric = np.hstack([numeric, inputs])
            labelled = (codes.copy(), *_task_labels(settings, rows))
    else:
        if extends:
            schema = replace(schema, base_rates=base_rates(y, rows.weights))
        else:
            statistics = make_target_statistics(
                settings.target_encoding,
                schema.encoder,
                len(y),
                settings.encoding_params,
            )
            if earlier is not None:
                _check_same_statistics(settings, earlier, statistics)
            schema = replace(schema, statistics=statistics)
        times = _read_times(settings, rows, schema)
        if schema.statistics is not None:
            inputs = _fit_statistics(settings, rows, schema, codes, valid, times)
            numeric = np.hstack([numeric, inputs])
    codes = schema.without_rare(codes)
    tensors = (
        None if array is None else torch.from_numpy(array)
        for array in (codes, numeric, y, rows.weights, rows.groups)
    )
    impressions = Impressions(*tensors)  # type: ignore[arg-type]
    if valid is None:
        return EncodedData(TrainingData(impressions), schema, labelled)
    parts = (impressions.at(torch.from_numpy(part)) for part in (train, valid))
    return EncodedData(TrainingData(*parts), schema, labelled)


def _encode_columns(
    settings: Settings, rows: Rows, earlier: Schema | None, estimator_name: str
) -> tuple[Schema, np.ndarray, np.ndarray]:
    """Return the schema, the codes, those of rare values included, and the numbers."""
    if earlier is not None:
        return earlier, *earlier.encoder.transform(rows.X)
    params = settings.encoding_params
    encoder = TableEncoder(
        settings.categorical_features,
        min_frequency=params["min_frequency"],
        max_categories=params["max_categories"],
        n_hash_buckets=params["n_hash_buckets"],
        numeric_encoding=settings.numeric_encoding,
        estimator_name=estimator_name,
        keeps_rare=True,  # for target statistics, and to tell rare from new values
    )
    codes, numeric = encoder.fit_transform(rows.X, row_weights(rows.weights))
    rates = base_rates(rows.targets.values, rows.weights)
    schema = Schema(
        encoder,
        rows.targets.without_labels(),
        rates,
        automatic_dims=automatic_dims(encoder.cardinalities_),
    )
    return schema, codes, numeric


def _check_same_statistics(
    settings: Settings, earlier: Schema, statistics: TargetStatistics | None
) -> None:
    """Raise if a continued fit selects other columns for target statistics."""
    found, expected = (
        [] if one is None else one.columns for one in (statistics, earlier.statistics)
    )
    if found != expected:
        columns = [c.name for c in earlier.encoder.columns_ if hasattr(c, "n_codes")]
        raise ValueError(
            f"Training cannot continue with target_encoding="
            f"{settings.target_encoding!r}: it selects the columns "
            f"{[columns[i] for i in found]}, the earlier fit those of "
            f"{[columns[i] for i in expected]}."
        )


def _read_times(settings: Settings, rows: Rows, schema: Schema) -> np.ndarray | None:
    names = [column.name for column in schema.encoder.columns_]
    times: np.ndarray | None = read_times(
        rows.X, settings.encoding_params["time_column"], names
    )
    return times


def _fit_statistics(
    settings: Settings,
    rows: Rows,
    schema: Schema,
    codes: np.ndarray,
    valid: np.ndarray | None,
    times: np.ndarray | None,
) -> np.ndarray:
    """Fit the target statistics; return the inputs of training and validation rows."""
    assert schema.statistics is not None
    n_samples = len(codes)
    is_valid = np.zeros(n_samples, dtype=bool)
    if valid is not None:
        is_valid[valid] = True
    block = assign_blocks(
        n_samples,
        settings.encoding_params["target_encoding_blocks"],
        times=times,
        groups=rows.groups,
    )
    y, weights = _task_labels(settings, rows)
    return schema.statistics.fit_transform(codes, y, weights, block, is_valid)


def _task_labels(settings: Settings, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that each task's rates are taken of, and their weights."""
    is_conditional = settings.shared_param("task_space") == "conditional"
    return task_labels(rows.targets.values, rows.weights, conditional=is_conditional)
