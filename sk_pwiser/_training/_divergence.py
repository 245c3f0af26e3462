"""Whether a fit has diverged: a check of rows and weights after its last step."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._training._batches import BatchIterator, Impressions
from sk_pwiser._training._optimizers import RowLog, sparse_tables
from sk_pwiser._utils import warn_user, widest_float

if TYPE_CHECKING:
    from sk_pwiser._training._net import MultiTaskNet

# A fit has diverged if its cross-entropy is this many times that of constant
# probabilities. Corrections of sampled logs and losses of ranks stay far below it.
DIVERGED = 10.0
# Number of training rows on which a fit is checked after its last step.
CHECKED_ROWS = 1_024


def changed_weights(
    network: nn.Module, optimizer: torch.optim.Optimizer
) -> Iterator[Tensor]:
    """Yield the weights that training may have changed, by rows in an update."""
    log = getattr(optimizer, "undo", None)
    if log is None:
        yield from network.parameters()
        return
    tables = set(sparse_tables(network))
    yield from (p for p in network.parameters() if p not in tables)
    yield from (entry.changed() for entry in log if isinstance(entry, RowLog))


def excess_loss(
    logits: Tensor, y: Tensor, weights: Tensor | None, *began: Sequence[float]
) -> str | None:
    """Compare the cross-entropy of logits with that of constant probabilities.

    These are the rates of the rows or, if they are worse, rates that training `began`
    with: an update may have late conversions only. Both figures are returned if the
    first is more than `DIVERGED` times the second.
    """
    dtype = widest_float(y.device)
    y = y.to(dtype)
    weights = torch.ones_like(y) if weights is None else weights.to(dtype)
    weights = weights.view(len(y), -1).expand_as(y)
    total = weights.sum(dim=0)
    # No event in n rows is compatible with a rate of 3 / n: rows of a new market may
    # have none by chance, and then a network is not wrong to expect some.
    rates = ((weights * y).sum(dim=0) + 3.0) / (total + 6.0)
    earlier = (torch.tensor(list(p), dtype=dtype, device=y.device) for p in began)

    def mean_loss(logits: Tensor) -> float:
        loss = F.binary_cross_entropy_with_logits(logits, y, reduction="none")
        return float(((weights * loss).sum(dim=0) / (total + 1.0)).sum())

    found = mean_loss(logits.to(dtype))
    # A mean of probabilities may be rounded to 1, whose log-odds are infinite.
    constant = max(mean_loss(p.logit(1e-6).expand_as(y)) for p in (rates, *earlier))
    if found <= DIVERGED * constant:
        return None
    return f"{found:.3g}, where constant probabilities have {constant:.3g}"


@torch.no_grad()
def checked_logits(
    net: "MultiTaskNet", rows: Impressions
) -> tuple[Tensor, Tensor, Any]:
    """Return the logits of some training rows, their labels and their weights."""
    n_rows = max(net.batch_size, CHECKED_ROWS)
    rows = rows.spaced(n_rows)
    batches = BatchIterator(rows, n_rows, device=torch.device(net.device))
    inputs, y = next(iter(batches))
    net._set_training(False)
    output = net.infer(inputs)
    # The labels of a sampled log are compared with these logits.
    sampled = output.sampled_logits
    logits = (output.logits if sampled is None else sampled).float()
    return logits, y, inputs.get("sample_weight")


def check_end(net: "MultiTaskNet", rows: Impressions) -> None:
    """Check on training rows that weights and logits are finite, and are log-odds.

    After a divergence with finite weights, the last copy of the weights that has
    not diverged is restored.
    """

    def compare() -> tuple[Tensor, str | None]:
        found = checked_logits(net, rows)
        began = net.module_.spec.base_rates, *net.start_rates_
        return found[0], excess_loss(*found, *began)

    logits, excess = compare()
    with torch.no_grad():
        # A sum is not finite if an entry is not, and is faster to compute.
        weights = changed_weights(net.module_, net.optimizer_)
        sums = [values.sum() for values in (logits, *weights)]
    if not bool(torch.stack(sums).isfinite().all()):
        raise diverged(net, "its last step left non-finite weights or logits")
    _warn_about_probabilities(net, logits)
    if excess is None:
        return
    message = f"Training diverged: the cross-entropy of training rows is {excess}."
    for lowest in reversed(net.lowest_):
        net.kept_epoch_ = lowest.epoch
        lowest.restore(net)
        if compare()[1] is None:
            break
    if net.lowest_:
        message += f" The weights of epoch {net.kept_epoch_} are kept."
    warn_user(f"{message} {net.advice()}", ConvergenceWarning)


def _warn_about_probabilities(net: "MultiTaskNet", logits: Tensor) -> None:
    """Warn if the logits of all checked rows look like probabilities.

    After a single epoch, they may do so by chance.
    """
    is_between = bool(((logits >= 0) & (logits <= 1)).all())
    are_low = max(net.module_.spec.base_rates) < 0.5
    if is_between and are_low and net.max_epochs > 1:
        name = type(net.module_).__name__
        warn_user(
            f"network {name} returns logits between 0 and 1 for all checked rows, "
            "which are probabilities of 0.5 and more, although all base rates are "
            "below 0.5. It must return log-odds: leave out a sigmoid."
        )


def diverged(net: "MultiTaskNet", what: str) -> ValueError:
    """Return the error of a divergence in the last epoch."""
    epoch = net.history[-1, "epoch"]
    advice = net.advice()
    return ValueError(f"Training diverged in epoch {epoch}: {what}. {advice}")
