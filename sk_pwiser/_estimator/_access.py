"""What lies behind the predictions: one task, logits, the encoding, embeddings."""

import numpy as np
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._estimator._task_view import TaskView, check_task, find_column


class Access:
    """Public access to one task and to the parts of a fitted estimator."""

    def task(self, task):
        """Return one task as an ordinary binary classifier.

        Parameters
        ----------
        task : int or str
            The task: its index, its name, or "cvr" for P(last task | first task). Use
            the index of a task whose own name is "cvr".

        Returns
        -------
        TaskView
            Of a fitted estimator it predicts at once; of an unfitted one, `fit` trains
            a clone of the estimator on all tasks. See
            :class:`~sk_pwiser.TaskView`.

        Raises
        ------
        ValueError
            If the fitted estimator has no such task. A view of an unfitted estimator
            raises it in `fit`.
        TypeError
            If `task` is neither an int nor a str.
        """
        check_task(task)
        if hasattr(self, "task_names_"):
            find_column(task, self.task_names_)
        return TaskView(self, task)

    def predict_logits(self, X):
        """Predict log-odds over impressions, which do not saturate near 0 and 1.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        float32 ndarray of shape (n_samples, n_tasks) or (n_samples,)
            Column k is log(p / (1 - p)) of p = P(Y_k = 1 | impression), also with
            `task_space="conditional"`. 1-D for a single task.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        logits = self._predict_logits(X).numpy()
        return logits[:, 0] if self.classes_.ndim == 1 else logits

    def predict_frame(self, X):
        """Predict probabilities over impressions as a DataFrame.

        The values are those of `predict_proba`, which returns an array: `set_output` of
        scikit-learn is for transformers, and its scorers and meta-estimators take the
        columns of probabilities by position.

        Parameters
        ----------
        X : {DataFrame, array-like, sparse matrix} of shape (n_samples, n_features)
            Impressions.

        Returns
        -------
        DataFrame of shape (n_samples, n_tasks)
            One column per task, named as in `task_names_`, with P(task = 1 |
            impression), also for a single task. A polars DataFrame if `X` is one;
            otherwise a pandas DataFrame, with the index of `X` if it has one.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        ImportError
            If pandas is not installed, and `X` is not a polars DataFrame.
        """
        positive = self._predict_positive(X)
        if type(X).__module__.partition(".")[0] == "polars":
            return type(X)(positive, schema=self.task_names_)
        pandas = _import_pandas("predict_frame")
        index = X.index if isinstance(X, pandas.DataFrame) else None
        return pandas.DataFrame(positive, index=index, columns=self.task_names_)

    def encode(self, X):
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
            category_names, numeric_names : list
                Names of the columns of `codes` and of `numeric`.

        Raises
        ------
        ValueError, TypeError
            If the columns of `X` are not those seen in fit.
        """
        check_is_fitted(self)
        schema = self._result.schema
        inputs = schema.transform(X)
        categories = schema.encoder.category_names_
        numbers = schema.encoder.numeric_names_
        if schema.statistics is not None:
            numbers += schema.statistics.names(categories, self.task_names_)
        return Bunch(
            codes=inputs.codes,
            numeric=inputs.numeric,
            bags=inputs.bag_matrix(schema.encoder.bags_),
            category_names=categories,
            numeric_names=numbers,
        )

    def category_embeddings(self, column, *, as_frame=True):
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
        codes = encoder.category_values(column)
        values = np.empty(len(codes), dtype=object)
        values[:] = list(codes)
        layer = result.net.module_.input_layer
        table = layer.column_embeddings(names.index(column)).cpu().numpy()
        embeddings = table[list(codes.values())]
        if not as_frame:
            return values, embeddings
        pandas = _import_pandas("category_embeddings(as_frame=True)")
        return pandas.DataFrame(
            embeddings, index=pandas.Index(values, dtype=object, name=column)
        )


def _import_pandas(user):
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            f'{user} needs pandas: pip install "sk_pwiser[pandas]"'
        ) from error
    return pandas
