"""Training that diverges, and tasks whose probabilities break the funnel."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sk_pwiser._training._batches import BatchIterator, Impressions, TrainingRows
from sk_pwiser._training._optimizers import sparse_tables
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import widest_float
from sk_pwiser.networks import NetworkOutput

# Largest ratios of a loss to the loss that training starts from. The first steps of
# Adam and RMSprop may overshoot by orders of magnitude and recover within the first
# epoch, whose mean they raise. Training that has not recovered after it does not.
FIRST_EPOCH, LATER = 1_000.0, 10.0

# Rows on which the loss after the last step is computed, and those on which that of
# constant probabilities is.
LAST_ROWS, CONSTANT_ROWS = 1_024, 16_384

# Largest usual values of parameters, and of learning rates by optimiser.
USUAL_LR, USUAL_LR_OF = 0.03, {"sgd": 1.0, "adagrad": 0.3}
USUAL = {
    "weight_decay": 0.1,
    "embedding_weight_decay": 0.1,
    "momentum": 0.999,
    "pwiser_weight": 10.0,
}
USUAL_WEIGHT = 100.0


class LossCheck:
    """Compares losses with that of the first batch and of constant probabilities.

    Parameters
    ----------
    criterion : MultiTaskCriterion
        The criterion; a copy of it computes the loss of constant probabilities.
    impressions : Impressions
        Training rows.
    device : torch.device
        Device of the criterion.
    """

    def __init__(
        self, criterion: nn.Module, impressions: Impressions, device: torch.device
    ) -> None:
        self.criterion = criterion
        self.impressions = impressions
        self.device = device
        self.first: Tensor | None = None
        self.n_epochs = 0

    def observe(self, loss: Tensor) -> None:
        """Remember the loss of the first batch, before the first step."""
        if self.first is None:
            self.first = loss.detach()

    def excess(self, loss: float, *, is_last: bool = False) -> str | None:
        """Describe a loss that is far too large; return None for another one.

        Parameters
        ----------
        loss : float
            Mean loss of an epoch, or that after the last step.
        is_last : bool, default=False
            Whether it is that after the last step, over the first `LAST_ROWS` rows.
        """
        self.n_epochs += not is_last
        ratio = LATER if is_last or self.n_epochs > 1 else FIRST_EPOCH
        assert self.first is not None
        start = self.first.item()
        # The first batch may have no pairs, or no converted row.
        if 0 <= loss <= ratio * start or loss < 0:
            return None
        start = max(start, self._constant_loss(CONSTANT_ROWS))
        if is_last:
            start = max(start, self._constant_loss(1))  # of the same rows
        if loss <= ratio * start:
            return None
        return f"{loss:.4g}, where training starts from {start:.3g}"

    def state_dict(self) -> dict[str, Any]:
        """Return the first loss, and the number of epochs that were checked."""
        return {"first": self.first, "n_epochs": self.n_epochs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.first, self.n_epochs = state["first"], state["n_epochs"]

    @torch.no_grad()
    def _constant_loss(self, n_rows: int) -> float:
        """Return the loss of the first rows, or more, if all have the tasks' rates."""
        criterion = deepcopy(self.criterion).eval()
        labels, weights = self.impressions.labels(), self.impressions.weights()
        if weights is None:
            weights = torch.ones_like(labels)
        weights = weights.view(len(labels), -1).expand_as(labels)
        weights = weights.to(widest_float(weights.device))
        ones, total = (weights * labels).sum(0), weights.sum(0)
        rates = (ones + 0.5) / (total + 1.0)
        logits = rates.logit().float().to(self.device)
        rows = BatchIterator(self.impressions, LAST_ROWS, device=self.device)
        loss, n_seen = 0.0, 0
        for inputs, y in rows:
            output = NetworkOutput(logits.expand(len(y), -1))
            value = criterion(
                output, y, inputs.get("sample_weight"), inputs.get("groups")
            )
            loss += value.item() * len(y)
            n_seen += len(y)
            if n_seen >= n_rows:
                break
        return loss / n_seen


def changed_weights(
    network: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Tensor]:
    """Yield what training may have changed: in an update, only rows of tables."""
    undo_log = getattr(optimizer, "undo_log", None)
    if undo_log is None:
        yield from network.parameters()
        return
    tables = set(sparse_tables(network))
    yield from (p for p in network.parameters() if p not in tables)
    yield from (table[rows] for table, rows, *_ in undo_log)


def advice(settings: Settings) -> str:
    """Return what to change if training diverges: what is far above usual values."""
    found = [f"Use a smaller {name}; it is {value}." for name, value in _far(settings)]
    return " ".join(found) or (
        "No parameter is far above its usual values; a smaller lr, which is "
        f"{settings.lr}, or clip_grad_norm in optimizer_params may help."
    )


def _far(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of parameters that are far above usual values."""
    usual_lr = USUAL_LR
    if isinstance(settings.optimizer, str):
        usual_lr = USUAL_LR_OF.get(settings.optimizer, USUAL_LR)
    usual = {**USUAL, "lr": usual_lr, "embedding_lr": usual_lr}
    own = ("lr", "weight_decay", "pwiser_weight")
    values: dict[str, Any] = {name: getattr(settings, name) for name in own}
    values |= {k: v for k, v in settings.optimizer_params.items() if k in usual}
    values |= _weights(settings.network_params)
    values |= {**settings.loss_params, **settings.weighting_params}
    for name, value in values.items():
        limit = usual.get(name, USUAL_WEIGHT)
        if any(abs(number) > limit for number in _numbers(value)):
            yield name, value


def _weights(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the weights of penalties among a network's parameters."""
    return {k: v for k, v in params.items() if k.endswith(("weight", "weights"))}


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Real):
        yield float(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)


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


def find_rises(net: Any, train: TrainingRows, n_epochs: int) -> Rises | None:
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
