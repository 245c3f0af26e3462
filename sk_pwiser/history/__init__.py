"""Features of a log's own past, each row with what was known at its time.

What a user, an item or a pair did before an impression is often the strongest signal
in a log. :class:`HistoryFeatures` computes such columns for the rows of training, for
later periods and for single rows, with the same values and without leaks.
:class:`StoredHistory` keeps the state in a key-value store, for servers.
"""

from sk_pwiser.history._history_features import HistoryFeatures
from sk_pwiser.history._stored_history import StoredHistory

__all__ = ["HistoryFeatures", "StoredHistory"]
