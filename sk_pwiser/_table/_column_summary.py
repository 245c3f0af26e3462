"""What the columns of a fitted encoder say about the inputs of a network."""

from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._lists import ListColumn
from sk_pwiser._table._numeric import NumericColumn


class ColumnSummary:
    """Sizes and names of the encoded arrays.

    Subclasses have `columns_`, the fitted columns, and `sparse_`, the columns of a
    sparse table or None.
    """

    @property
    def cardinalities_(self):
        """Number of codes of each category column."""
        return [c.cardinality for c in self.columns_ if isinstance(c, CategoryColumn)]

    @property
    def n_codes_(self):
        """Number of codes of each category column, those of rare values included."""
        return [c.n_codes for c in self.columns_ if isinstance(c, CategoryColumn)]

    @property
    def numeric_bins_(self):
        """Number of bins of each numeric input, 0 for inputs that have no bins.

        The indicators of missing values are numeric inputs, too.
        """
        columns = (c for c in self.columns_ if isinstance(c, NumericColumn))
        return [n_bins for column in columns for n_bins in column.bins]

    @property
    def bin_scales_(self):
        """Factor of the components of each numeric input, empty without scores."""
        columns = [c for c in self.columns_ if isinstance(c, NumericColumn)]
        if not any(column.has_scores for column in columns):
            return []
        return [scale for column in columns for scale in column.bin_scales]

    @property
    def n_numeric_(self):
        """Number of numeric inputs, including the indicators of missing values."""
        return len(self.numeric_bins_)

    @property
    def category_names_(self):
        """Names of the category columns, in the order of the codes."""
        return [c.name for c in self.columns_ if isinstance(c, CategoryColumn)]

    @property
    def numeric_names_(self):
        """Names of the numeric inputs; those of indicators end with "_missing"."""
        columns = (c for c in self.columns_ if isinstance(c, NumericColumn))
        return [name for column in columns for name in column.input_names]

    @property
    def bags_(self):
        """The bags: the number of vectors, and whether one stands for unseen values."""
        if self.sparse_ is not None:
            return [(self.sparse_.n_vectors, False)]
        lists = [c for c in self.columns_ if isinstance(c, ListColumn)]
        return [(column.n_vectors, True) for column in lists]

    def category_values(self, name):
        """Return a dict from the values of a category column to their own codes."""
        return self.columns_[[c.name for c in self.columns_].index(name)].own_values_
