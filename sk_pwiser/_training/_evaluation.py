"""What is measured of a net: figures of validation rows, divergence, rises."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import auc, roc_curve
from skorch.history import History
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._rows._batches import TrainingRows, bags_of
from sk_pwiser._tasks._tree import parents_by_name
from sk_pwiser._training._callbacks import set_states
from sk_pwiser._training._optimizers import sparse_tables
from sk_pwiser._utils._precision import widest_float
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.metrics import auc_within

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


def record_best(
    history: History, key: str, value: float, *, lower_is_better: bool = True
) -> None:
    """Record a figure of an epoch, and whether it is the best so far, for PrintLog."""
    # The epoch of the best figure so far, or -1. It is looked for only if it was taken
    # back: each of thousands of updates would read the rows of all others.
    places: dict[str, int] = history.__dict__.setdefault("_places_of_bests", {})
    last, name = len(history) - 1, f"{key}_best"
    place = places.get(key, last)
    if place >= last:
        earlier = range(last - 1, -1, -1)
        place = next((k for k in earlier if history[k].get(name)), -1)
    sign = 1 if lower_is_better else -1
    is_best = sign * value < (sign * history[place][key] if place >= 0 else np.inf)
    places[key] = last if is_best else place
    history.record(key, value)
    history.record(name, is_best)


def task_aucs(y: Tensor, logits: Tensor, weights: Tensor | None) -> Iterator[float]:
    """Yield the AUC of each task, NaN if there is only one class."""
    if bool(((y > 0) & (y < 1)).any()):  # probabilities in place of labels
        # Each row counts twice, with the label 1 and with 0.
        own = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
        weights = torch.cat([own * y, own * (1 - y)])
        y = torch.cat([torch.ones_like(y), torch.zeros_like(y)])
        logits = logits.repeat(2, 1)
    for k in range(y.shape[1]):
        parts = [y[:, k], logits[:, k]]
        if weights is not None:
            weight = weights if weights.dim() == 1 else weights[:, k]
            parts = [part[weight > 0] for part in (*parts, weight)]
        labels, scores, *given = (part.cpu().numpy() for part in parts)
        if len(labels) == 0 or labels.min() == labels.max():
            yield float("nan")
            continue
        # What `roc_auc_score` computes, without half of its checks and of its time.
        sample_weight = given[0] if given else None
        false, true, _ = roc_curve(labels, scores, sample_weight=sample_weight)
        yield float(auc(false, true))


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


# Figures of the validation rows per task. Larger values are better, except for the log
# loss. The history contains "grouped_auc" only if it is monitored.
FIGURES = "log_loss", "auc", "grouped_auc"
GROUPED = "valid_grouped_auc_"


def grouped_aucs(rows: TrainingRows, logits: Tensor) -> Iterator[float]:
    """Yield the mean AUC within groups per task, NaN if no group has both labels."""
    y, groups = rows.column("y").round(), rows.column("groups")
    weights = rows.column("sample_weight")
    for k in range(y.shape[1]):
        labels, scores, codes = y[:, k], logits[:, k], groups
        if weights is not None and weights.dim() == 2:
            known = weights[:, k] > 0  # other weights are not read
            labels, scores, codes = labels[known], scores[known], codes[known]
        if not len(labels):
            yield float("nan")
            continue
        _, codes = torch.unique(codes, return_inverse=True)
        arrays = (part.cpu().numpy() for part in (labels, scores, codes))
        yield auc_within(*arrays)[0]  # type: ignore[no-untyped-call]


class KnownProbabilities(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Stands for an estimator in a scorer of rows whose probabilities are known."""

    missing_labels = "ignore"

    def __init__(
        self, probabilities: np.ndarray, task_parents: Mapping[str, str | None]
    ) -> None:
        self.probabilities = probabilities
        self.task_parents = self.task_parents_ = dict(task_parents)
        self.task_names_ = list(task_parents)
        self.classes_ = np.array([0, 1])
        if len(task_parents) > 1:
            self.classes_ = np.tile(self.classes_, (len(task_parents), 1))

    def predict_proba(self, _X: Any) -> np.ndarray:
        """Return the probabilities, in the form of the estimator's."""
        p = self.probabilities
        return np.hstack([1 - p, p]) if self.classes_.ndim == 1 else p

    def predict(self, _X: Any) -> np.ndarray:
        """Return 1 where the probability is at least 0.5."""
        labels = (self.probabilities >= 0.5).astype(int)
        return labels[:, 0] if self.classes_.ndim == 1 else labels


def score_validation(
    scorer: Any,
    rows: TrainingRows,
    logits: Tensor,
    task_parents: Mapping[str, str | None],
    negative_rate: float = 1.0,
) -> float:
    """Return the score of the validation rows, without weights and without a table.

    The probabilities are those of the log that holds a share of the rows without click:
    the inverse of `full_log_logits`.
    """
    y, weights = rows.column("y").round(), rows.column("sample_weight")
    if weights is not None and weights.dim() == 2:
        y[:, 1:] = y[:, 1:].where(weights[:, 1:] > 0, torch.nan)
    # In double: those near 1 would be equal, and 1 minus them would have few digits.
    probabilities = logits.cpu().double().sigmoid()
    if negative_rate < 1:
        click = probabilities[:, :1]
        probabilities = probabilities / (click + negative_rate * (1 - click))
        probabilities = probabilities.clamp(max=1.0)
    estimator = KnownProbabilities(probabilities.numpy(), task_parents)
    labels = y.cpu().numpy()
    labels = labels[:, 0].astype(int) if len(task_parents) == 1 else labels
    return float(scorer(estimator, np.empty((len(y), 0)), labels))


def record_validation(
    net: "MultiTaskNet", prefix: str, rows: TrainingRows, logits: Tensor
) -> None:
    """Record the log loss and AUC of each task, their means, and the score."""
    y, weights = rows.column("y"), rows.column("sample_weight")
    logits = logits.to(y.device)  # rows that did not fit on the device
    spec = net.module_.spec
    rate = spec.negative_sampling_rate
    by_figure = {
        "log_loss": task_log_losses(y, logits, weights, rate),
        "auc": list(task_aucs(y, logits, weights)),
    }
    if net.monitor.startswith(GROUPED) and rows.column("groups") is not None:
        by_figure["grouped_auc"] = list(grouped_aucs(rows, logits))
    for name, values in by_figure.items():
        figures = dict(zip(net.task_names, values, strict=True))
        if len(values) > 1:
            known = [value for value in values if not np.isnan(value)]
            figures["mean"] = float(np.mean(known)) if known else np.nan
        for task, value in figures.items():
            key, is_loss = f"{prefix}_{name}_{task}", name == "log_loss"
            record_best(net.history, key, value, lower_is_better=is_loss)
    if net.monitor == "valid_score":
        parents, scorer = spec.parents, net.settings.early_stopping
        tree = parents_by_name(parents, net.task_names)
        score = score_validation(scorer, rows, logits, tree, rate)
        record_best(net.history, f"{prefix}_score", score, lower_is_better=False)


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
    net: "MultiTaskNet", rows: TrainingRows
) -> tuple[Tensor, Tensor, Any]:
    """Return the logits of rows in one batch, their labels and their weights."""
    inputs, y = next(iter(net.get_iterator(rows)))
    net._set_training(False)
    output = net.infer(inputs)
    # The labels of a sampled log are compared with these logits.
    sampled = output.sampled_logits
    logits = (output.logits if sampled is None else sampled).float()
    return logits, y, inputs.get("sample_weight")


ADVICE = "Use a smaller lr; it is {lr}. Other rates and weights may be too large, too."


def check_end(net: "MultiTaskNet", rows: TrainingRows) -> None:
    """Check on some training rows that weights and logits are finite log-odds.

    After a divergence with finite weights, the last copy of the weights that has
    not diverged is restored.
    """
    began = net.module_.spec.base_rates, *net.start_rates_
    logits, y, known = checked_logits(net, rows)
    excess = excess_loss(logits, y, known, *began)
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


# The loss of rows as in predictions must exceed that of rows as in training by so many
# standard errors, and by this share of it: noise does neither.
MEMORIZED_ERRORS, MEMORIZED_SHARE = 3.0, 0.02


def warn_if_memorized(net: "MultiTaskNet", rows: TrainingRows, schema: Any) -> None:
    """Warn if training has learnt labels by what the statistics of rows leave out.

    An embedding can learn the number of events of its value. The statistics of a row,
    which leave out its block, then tell its label. Those of predictions leave out
    nothing: with a sound network, the loss of training rows is lower by these.
    """
    # Few rows say little; other logits may have another level than the labels.
    has_level = net.criterion_.loss.averages_rows
    has_level &= net.settings.negative_sampling_rate == 1
    if len(rows) < LEAST_COMPARED or not has_level:
        return
    inputs, y = next(iter(net.get_iterator(rows.spaced(net.n_checked))))
    host = {name: tensor.cpu() for name, tensor in inputs.items()}
    codes, numeric = host["codes"].numpy(), inputs["numeric"].clone()
    rates = schema.statistics.transform(codes, schema.elements(bags_of(host)))
    numeric[:, -rates.shape[1] :] = torch.from_numpy(rates)
    weights = inputs.get("sample_weight", torch.ones_like(y)).view(len(y), -1)
    logits = map(net.evaluation_step, ((inputs, y), (inputs | {"numeric": numeric}, y)))
    losses = partial(F.binary_cross_entropy_with_logits, target=y, weight=weights)
    own, later = (losses(each, reduction="none") for each in logits)
    rise = (later - own).mean(dim=1)
    noise = MEMORIZED_ERRORS * rise.std() / len(y) ** 0.5
    if rise.mean() > max(noise, MEMORIZED_SHARE * own.mean()):
        warn_user(
            f"{len(net.history)} epochs without early stopping have memorized labels: "
            f"training rows have the log loss {own.mean():.3g}, but {later.mean():.3g} "
            "with the target statistics of predictions. Set early_stopping=True."
        )


def diverged(net: "MultiTaskNet", what: str) -> ValueError:
    """Return the error of a divergence in the last epoch."""
    epoch, hint = net.history[-1, "epoch"], ADVICE.format(lr=net.settings.lr)
    return ValueError(f"Training diverged in epoch {epoch}: {what}. {hint}")


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
    n_trained = len(train) * n_epochs
    sample = train.spaced(min(MOST_COMPARED, int(ROWS_PER_TRAINED_ROW * n_trained)))
    parents = enumerate(net.module_.spec.parents)
    pairs = [(k, p) for k, p in parents if p >= 0 and k not in left_out]
    if len(sample) < LEAST_COMPARED or not pairs:
        return None
    logits, *_ = checked_logits(net, sample)
    shares = [float((logits[:, k] > logits[:, p]).float().mean()) for k, p in pairs]
    share, (later, _) = max(zip(shares, pairs, strict=True))
    return Rises(later, share) if share >= RISING_SHARE else None


def stop_reason(net: Any, n_epochs: int, kept_epoch: int) -> str:
    """Say where and why a training of `n_epochs` ended, and whose weights it kept."""
    last, stopping = int(net.history[-1, "epoch"]), net.stopping
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
    return f"{reason}; the weights are those of epoch {kept_epoch}."
