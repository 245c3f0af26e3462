"""After the last step: divergence, the level of predictions, and why training ended."""

from collections.abc import Collection, Iterator, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch import NeuralNet
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._training._batches import BatchIterator, Impressions, TrainingRows
from sk_pwiser._training._callbacks import find_callback
from sk_pwiser._training._early_stopping import BestEpochStopping
from sk_pwiser._training._figures import LOSS_ROWS
from sk_pwiser._training._optimizers import RowLog, sparse_tables
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import warn_user, widest_float
from sk_pwiser.networks import chain_logits

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

    # A mean of probabilities may be rounded to 1, whose log-odds are infinite.
    constants = [p.logit(1e-6).expand_as(y) for p in (rates, *earlier)]
    losses = [
        F.binary_cross_entropy_with_logits(z, y, reduction="none")
        for z in (logits.to(dtype), *constants)
    ]
    sums = [
        float(((weights * each).sum(dim=0) / (total + 1.0)).sum()) for each in losses
    ]
    found, constant = sums[0], max(sums[1:])
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
    for lowest in reversed(net.lowest_):
        net.kept_epoch_ = lowest.epoch
        lowest.restore(net)
        if compare()[1] is None:
            break
    if net.lowest_:
        message += f" The weights of epoch {net.kept_epoch_} are kept."
    warn_user(f"{message} {advice(net.settings)}", ConvergenceWarning)


def diverged(net: "MultiTaskNet", what: str) -> ValueError:
    """Return the error of a divergence in the last epoch."""
    epoch, hint = net.history[-1, "epoch"], advice(net.settings)
    return ValueError(f"Training diverged in epoch {epoch}: {what}. {hint}")


# Standard deviation of the offsets before the rows are seen. It decides for a task with
# a few events, whose share in so few rows says little.
PRIOR_DEVIATION = 0.5


def shift_to(net: "MultiTaskNet", rows: TrainingRows) -> None:
    """Shift the predictions of a net to the level of the labels of held-out rows."""
    heads, is_chain = net.heads(net.get_iterator(rows))
    y, weights = rows.labels().cpu(), rows.column("sample_weight")
    known = torch.ones(len(y), 1) if weights is None else weights.cpu().view(len(y), -1)
    parents = net.module_.spec.parents if is_chain else None
    # On the CPU: not every device has float64.
    net.module_.shift_level(find_offset(heads.cpu(), y, known, parents))


def find_offset(
    heads: Tensor, y: Tensor, weights: Tensor, parents: Sequence[int] | None
) -> Tensor:
    """Return the most probable offset of each task, float64 of shape `(n_tasks,)`.

    With `parents`, the heads are conditional log-odds, and the probability of a task is
    the product of those on its path. Weights have the shape `(n_rows, 1)` or
    `(n_rows, n_tasks)`.
    """
    offset = torch.zeros(y.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([offset], max_iter=50, line_search_fn="strong_wolfe")
    # Tensors of float64 of many rows would need much memory.
    tensors = (torch.split(tensor, LOSS_ROWS) for tensor in (heads, y, weights))
    parts, n_rows = list(zip(*tensors, strict=True)), len(y)

    def loss() -> Tensor:
        optimizer.zero_grad()
        total = _add_gradient((offset / PRIOR_DEVIATION).square().sum() / 2 / n_rows)
        for heads, y, weights in parts:
            logits = heads.double() + offset
            if parents is not None:
                logits = chain_logits(logits, parents)
            losses = F.binary_cross_entropy_with_logits(
                logits, y.double(), weights.double(), reduction="sum"
            )
            total += _add_gradient(losses / n_rows)
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return offset.detach()


def _add_gradient(term: Tensor) -> Tensor:
    term.backward()  # type: ignore[no-untyped-call]
    return term.detach()


# Number of rows to predict: few relative to the rows of training, and enough to
# distinguish the share from noise.
MOST_COMPARED, LEAST_COMPARED = 2_000, 200
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
    n_rows = min(MOST_COMPARED, len(sample), int(ROWS_PER_TRAINED_ROW * n_trained))
    parents = enumerate(net.module_.spec.parents)
    pairs = [(k, p) for k, p in parents if p >= 0 and k not in left_out]
    if n_rows < LEAST_COMPARED or not pairs:
        return None
    logits = net.forward(sample.spaced(n_rows))
    shares = [float((logits[:, k] > logits[:, p]).float().mean()) for k, p in pairs]
    share = max(shares)
    later, _ = pairs[shares.index(share)]
    return Rises(later, share) if share >= RISING_SHARE else None


def best_epoch(net: NeuralNet) -> int:
    """Return the number in the history of the epoch whose weights a trained net has."""
    if net.kept_epoch_ is not None:
        return int(net.kept_epoch_)
    stopping = find_callback(net, BestEpochStopping)
    # 0 if no epoch was better than another, for example if all figures are NaN.
    if stopping is not None and stopping.best_epoch_:
        return int(stopping.best_epoch_)
    return int(net.history[-1, "epoch"])


def stop_reason(net: NeuralNet, n_epochs: int) -> str:
    """Say where and why a training of `n_epochs` ended, and whose weights it kept."""
    last = int(net.history[-1, "epoch"])
    stopping = find_callback(net, BestEpochStopping)
    reason = f"Stopped at epoch {last}"
    if stopping is not None and stopping.misses_ == stopping.patience:
        is_loss = stopping.monitor == "valid_loss"
        reason += (
            f": {'the validation loss' if is_loss else stopping.monitor} has not "
            f"improved for {stopping.patience} epochs"
        )
    elif n_epochs == net.max_epochs:
        reason = f"Ended at epoch {last}, the last one planned"
    elif stopping is not None and stopping.n_held:
        reason = (
            f"Ended at epoch {last}: the learning rate, held until epoch "
            f"{stopping.n_held}, has decayed to 0"
        )
    return f"{reason}; the weights are those of epoch {best_epoch(net)}."


# Largest usual values of parameters, and of learning rates by optimiser.
USUAL_LR, USUAL_LR_OF = 0.03, {"sgd": 1.0, "adagrad": 0.3}
USUAL = {
    "weight_decay": 0.1,
    "embedding_weight_decay": 0.1,
    "momentum": 0.999,
    "pwiser_weight": 10.0,
}
USUAL_WEIGHT = 100.0


def advice(settings: Settings) -> str:
    """Return advice after a divergence: parameters far above their usual values."""
    found = [f"Use a smaller {name}; it is {value}." for name, value in _far(settings)]
    return " ".join(found) or (
        "No parameter is far above its usual values; a smaller lr, which is "
        f"{settings.lr}, or clip_grad_norm in optimizer_params may help."
    )


def _far(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of parameters that are far above usual values."""
    usual_lr = USUAL_LR_OF.get(settings.optimizer, USUAL_LR)
    usual = {"lr": usual_lr, "embedding_lr": usual_lr, **USUAL}
    of_fit = {**vars(settings), **settings.optimizer_params}
    values: dict[str, Any] = {k: of_fit[k] for k in usual if k in of_fit}
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
