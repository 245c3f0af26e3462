"""How often a later task comes out likelier than an earlier one."""

from typing import NamedTuple

import torch

from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._streamed import TrainingRows

# Rows that are looked at: few beside those that training has seen, and enough to tell
# the share from noise.
MAX_ROWS, MIN_ROWS = 2_000, 200
ROWS_PER_TRAINED_ROW = 0.02

# Share of rows from which on `fit` warns. Two tasks reach it only if almost every click
# converts; noise alone does not.
RISING_SHARE = 0.1


class Rises(NamedTuple):
    """The two neighbouring tasks whose probabilities rise in most rows.

    Parameters
    ----------
    task : int
        Index of the later one.
    share : float
        Share of the rows in which it is likelier than the task before it.
    """

    task: int
    share: float


def find_rises(net: MultiTaskNet, train: TrainingRows, n_epochs: int) -> Rises | None:
    """Compare neighbouring tasks on a sample of the training rows.

    Parameters
    ----------
    net : MultiTaskNet
        The trained net.
    train : Impressions or StreamedImpressions
        Its training rows.
    n_epochs : int
        Number of epochs trained, which bounds the size of the sample.

    Returns
    -------
    Rises or None
        None if there is one task, if the sample would be too small, or if the share is
        below that of the warning.
    """
    n_trained, train = len(train) * n_epochs, train.sample
    n_rows = min(MAX_ROWS, len(train), int(ROWS_PER_TRAINED_ROW * n_trained))
    if n_rows < MIN_ROWS or len(net.task_names) < 2:
        return None
    # Evenly spaced: a draw would change the random numbers of later fits.
    chosen = torch.linspace(0, len(train) - 1, n_rows).long()
    if train.rows is not None:
        chosen = train.rows[chosen.to(train.rows.device)]
    logits = net.forward(train.at(chosen.to(train.codes.device)))
    shares = (logits.diff(dim=1) > 0).float().mean(dim=0)
    k = int(shares.argmax())
    share = float(shares[k])
    return Rises(k + 1, share) if share >= RISING_SHARE else None
