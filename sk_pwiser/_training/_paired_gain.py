"""How much better one model predicts an event of held-out rows than another one."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PairedGain:
    """What a model gains over another one on the same rows, per row."""

    log_loss: np.ndarray  # (n_rows,): by how much the log loss is lower
    ranking: np.ndarray  # (n_events,): by how much more other rows an event exceeds
    weights: np.ndarray  # (n_rows,)
    event_weights: np.ndarray  # (n_events,)

    @classmethod
    def of(
        cls, first: np.ndarray, second: np.ndarray, y: np.ndarray, weights: np.ndarray
    ) -> "PairedGain":
        """Compare the logits of the second model with those of the first one."""
        has_weight = weights > 0
        y = y[has_weight]
        weights = weights[has_weight]
        logits = [values[has_weight].astype(np.float64) for values in (first, second)]
        first_loss, second_loss = (np.logaddexp(0.0, f) - f * y for f in logits)
        first_rank, second_rank = (ranks_of_events(f, y, weights) for f in logits)
        return cls(
            log_loss=first_loss - second_loss,
            ranking=second_rank - first_rank,
            weights=weights,
            event_weights=weights[y == 1],
        )

    @property
    def auc(self) -> float:
        """The gain of AUC."""
        return float(np.average(self.ranking, weights=self.event_weights))


def ranks_of_events(f: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of the rows without the event that each event exceeds.

    Their mean is the AUC; equal scores count half.
    """
    is_event = y == 1
    others = f[~is_event]
    order = np.argsort(others, kind="stable")
    sums = np.concatenate([[0.0], weights[~is_event][order].cumsum()])
    below = sums[np.searchsorted(others[order], f[is_event], "left")]
    not_above = sums[np.searchsorted(others[order], f[is_event], "right")]
    shares: np.ndarray = (below + not_above) / 2 / sums[-1]
    return shares


def standard_score(
    values: Sequence[np.ndarray], weights: Sequence[np.ndarray]
) -> float:
    """Return the weighted mean of all values in multiples of its standard error."""
    all_values = np.concatenate(values)
    all_weights = np.concatenate(weights)
    mean = np.average(all_values, weights=all_weights)
    deviations = all_weights * (all_values - mean)
    error = np.sqrt(np.sum(deviations**2)) / all_weights.sum()
    return float(mean / error) if error > 0 else 0.0


def scores_of(gains: Sequence[PairedGain]) -> tuple[float, float]:
    """Return the gains of log loss and of ranking in multiples of their errors."""
    return (
        standard_score([g.log_loss for g in gains], [g.weights for g in gains]),
        standard_score([g.ranking for g in gains], [g.event_weights for g in gains]),
    )
