"""Names of the columns that `HistoryFeatures` makes."""

# How the name of a column of `HistoryFeatures` ends that it has for each key.
SINCE_IMPRESSION = "__since_impression"


def history_column(names):
    """Return the name of a column that `HistoryFeatures` made, or None."""
    texts = (name for name in names if isinstance(name, str))
    return next((name for name in texts if name.endswith(SINCE_IMPRESSION)), None)
