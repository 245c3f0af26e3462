"""Tasks that are predicted as more probable than their parents."""

from collections.abc import Collection
from typing import Any, NamedTuple

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._divergence import checked_logits

# Rows to predict at most: enough to distinguish the share from noise.
MOST_COMPARED = 2_000

# With fewer rows, nothing is compared.
LEAST_COMPARED = 200

# Rows to predict per row that training has read: few.
ROWS_PER_TRAINED_ROW = 0.02

# Share of rows above which `fit` warns. Two tasks reach it only if almost every click
# converts; noise alone does not reach it.
RISING_SHARE = 0.1


class Rises(NamedTuple):
    """The task that is more probable than its parent in most rows."""

    task: int  # its index
    share: float  # of the rows in which its probability exceeds that of its parent


def find_rises(
    net: Any, train: TrainingRows, n_epochs: int, left_out: Collection[int] = ()
) -> Rises | None:
    """Compare tasks with their parents on a sample of the rows, if it is not small.

    Tasks that are `left_out` are not compared.
    """
    n_trained = len(train) * n_epochs
    sample = train.spaced(min(MOST_COMPARED, int(ROWS_PER_TRAINED_ROW * n_trained)))
    parents = enumerate(net.module_.spec.event_parents)
    pairs = [(k, p) for k, p in parents if p >= 0 and k not in left_out]
    if len(sample) < LEAST_COMPARED or not pairs:
        return None
    logits, *_ = checked_logits(net, sample)
    shares = [float((logits[:, k] > logits[:, p]).float().mean()) for k, p in pairs]
    share, (later, _) = max(zip(shares, pairs, strict=True))
    return Rises(later, share) if share >= RISING_SHARE else None
