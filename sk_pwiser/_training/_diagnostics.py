"""Training that diverges, and tasks whose probabilities break the funnel."""

from collections.abc import Collection, Iterator, Sequence
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._optimizers import RowLog, sparse_tables
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import widest_float

# A fit has diverged if its cross-entropy is this many times that of constant
# probabilities. Corrections of sampled logs and losses of ranks stay far below it.
DIVERGED = 10.0
# Number of training rows on which a fit is checked after its last step.
CHECKED_ROWS = 1_024

# Largest usual values of parameters, and of learning rates by optimiser.
USUAL_LR, USUAL_LR_OF = 0.03, {"sgd": 1.0, "adagrad": 0.3}
USUAL = {
    "weight_decay": 0.1,
    "embedding_weight_decay": 0.1,
    "momentum": 0.999,
    "pwiser_weight": 10.0,
}
USUAL_WEIGHT = 100.0


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


def advice(settings: Settings) -> str:
    """Return advice after a divergence: parameters far above their usual values."""
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
    of_network = settings.network_params.items()
    values |= {k: v for k, v in of_network if k.endswith(("weight", "weights"))}
    values |= {**settings.loss_params, **settings.weighting_params}
    for name, value in values.items():
        limit = usual.get(name, USUAL_WEIGHT)
        if any(abs(number) > limit for number in _numbers(value)):
            yield name, value


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, Real):
        yield float(value)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _numbers(each)


# Number of rows to predict: few relative to the rows of training, and enough to
# distinguish the share from noise.
MAX_ROWS, MIN_ROWS = 2_000, 200
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
    n_trained, sample = len(train) * n_epochs, train.sample
    n_rows = min(MAX_ROWS, len(sample), int(ROWS_PER_TRAINED_ROW * n_trained))
    parents = enumerate(net.module_.spec.parents)
    pairs = [(k, p) for k, p in parents if p >= 0 and k not in left_out]
    if n_rows < MIN_ROWS or not pairs:
        return None
    logits = net.forward(sample.spaced(n_rows))
    shares = [float((logits[:, k] > logits[:, p]).float().mean()) for k, p in pairs]
    share = max(shares)
    later, _ = pairs[shares.index(share)]
    return Rises(later, share) if share >= RISING_SHARE else None
