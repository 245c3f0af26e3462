"""Weights per row and task, from a first model and the order of the rows.

The class is public as :class:`sk_pwiser.weighting.SessionCriticWeights`.
"""

from sk_pwiser._row_weights._session_critic import SessionCriticWeights
