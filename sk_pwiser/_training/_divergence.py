"""The check after the last step of a training, on some rows: it may have diverged."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._training._callbacks import set_states
from sk_pwiser._training._embedding_tables import sparse_tables
from sk_pwiser._utils._precision import widest_float
from sk_pwiser._utils._warnings import warn_user

# A fit has diverged if its cross-entropy is this many times that of constant
# probabilities. Corrections of sampled logs and losses of ranks stay far below it.
DIVERGED = 10.0

# Number of training rows on which a fit is checked after its last step.
CHECKED_ROWS = 1_024


def changed_weights(network: nn.Module, optimizer: Any) -> Iterator[Tensor]:
    """Yield the weights that an update may have changed, those of tables by rows."""
    tables = set(sparse_tables(network))
    yield from (p for p in network.parameters() if p not in tables)
    yield from (log.changed() for log in optimizer.logs.values())


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
    rates_before = (torch.tensor(list(p), dtype=dtype, device=y.device) for p in began)
    # A mean of probabilities may be rounded to 1, whose log-odds are infinite.
    constants = [p.logit(1e-6).expand_as(y) for p in (rates, *rates_before)]

    def cross_entropy(log_odds: Tensor) -> float:
        losses = F.binary_cross_entropy_with_logits(log_odds, y, reduction="none")
        return float(((weights * losses).sum(dim=0) / (total + 1.0)).sum())

    cross_entropy_of_rows = cross_entropy(logits.to(dtype))
    constant = max(map(cross_entropy, constants))
    if cross_entropy_of_rows <= DIVERGED * constant:
        return None
    return (
        f"{cross_entropy_of_rows:.3g}, where constant probabilities have {constant:.3g}"
    )


@torch.no_grad()
def checked_logits(net: NeuralNet, rows: TrainingRows) -> tuple[Tensor, Tensor, Any]:
    """Return the logits of rows in one batch, their labels and their weights."""
    inputs, y = next(iter(net.get_iterator(rows)))
    net._set_training(False)
    output = net.infer(inputs)
    # The labels of a sampled log are compared with these logits.
    sampled = output.sampled_logits
    logits = (output.logits if sampled is None else sampled).float()
    return logits, y, inputs.get("sample_weight")


ADVICE = "Use a smaller lr; it is {lr}. Other rates and weights may be too large, too."


def check_end(net: NeuralNet, rows: TrainingRows) -> None:
    """Check on some training rows that weights and logits are finite log-odds.

    After a divergence with finite weights, the last copy of the weights that has
    not diverged is restored.
    """
    began = net.module_.spec.base_rates, *net.start_rates_
    logits, y, row_weights = checked_logits(net, rows)
    excess = excess_loss(logits, y, row_weights, *began)
    with torch.no_grad():
        # A sum is not finite if an entry is not, and is faster to compute.
        weights: Iterable[Tensor] = net.module_.parameters()
        if getattr(net.optimizer_, "logs", None) is not None:
            weights = changed_weights(net.module_, net.optimizer_)
        sums = [values.sum() for values in (logits, *weights)]
    if not bool(torch.stack(sums).isfinite().all()):
        raise diverged(net, "its last step left non-finite weights or logits")
    is_between = bool(((logits >= 0) & (logits <= 1)).all())
    are_low = max(net.module_.spec.base_rates) < 0.5
    # After a single epoch, log-odds may look like probabilities by chance.
    if is_between and are_low and net.max_epochs > 1:
        name = type(net.module_).__name__
        warn_user(
            f"network {name} returns logits between 0 and 1 for all checked rows, "
            "which are probabilities of 0.5 and more, although all base rates are "
            "below 0.5. It must return log-odds: leave out a sigmoid."
        )
    if excess is None:
        return
    message = f"Training diverged: the cross-entropy of training rows is {excess}."
    for epoch, states in reversed(net.lowest_):
        net.kept_epoch_ = epoch
        set_states(net, states)
        if excess_loss(*checked_logits(net, rows), *began) is None:
            break
    if net.lowest_:
        message += f" The weights of epoch {net.kept_epoch_} are kept."
    warn_user(f"{message} {ADVICE.format(lr=net.settings.lr)}", ConvergenceWarning)


def diverged(net: NeuralNet, symptom: str) -> ValueError:
    """Return the error of a divergence in the last epoch."""
    epoch = net.history[-1, "epoch"]
    hint = ADVICE.format(lr=net.settings.lr)
    return ValueError(f"Training diverged in epoch {epoch}: {symptom}. {hint}")
