"""The schema of a table, learnt from its rows part by part."""

from sk_pwiser._table._arrays import ArrayColumn
from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._containers import as_table
from sk_pwiser._table._dataframe import list_columns
from sk_pwiser._table._in_parts._row_sample import RowSample
from sk_pwiser._table._in_parts._value_counts import ValueCounts
from sk_pwiser._table._lists import ListColumn
from sk_pwiser._table._numeric import NumericColumn
from sk_pwiser._table._read_lists import read_lists
from sk_pwiser._table._weights import row_weights, scale_weights
from sk_pwiser._utils import warn_user


class TableLearner:
    """Learns the encoding of a table in one pass over its rows.

    The frequencies of category values are exact up to a bound, see `ValueCounts`. The
    distributions of numbers are those of a random sample of the rows. If all rows are
    in the sample, the encoder is the one that `fit_transform` gives.

    Parameters
    ----------
    encoder : TableEncoder
        The encoder, not yet fitted.
    dataset : object
        Has `sample_rows` and `max_values`.
    generator : numpy.random.Generator
        Draws the sample.
    """

    def __init__(self, encoder, dataset, generator):
        self.encoder = encoder
        self.max_values = dataset.max_values
        self.sample = RowSample(dataset.sample_rows, generator)
        self.counts = None

    def add(self, X, weights):
        """Add rows.

        Parameters
        ----------
        X : pyarrow.Table of shape (n_rows, n_features)
            The rows.
        weights : float64 ndarray of shape (n_rows,) or (n_rows, n_tasks), or None
            Their weights.
        """
        if self.counts is None:
            self._begin(X)
        frame = as_table(X)
        for column, values in zip(
            self.encoder.columns_, list_columns(frame), strict=True
        ):
            if isinstance(column, CategoryColumn):
                self.counts[column.name].add(values)
            elif isinstance(column, ListColumn):
                lists = read_lists(values, column.name)
                self.counts[column.name].add(lists.elements)
                self.missing_lists[column.name] |= bool((lists.sizes < 0).any())
                self.empty_lists[column.name] |= bool((lists.sizes == 0).any())
        self.sample.add(X.select(self.numeric), weights)

    def _begin(self, X):
        self.encoder.begin(X)
        columns = self.encoder.columns_
        self.counts = {
            column.name: ValueCounts(column, self.max_values)
            for column in columns
            if isinstance(column, CategoryColumn)
        }
        lists = [column for column in columns if isinstance(column, ListColumn)]
        for column in lists:
            self.counts[column.name] = ValueCounts(column.items_, self.max_values)
        self.missing_lists = dict.fromkeys((c.name for c in lists), False)
        self.empty_lists = dict(self.missing_lists)
        kinds = NumericColumn, ArrayColumn
        self.numeric = [c.name for c in columns if isinstance(c, kinds)]

    def finish(self):
        """Fit the encoder.

        Raises
        ------
        ValueError or TypeError
            If a numeric column cannot be read, as in `fit_transform`.

        Warns
        -----
        UserWarning
            If a column has more values than can be counted exactly.
        """
        for counts in self.counts.values():
            counts.finish()
        columns = {column.name: column for column in self.encoder.columns_}
        for name, has_missing in self.missing_lists.items():
            columns[name].learn_special(has_missing, self.empty_lists[name])
        table, weights = self.sample.finish()
        if weights is not None:
            weights = row_weights(scale_weights(weights))
        values = list_columns(as_table(table)) if self.numeric else []
        encoders = [columns[name] for name in self.numeric]
        pairs = list(zip(encoders, values, strict=True))
        self.encoder.learn_numbers(pairs, weights)
        self._warn_about_dropped()

    def _warn_about_dropped(self):
        found = [
            f"{name!r} ({counts.max_dropped})"
            for name, counts in self.counts.items()
            if counts.max_dropped
        ]
        if found:
            warn_user(
                f"Columns with more than max_values={self.max_values} values: "
                f"{', '.join(found)}. In brackets stands the number of rows by which "
                "the frequency of a value may be too low; rare values count as unseen. "
                "n_hash_buckets in encoding_params gives each value a vector."
            )
