"""What the columns of a fitted encoder are: for descriptions of it."""

from sk_pwiser._table._arrays import ArrayColumn
from sk_pwiser._table._categories import CategoryColumn
from sk_pwiser._table._lists import ListColumn, ListWeights
from sk_pwiser._table._numeric import NumericColumn

# Arrays are numeric columns, too: the first class that applies is the kind.
KINDS = {
    CategoryColumn: "category",
    ListColumn: "list of categories",
    ListWeights: "weights of a list",
    ArrayColumn: "array of numbers",
    NumericColumn: "numeric",
}


def column_kinds(encoder):
    """Return the names of the columns of a fitted `TableEncoder`, by their kind."""
    if encoder.sparse_ is not None:
        names = getattr(encoder, "feature_names_in_", range(encoder.n_features_in_))
        return {"sparse": list(names)}
    kinds = {}
    for column in encoder.columns_:
        kind = next(kind for cls, kind in KINDS.items() if isinstance(column, cls))
        kinds.setdefault(kind, []).append(column.name)
    return kinds


def vector_counts(encoder):
    """Return the numbers of embedding vectors, by category and then by list column.

    The sparse columns, one vector each, are one entry.
    """
    if encoder.sparse_ is not None:
        return {"sparse columns": encoder.sparse_.n_vectors}
    names = encoder.category_names_
    lists = [c for c in encoder.columns_ if isinstance(c, ListColumn)]
    return {
        **dict(zip(names, encoder.cardinalities_, strict=True)),
        **{column.name: column.n_vectors for column in lists},
    }
