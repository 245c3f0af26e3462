"""The history of epochs: its figures, its table and the progress bar."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sklearn.metrics import roc_auc_score
from skorch import NeuralNet
from skorch.callbacks import PrintLog, ProgressBar
from skorch.history import History
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._training._early_stopping import summary_name
from sk_pwiser._utils import widest_float

if TYPE_CHECKING:
    from sk_pwiser._training._net import MultiTaskNet


class EpochHistory(History):  # type: ignore[misc]
    """A history with one row per epoch, which contains one row for all batches.

    skorch's own history adds a row per batch: its memory and time grow with the steps.
    """

    def new_batch(self) -> None:
        """Add the row of the batches, if the epoch has none yet."""
        batches = self[-1]["batches"]
        if not batches:
            batches.append({})

    def record_batch(self, attr: str, value: Any) -> None:
        """Record a figure of a batch; the epoch's figure is that of its last batch."""
        super().record_batch(attr, value)
        self.record(attr, value)


def task_aucs(y: Tensor, logits: Tensor, weights: Tensor | None) -> Iterator[float]:
    """Yield the AUC of each task, NaN if there is only one class."""
    if bool(((y > 0) & (y < 1)).any()):  # probabilities in place of labels
        y, logits, weights = _with_both_labels(y, logits, weights)
    for k in range(y.shape[1]):
        parts = [y[:, k], logits[:, k]]
        if weights is not None:
            weight = weights if weights.dim() == 1 else weights[:, k]
            is_known = weight > 0
            parts = [part[is_known] for part in (*parts, weight)]
        labels, scores, *given = (part.cpu().numpy() for part in parts)
        if len(labels) == 0 or labels.min() == labels.max():
            yield float("nan")
            continue
        sample_weight = given[0] if given else None
        yield float(roc_auc_score(labels, scores, sample_weight=sample_weight))


# Rows whose log losses are computed at a time, in several tensors of float64.
LOSS_ROWS = 2**20


def task_log_losses(
    y: Tensor, logits: Tensor, weights: Tensor | None, negative_rate: float = 1.0
) -> list[float]:
    """Return the log loss of each task, which may have probabilities as labels."""
    dtype = widest_float(y.device)
    ones = torch.ones(1, 1, device=y.device).expand(len(y), 1)
    weights = ones if weights is None else weights.view(len(y), -1)
    sums = torch.zeros(2, y.shape[1], dtype=dtype, device=y.device)
    tensors = (torch.split(t, LOSS_ROWS) for t in (y, logits, weights))
    for y, logits, known in zip(*tensors, strict=True):
        y = y.to(dtype)
        losses = F.binary_cross_entropy_with_logits(
            logits.to(dtype), y, reduction="none"
        )
        # Each row without a click counts for those that the log has left out.
        known = known.to(dtype) * torch.where(y[:, :1] == 0, 1 / negative_rate, 1.0)
        sums += torch.stack([(losses * known).sum(0), known.expand_as(y).sum(0)])
    return list((sums[0] / sums[1]).tolist())


def _with_both_labels(
    y: Tensor, logits: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row twice, with the label 1 and with 0, and their weights."""
    own = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
    labels = torch.cat([torch.ones_like(y), torch.zeros_like(y)])
    return labels, logits.repeat(2, 1), torch.cat([own * y, own * (1 - y)])


def epoch_table(net: "MultiTaskNet") -> "EpochTable":
    """Return the table of a net."""
    # Figures of the loss, weights and the log loss per task would make it too wide.
    names = [*net.criterion.loss.pop_epoch_record(), *net.criterion.weight_names]
    if len(net.task_names) > 1:
        names += [f"log_loss_{task}" for task in net.task_names]
    unprinted = [f"{part}_{name}" for part in ("train", "valid") for name in names]
    interval = net.verbose if net.verbose > BARS else 1
    return EpochTable(net.task_names, unprinted, interval)


# The value of `verbose` that adds progress bars; larger ones are intervals of lines.
BARS = 2


class EpochTable(PrintLog):  # type: ignore[misc]
    """skorch's table of every `interval`-th epoch, with the tasks in their order."""

    def __init__(
        self,
        task_names: Sequence[str] = (),
        keys_ignored: Iterable[str] = (),
        interval: int = 1,
    ) -> None:
        super().__init__(keys_ignored=keys_ignored)
        self.task_names = task_names
        self.interval = interval

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Print the line of an epoch, if it is due."""
        if net.history[-1, "epoch"] % self.interval == 0:
            super().on_epoch_end(net, **kwargs)

    def _sorted_keys(self, keys: Iterable[str]) -> list[str]:
        """Return the columns: losses, AUC per task and mean, then all others."""
        aucs = [f"valid_auc_{name}" for name in (*self.task_names, "mean")]
        log_loss = f"valid_log_loss_{summary_name(self.task_names)}"
        first = ["epoch", "train_loss", "valid_loss", log_loss, *aucs]
        others: list[str] = super()._sorted_keys(keys)
        found = [key for key in dict.fromkeys(first) if key in others]
        return [*found, *(key for key in others if key not in found)]

    def table(self, row: dict[str, Any]) -> str:
        """Return the table of one epoch."""
        if not sys.stdout.isatty():
            # These mark figures by colours, whose codes do not belong in a log file.
            row = {k: v for k, v in row.items() if not k.endswith("_best")}
        table: str = super().table(row)
        return table


class BatchProgressBar(ProgressBar):  # type: ignore[misc]
    """A progress bar without figures of single batches, which the history lacks.

    The bar is erased at the end of each epoch. Output that cannot be erased, such as a
    log file, gets no bar.
    """

    pbar_: Any = None

    def on_epoch_begin(self, net: NeuralNet, *args: Any, **kwargs: Any) -> None:
        """Show a new bar."""
        if self._use_notebook() or sys.stderr.isatty():
            super().on_epoch_begin(net, *args, **kwargs)

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Advance by one batch."""
        if self.pbar_ is not None:
            self.pbar_.update()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Erase the bar."""
        self.close()

    def close(self) -> None:
        """Erase the bar if there is one, also after an incomplete epoch."""
        if self.pbar_ is not None:
            self.pbar_.close()
            self.pbar_ = None
