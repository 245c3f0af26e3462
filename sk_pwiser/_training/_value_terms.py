"""The losses of the values of a batch, beside those of the events."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser._training._levels._drift import Drift
from sk_pwiser.losses import ValueLoss
from sk_pwiser.networks import NetworkOutput


class ValueTerms(nn.Module):
    """Computes the loss of each value from the amounts of a batch.

    Parameters
    ----------
    names : sequence of str
        Names of the values.
    parents : sequence of int
        Index of the task under which each amount arises, -1 for none.
    loss : type of ValueLoss
        The loss of a row.
    sampling_rate : float
        Share of the rows without the first task that the log has kept.

    Attributes
    ----------
    n_amounts : Tensor of shape (n_values,)
        Numbers of amounts of all rows so far.
    squared_logs : Tensor of shape (n_values,)
        Sums of squared deviations of the logarithms of amounts over predictions, over
        all rows so far.
    largest_amounts : Tensor of shape (n_values,)
        Amounts above them count as these.
    log_moves : Tensor of shape (n_values,)
        Logarithms of the factors by which the market has moved since the first fit.
        Training adds them to the scores, which would otherwise learn the moves again.
    drift : Drift
        How far the levels of the amounts wander.
    """

    def __init__(
        self,
        *,
        names: Sequence[str],
        parents: Sequence[int],
        loss: type[ValueLoss],
        sampling_rate: float = 1.0,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.parents = tuple(parents)
        self.loss = loss
        self.sampling_rate = sampling_rate
        self.n_amounts = nn.Buffer(torch.zeros(len(self.names)))
        self.squared_logs = nn.Buffer(torch.zeros(len(self.names)))
        self.log_moves = nn.Buffer(torch.zeros(len(self.names)))
        self.drift = Drift(len(self.names))
        # Larger amounts count as these, see `_amount_epochs.limit_amounts`.
        self.largest_amounts = nn.Buffer(torch.full((len(self.names),), torch.inf))
        # On the device, and changed in place, as graphs require.
        self._totals = nn.Buffer(torch.zeros(len(self.names)), persistent=False)
        self._n_rows = nn.Buffer(torch.zeros(()), persistent=False)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any
    ) -> None:
        # Files of 0.2.0 have sums that are no longer needed.
        state_dict.pop(f"{prefix}log_gaps", None)
        # Files of early development versions have none of them.
        defaults = {
            "squared_logs": torch.zeros_like(self.squared_logs),
            "log_moves": torch.zeros_like(self.log_moves),
            "largest_amounts": torch.full_like(self.largest_amounts, torch.inf),
        }
        for name, default in defaults.items():
            state_dict.setdefault(prefix + name, default)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None,
        amounts: Tensor | None,
    ) -> Tensor:
        """Return the losses, of shape `(n_values,)`: sums over rows, per row."""
        if output.value_scores is None or amounts is None:
            raise ValueError("The rows have no amounts, or the network no values.")
        amounts, weights = self.targets(y, sample_weight, amounts)
        scores = output.value_scores + self.log_moves
        losses = self.loss.row_losses(scores, amounts)
        return (losses * weights).mean(dim=0)

    def targets(
        self, y: Tensor, sample_weight: Tensor | None, amounts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return scaled amounts and their weights, both `(batch, n_values)`.

        They are 0 where none is learnt.

        Divided by the size of the batch, the losses of the rows with the event add up
        to the log-likelihood, as those of conditional heads do.
        """
        amounts = amounts.minimum(self.largest_amounts.to(amounts.device))
        weights = torch.ones_like(amounts)
        if sample_weight is not None:
            columns = [max(parent, 0) for parent in self.parents]
            by_task = sample_weight.view(len(y), -1)
            weights = by_task[:, columns] if by_task.shape[1] > 1 else weights * by_task
        if self.loss.reads_all_rows:
            for value, parent in enumerate(self.parents):
                if parent >= 0:
                    is_none = y[:, parent] == 0
                    amounts = amounts.clone()
                    amounts[:, value] = torch.where(is_none, 0.0, amounts[:, value])
        if self.sampling_rate != 1:
            # Rows without the first task stand for several of the full log.
            factor = torch.where(y[:, :1] == 0, 1 / self.sampling_rate, 1.0)
            weights = weights * factor
        is_learnt = ~amounts.isnan()
        return amounts.nan_to_num(0.0), weights * is_learnt

    def record(self, losses: Tensor, n_rows: int) -> None:
        """Add the losses of a batch to those of the epoch."""
        self._totals.add_(losses, alpha=n_rows)
        self._n_rows.add_(n_rows)

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the mean losses of the epoch by name, and reset them."""
        means = (self._totals / self._n_rows.clamp(min=1)).tolist()
        self._totals.zero_()
        self._n_rows.zero_()
        return {
            f"loss_{name}": mean for name, mean in zip(self.names, means, strict=True)
        }
