"""Names of the columns that `HistoryFeatures` makes."""

# How the name of a column of `HistoryFeatures` ends that it has for each key.
SINCE_IMPRESSION = "__since_impression"


def history_column(names):
    """Return the name of a column that `HistoryFeatures` made, or None."""
    found = (n for n in names if isinstance(n, str) and n.endswith(SINCE_IMPRESSION))
    return next(found, None)
