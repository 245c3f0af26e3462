"""Predictions of the estimator's network, and its embeddings."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from sk_pwiser import _responses
from sk_pwiser._columns import _frames
from sk_pwiser._estimator import _predict_files
from sk_pwiser._estimator._column_inputs import (
    ColumnInput,
    column_inputs,
    found_combinations,
)
from sk_pwiser._estimator._prediction_mixin import PredictionMixin
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._recombined_rows import RowRecombiner
from sk_pwiser._settings import Settings, values_are_per_impression
from sk_pwiser._tasks._labels import Targets
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._schema import bag_inputs
from sk_pwiser._utils import _extras, _threads


class NetworkPredictionMixin(PredictionMixin):
    """Mixin class of the estimator: predictions and embeddings of its network."""

    _result: TrainingResult

    @property
    def column_encodings_(self) -> dict[Any, Any]:
        """How each column was read, by its name; see the attributes of the class."""
        check_is_fitted(self)
        return self._result.schema.column_encodings()

    def _column_inputs(
        self, X: Any, targets: Targets
    ) -> tuple[Any, dict[Any, ColumnInput]]:
        """Return a table as `fit` reads it, and how it would encode each column."""
        self._validate_params()  # type: ignore[attr-defined] # of scikit-learn
        settings = Settings.of(vars(self))
        return column_inputs(settings, X, targets, type(self).__name__)

    def _found_combinations(
        self, X: Any, targets: Targets, times: Any
    ) -> list[tuple[tuple[Any, ...], float | None]]:
        """Return the combinations that a fit would find, and their gains."""
        settings = Settings.of(vars(self))
        return found_combinations(settings, X, targets, times, type(self).__name__)

    def _values_of_combination(
        self, X: Any, index: int
    ) -> list[tuple[np.ndarray, list[str]]]:
        """Return per column of a combination the places of rows' values, and these."""
        encoder = self._result.schema.encoder
        return encoder.combinations_[index].values_of(encoder.read(X))

    def _predict_logits(self, X: Any) -> np.ndarray:
        """Return the logits of a table, float32 ndarray of shape (n, n_tasks)."""
        if not hasattr(self, "_result"):
            check_is_fitted(self)
        # Read once: a fit in another thread may set another result meanwhile.
        result = self._result
        with _threads.limited_threads(), self._exposure():
            if _frames.reads_in_parts(X):
                return _predict_files.dataset_logits(result, X)
            return result.net.forward(result.schema.predicted(X)).numpy()

    def _recombined_logits(
        self, *tables: Any, as_logged: bool = False
    ) -> tuple[list[Any], np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Return what explains rows: names, hashes of values, and a function.

        The names of the columns and the hashes of their encoded values,
        `(n_rows, n_columns)`, are of the rows of all tables, one after the other. The
        function maps `(n_new, n_columns)`, from which row each column comes, to the
        logits of these new rows, and the logarithms of their mean amounts given the
        event, `(n_new, n_tasks + n_values)`: at the reference of their exposure or,
        with `as_logged`, as the rows of the only table were shown, one new row each.
        """
        check_is_fitted(self)
        for table in tables:
            _frames.refuse_parts(table)
        result = self._result
        schema = result.schema
        net = result.net
        has_values = bool(len(schema.targets.learnt_values))
        exposure_kind = "logged" if as_logged else "reference"
        with _threads.limited_threads(), _responses.exposure_as(exposure_kind):
            encoded = [schema.predicted(table) for table in tables]
        exposure = encoded[0].exposure if as_logged else None
        cells = [schema.encoder.read(table).cells for table in tables]
        recombiner = RowRecombiner(
            schema.places(), encoded, schema.recombined_cells(cells)
        )

        def logits(sources: np.ndarray) -> np.ndarray:
            with _threads.limited_threads():
                rows = replace(recombiner.take(sources), exposure=exposure)
                if not has_values:
                    return net.forward(rows).numpy()
                heads = [head.numpy() for head in net.predict_heads(rows)]
                return np.hstack([heads[0], _log_means(result, *heads)])

        return recombiner.column_names, recombiner.value_hashes(), logits

    @overload
    def predict_proba(self, X: Any, *, output: None = None) -> np.ndarray: ...

    @overload
    def predict_proba(self, X: Any, *, output: str | os.PathLike[str]) -> Path: ...

    def predict_proba(
        self, X: Any, *, output: str | os.PathLike[str] | None = None
    ) -> np.ndarray | Path:
        """Predict probabilities over impressions.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix, ParquetImpressions} of shape \
                (n_samples, n_features)
            Impressions. The rows of a
            :class:`~sk_pwiser.datasets.ParquetImpressions` are read in parts.
        output : str or os.PathLike, default=None
            Folder for the probabilities of a dataset that is read in parts: one Parquet
            file per file, under the same name and with the same order of rows, with
            one column of P(Y_k = 1 | impression) per task. A file appears when it is
            complete. Files that are there already, from the same fit and rows, are
            kept, so that an interrupted call can be repeated; others are replaced, if
            the filters of the dataset select rows of theirs.

        Returns
        -------
        ndarray of shape (n_samples, n_tasks)
            Column k is P(Y_k = 1 | impression). For a single task, the ordinary
            `(n_samples, 2)` with the probabilities of both classes. With `output`, the
            `pathlib.Path` of the folder instead.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        if output is not None:
            check_is_fitted(self)
            with _threads.limited_threads(), self._exposure():
                return _predict_files.write_predictions(self._result, X, output)
        return super().predict_proba(X)

    def predict_value(self, X: Any, *, given_event: bool = False) -> np.ndarray:
        """Predict the mean amounts of the values.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.
        given_event : bool, default=False
            Whether to predict the mean amount given the event under which it arises,
            E[amount | event]. By default the mean per impression: P(event) times this.

        Returns
        -------
        ndarray of shape (n_samples, n_values) or (n_samples,)
            Mean amounts, in the unit of `Y`, as float64; 1-D for one value.

        Raises
        ------
        ValueError
            If the estimator was fitted without `value_tasks`.
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        check_is_fitted(self)
        result = self._result
        values = result.schema.targets.learnt_values
        if not len(values):
            raise ValueError(
                "predict_value needs an estimator that was fitted with value_tasks."
            )
        with _threads.limited_threads(), self._exposure():
            tables: Iterable[Impressions]
            if _frames.reads_in_parts(X):
                tables = _predict_files.encoded_tables(result.schema, X)
            else:
                tables = [result.schema.predicted(X)]
            heads = [result.net.predict_heads(rows) for rows in tables]
        logits, scores = (np.concatenate(arrays) for arrays in zip(*heads, strict=True))
        means = np.exp(scores.astype(np.float64)) * np.array(result.schema.value_scales)
        log_p = -np.logaddexp(0, -logits.astype(np.float64))
        is_per_impression = values_are_per_impression(result.settings)
        for value, parent in enumerate(values.parents):
            if parent >= 0 and given_event == is_per_impression:
                sign = -1 if given_event else 1
                means[:, value] *= np.exp(sign * log_p[:, parent])
        return means[:, 0] if len(values) == 1 else means

    def encode(self, X: Any) -> Bunch:
        """Encode a table as the network reads it.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        sklearn.utils.Bunch
            Dictionary-like object with the following attributes.

            codes : integer ndarray of shape (n_samples, n_category_columns)
                Codes of the category columns: 0 for a missing value, 1 for a value that
                was unseen or too rare in fit, and from 2 on the others, numbers in
                increasing order before text.
            numeric : float32 ndarray of shape (n_samples, n_numeric)
                One input per numeric column, encoded by `numeric_encoding` (with
                encodings by bins the position among their edges), followed
                by a 0/1 indicator if values were missing in fit; then the target
                statistics, per column one per task and one of the frequency.
            bags : scipy.sparse.csr_array of shape (n_samples, n_vectors), or None
                Weights of the entries of a sparse `X` and of lists, one column per
                vector of the network; None if there are none.
            bag_inputs : dict of str to ndarray
                The same entries as further inputs of the network, named as those of
                :func:`~sk_pwiser.export.to_onnx`, in the order of rows, columns and
                elements; empty if there are none.
            category_names, numeric_names : list
                Names of the columns of `codes` and of `numeric`.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        check_is_fitted(self)
        schema = self._result.schema
        rows = schema.transform(X)
        bags = bag_inputs([None if t is None else t.numpy() for t in rows.bags or ()])
        numeric_names = schema.encoder.numeric_names_
        if schema.statistics is not None:
            value_names = schema.targets.learnt_values.names
            numeric_names += schema.statistics.names(
                schema.encoder, self.task_names_, value_names
            )
        return Bunch(
            codes=rows.codes.numpy(),
            numeric=rows.numeric.numpy(),
            bags=schema.bag_matrix(bags),
            bag_inputs=bags,
            category_names=schema.encoder.category_names_,
            numeric_names=numeric_names,
        )

    def category_embeddings(self, column: int | str, *, as_frame: bool = True) -> Any:
        """Return the learnt embeddings of the values of a category column.

        Parameters
        ----------
        column : str or int
            Name of the column; its index if `fit` saw no names.
        as_frame : bool, default=True
            Whether to return a pandas DataFrame.

        Returns
        -------
        DataFrame, or tuple of (ndarray, ndarray)
            One row per value, in the order of the codes; the index contains the values.
            Values that share the code of unseen values, since they have fewer than
            `min_frequency` rows, are left out. If values were missing in fit, the last
            row, of index None, is their embedding. The columns are the components, of
            all tables one after the other if the network has several tables, as "stem"
            does. With `as_frame=False` the values and the float32 embeddings.

        Raises
        ------
        ValueError
            If there is no such category column.
        ImportError
            If `as_frame=True` and pandas is not installed.
        """
        check_is_fitted(self)
        result = self._result
        encoder = result.schema.encoder
        names = encoder.category_names_
        if column not in names:
            raise ValueError(
                f"column must be one of the category columns {names}; got {column!r}."
            )
        codes = next(c.own_values_ for c in encoder.all_columns_ if c.name == column)
        values = np.fromiter(codes, dtype=object, count=len(codes))
        layer = result.net.module_.input_layer
        table = layer.column_embeddings(names.index(column)).cpu().numpy()
        embeddings = table[list(codes.values())]
        if not as_frame:
            return values, embeddings
        pandas = _extras.import_extra("pandas", "category_embeddings(as_frame=True)")
        return pandas.DataFrame(
            embeddings, index=pandas.Index(values, dtype=object, name=column)
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.input_tags.sparse = True
        return tags


def _log_means(
    result: TrainingResult, logits: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """Return the logarithms of the mean amounts given the event, float64."""
    log_means = scores.astype(np.float64) + np.log(result.schema.value_scales)
    if values_are_per_impression(result.settings):
        log_p = -np.logaddexp(0, -logits.astype(np.float64))
        for value, parent in enumerate(result.schema.targets.learnt_values.parents):
            if parent >= 0:
                log_means[:, value] -= log_p[:, parent]
    return log_means
