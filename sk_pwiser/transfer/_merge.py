"""Merging: one network from the weights of several that started from the same one."""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import Bounds, minimize
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from sk_pwiser._columns._frames import as_table
from sk_pwiser._estimator._classifier import MultiTaskCTRCVRClassifier
from sk_pwiser._training._callbacks import Freezer
from sk_pwiser._utils._checks import (
    accept_any_case_of_y,
    check_choice,
    check_integer,
    check_number,
)
from sk_pwiser._utils._precision import widest
from sk_pwiser.transfer import _compatible
from sk_pwiser.transfer._fine_tune import fine_tune

# The buffers that shift predictions to their levels, weights like output biases, and
# the value of those that a network lacks.
LEVELS = {"level_offset": 0.0, "value_offset": 0.0, "value_slope": 1.0}


# Arithmetic on the weights of networks, by the names of their tensors.
def read_state(estimator, device=None):
    """Return the weights of a fitted network by name, on a given device."""
    network = estimator.net_.module_
    weights = dict(network.named_parameters())
    for name in LEVELS:
        level = getattr(network, name)
        if level is not None:
            weights[name] = level
    return {name: weight.detach().to(device) for name, weight in weights.items()}


def read_states(base, members):
    """Return the weights of a base, and those of members on its device."""
    first = read_state(base)
    states = [read_state(member, base.net_.device) for member in members]
    for name, no_change in LEVELS.items():
        levels = [state[name] for state in (first, *states) if name in state]
        if levels:
            for state in (first, *states):
                state.setdefault(name, torch.full_like(levels[0], no_change))
    return first, states


def combine(base, members, coefficients):
    """Compute the sum of a base and weighted task vectors, tensor by tensor.

    Tensors without coefficients are taken from the base. Coefficients of 0 give the
    base, and a single one of 1 gives its member, to the bit.
    """
    state = {}
    for name, start in base.items():
        values = coefficients.get(name, np.zeros(0))
        (used,) = np.nonzero(values)
        if len(used) == 1 and values[used[0]] == 1:
            # The difference to the base may have lost the last bits of small weights.
            state[name] = members[used[0]][name].clone()
            continue
        total = widest(start)
        for index in used:
            vector = widest(members[index][name]) - widest(start)
            total = total + float(values[index]) * vector
        state[name] = total.to(start.dtype, copy=True)
    return state


def with_state(estimator, state, rows):
    """Copy a fitted estimator with other weights and no moments of the optimiser.

    The statistics of batch normalisation are computed over the encoded `rows`.
    """
    copy = deepcopy(estimator)
    net = copy.net_
    # Not strict: the state has no buffers other than the levels.
    net.module_.load_state_dict(state, strict=False)
    # The moments belong to the weights before the merge.
    net.optimizer_.state.clear()
    recompute_batch_norm(net, rows)
    return copy


def infer_with(net, state, rows):
    """Yield outputs for other weights, and labels, batch by batch."""

    def run(*inputs):
        return functional_call(net.module_, state, inputs)

    net._set_training(False)
    for inputs, y in net.get_iterator(rows):
        yield net.infer(inputs, network=run), y


def recompute_batch_norm(net, rows):
    """Compute the running statistics of batch normalisation anew, if there are any."""
    layers = [
        module
        for module in net.module_.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]
    if not layers:
        return
    # The statistics of the base are those of other activations: weights that are
    # averaged change them, and no gradient corrects them.
    momenta = [layer.momentum for layer in layers]
    net._set_training(False)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    with torch.no_grad():
        for inputs, _ in net.get_iterator(rows):
            net.infer(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def row_log_losses(logits, y):
    """Return the log loss per row and task, `(batch, n_tasks)`; 0 without a label."""
    has_label = ~y.isnan()
    cross_entropy = F.binary_cross_entropy_with_logits
    return cross_entropy(logits, y.nan_to_num(), reduction="none") * has_label


def row_entropies(logits, _y=None):
    """Return the entropy of predictions per row and task, `(batch, n_tasks)`."""
    return -F.logsigmoid(-logits) - logits * torch.sigmoid(logits)


OBJECTIVES = {"log_loss": row_log_losses, "entropy": row_entropies}


@dataclass(kw_only=True)
class MergeObjective:
    """A mean over rows and tasks, as a function of the coefficients of a merge.

    The merged weights are linear in the coefficients. The gradient is therefore the
    inner product of each task vector with the gradient of the weights.
    """

    net: object
    base: dict
    members: list
    names: list
    rows: object
    objective: str

    def __call__(self, coefficients):
        """Return the objective and its gradient, (n_merged_tensors, n_members)."""
        by_name = dict(zip(self.names, coefficients, strict=True))
        merged = combine(self.base, self.members, by_name)
        for name in self.names:
            # The merged tensors are leaves: one backward pass serves all coefficients.
            merged[name].requires_grad_()
        total = 0.0
        # The gradients of the batches add up in the merged tensors.
        with torch.enable_grad():
            for output, y in infer_with(self.net, merged, self.rows):
                # Labels belong to the sampled log, so its logits are compared.
                sampled = output.sampled_logits
                logits = widest(output.logits if sampled is None else sampled)
                values = OBJECTIVES[self.objective](logits, widest(y))
                batch_share = values.sum() / (len(self.rows) * logits.shape[1])
                if batch_share.requires_grad:
                    batch_share.backward()
                total += batch_share.item()
        gradient = [
            [self._inner(merged[name], member, name) for member in self.members]
            for name in self.names
        ]
        return total, np.array(gradient)

    def _inner(self, tensor, member, name):
        gradient = tensor.grad
        if gradient is None:
            return 0.0
        new = member[name]
        old = self.base[name]
        if gradient.is_sparse:
            # Only the rows of the batches are read of a large embedding table.
            gradient = gradient.coalesce()
            (rows,) = gradient.indices()
            new = new[rows]
            old = old[rows]
            gradient = gradient.values()
        return float((widest(gradient) * (widest(new) - widest(old))).sum())


GRANULARITIES = ("task", "layer")
# The objective is computed in float32: smaller gains are lost in rounding.
TOLERANCES = {"ftol": 1e-8, "gtol": 1e-8, "maxiter": 200}
REALIGN_KEYS = {"X", "Y", "max_epochs"}
LARGEST_SEED = np.iinfo(np.int32).max


@accept_any_case_of_y
def merge_estimators(
    base: MultiTaskCTRCVRClassifier,
    estimators: Iterable[MultiTaskCTRCVRClassifier],
    X: Any,
    Y: Any = None,
    *,
    objective: str | None = "log_loss",
    granularity: str = "task",
    prior: npt.ArrayLike = 0.3,
    bounds: tuple[float, float] = (0.0, 1.0),
    freeze: str | Iterable[str] = (),
    realign: bool | Mapping[str, Any] = False,
    return_coefficients: bool = False,
    random_state: int | np.random.RandomState | None = None,
) -> Any:
    r"""Merge estimators that were fine-tuned from one base into a single estimator.

    .. math:: \theta = \theta_0 + \sum_m \lambda_m (\theta_m - \theta_0)

    with the weights :math:`\theta_0` of the base and :math:`\theta_m` of the
    estimators. The coefficients :math:`\lambda` minimise the objective on the given
    rows; no estimator should have been trained on these. `freeze` and `realign` are
    inspired by R-MTLLMF, without its noise model and its worst case over noise.

    Parameters
    ----------
    base : MultiTaskCTRCVRClassifier
        The fitted estimator from which the others were fine-tuned.
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with the network, tasks and encoder of the base; see
        :func:`check_compatible`.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Held-out impressions of all markets. With a `negative_sampling_rate` below 1,
        they are rows of the sampled log, as in `fit`.
    Y : array-like of shape (n_samples, n_tasks) or (n_samples,), default=None
        Their labels, required by `objective="log_loss"` and `realign=True`. If the base
        has `missing_labels="ignore"`, labels may be missing.
    objective : {"log_loss", "entropy"} or None, default="log_loss"
        The objective: the mean over rows and tasks of the log loss, 0 where the label
        is missing, or of the entropy of the predictions, which needs no labels but is
        unsafe at low base rates (see :ref:`transfer`). None uses `prior` as the
        coefficients.
    granularity : {"task", "layer"}, default="task"
        One coefficient per estimator, or one per estimator and tensor of weights.
    prior : float or array-like of shape (n_estimators,), default=0.3
        Coefficients from which the search starts, within `bounds`.
    bounds : tuple of float, default=(0.0, 1.0)
        Lower and upper bound of all coefficients.
    freeze : str or sequence of str, default=()
        Parts of the network that are taken from the base, such as "embedding": names of
        :func:`named_parts`, or their beginnings, such as "towers" for all towers.
    realign : bool or dict, default=False
        Whether to train the merged estimator on `X` and `Y` for one epoch. A dict may
        contain other rows as `X` and `Y`, and `max_epochs`. Without rows, nothing is
        trained. Frozen parts are not trained.
    return_coefficients : bool, default=False
        Whether to return the coefficients as well.
    random_state : int, RandomState instance or None, default=None
        Seed of the order of the rows in realignment.

    Returns
    -------
    merged : MultiTaskCTRCVRClassifier
        A new fitted estimator with the parameters, encoder and history of the base.
    coefficients : ndarray of shape (n_estimators,) or dict of str to ndarray
        The coefficients, with `granularity="layer"` by the names of the tensors. Only
        with `return_coefficients=True`.

    Raises
    ------
    ValueError, TypeError
        If a parameter is invalid, if an estimator differs from the base (the message
        names the first difference), or if rows or labels are missing.

    Notes
    -----
    Departures from the papers: AdaMerging minimises the entropy with Adam over batches;
    here the default is the log loss on labelled rows, and L-BFGS-B minimises it on all
    rows. AdaMerging merges the encoder only, and each task keeps its head; here the
    markets share the tasks, and the heads are merged as well. Statistics of batch
    normalisation are computed again on `X`. R-MTLLMF was readable in the abstract only.

    References
    ----------
    Yang et al. (2024). "AdaMerging: Adaptive Model Merging
    for Multi-Task Learning." ICLR. :arxiv:`2310.02575`

    Djuhera et al. (2024). "R-MTLLMF: Resilient Multi-Task
    Large Language Model Fusion at the Wireless Edge." :arxiv:`2411.18220`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import fine_tune, merge_estimators
    >>> data = make_ctr_cvr(1_200, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> base = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
    >>> base.fit(X[:400], Y[:400]).n_iter_
    2
    >>> markets = [slice(400, 700), slice(700, 1_000)]
    >>> params = {"max_epochs": 1, "extend": False}
    >>> models = [fine_tune(base, X[m], Y[m], **params) for m in markets]
    >>> merged, coefficients = merge_estimators(
    ...     base, models, X[1_000:], Y[1_000:], return_coefficients=True
    ... )
    >>> merged.predict_proba(X).shape, coefficients.shape
    ((1200, 2), (2,))
    """
    members = _compatible.check_members(base, estimators)
    objective = check_choice("objective", objective, (*OBJECTIVES, None))
    granularity = check_choice("granularity", granularity, GRANULARITIES)
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(f"bounds must be a pair of numbers; got {bounds!r}.")
    low, high = (check_number("bounds", bound) for bound in bounds)
    start = _compatible.one_per_estimator("prior", prior, len(members))
    if not ((start >= low) & (start <= high)).all():
        raise ValueError(
            f"prior must be within the bounds ({low:g}, {high:g}); got {prior!r}."
        )
    frozen = _frozen_names(base, freeze)
    X = _compatible.check_table(X)
    if objective == "log_loss" and base._result.schema.encoder.exposure_columns_:
        raise ValueError(
            "objective='log_loss' compares labels with predictions at the reference of "
            "exposure_features, not as the rows were shown; use objective=None, or "
            "another one without labels."
        )
    if objective == "log_loss" and Y is None:
        raise ValueError("Y must not be None with objective='log_loss'.")
    y = None if Y is None else _compatible.check_labels(base, X, Y)
    realignment = _check_realign(realign, base, X, Y)
    # All members have the encoder of the base, so the rows are encoded once.
    rows = base._result.schema.transform(X)
    rows = rows if y is None else rows.labelled(y)

    first, states = read_states(base, members)
    names = [name for name in first if name not in frozen]
    if not names:
        raise ValueError(f"freeze must leave a part to merge; got {freeze!r}.")
    # One row of coefficients per tensor, also if all rows are equal.
    coefficients = np.tile(start, (len(names), 1))
    if objective is not None:
        mean = MergeObjective(
            net=base.net_,
            base=first,
            members=states,
            names=names,
            rows=rows,
            objective=objective,
        )
        coefficients = _minimise(mean, coefficients, granularity, Bounds(low, high))
    by_name = dict(zip(names, coefficients, strict=True))
    merged = with_state(base, combine(first, states, by_name), rows)
    _merge_moves(merged, members, by_name)
    if realignment is not None:
        merged = _realign(merged, realignment, frozen, random_state)
    if not return_coefficients:
        return merged
    return merged, coefficients[0] if granularity == "task" else by_name


def _merge_moves(merged, members, coefficients):
    """Merge what the market has moved of the amounts, which later updates read."""
    terms = merged.net_.criterion_.value_terms
    if terms is None:
        return
    # The scores of amounts have the coefficients of the offset that belongs to them.
    by_member = coefficients.get("value_offset", np.zeros(len(members)))
    earlier_moves = terms.log_moves.clone()
    for member, coefficient in zip(members, by_member, strict=True):
        moves = member.net_.criterion_.value_terms.log_moves.to(earlier_moves)
        terms.log_moves += float(coefficient) * (moves - earlier_moves)


def _minimise(objective, start, granularity, bounds):
    """Return the coefficients, `(n_merged_tensors, n_members)`, of the minimum."""
    is_shared = granularity == "task"

    def expand(values):
        return values.reshape(-1, start.shape[1]) + np.zeros_like(start)

    def evaluate(values):
        value, gradient = objective(expand(values))
        # By the chain rule, a coefficient that all tensors share has the sum of their
        # gradients.
        return value, gradient.sum(axis=0) if is_shared else gradient.ravel()

    initial = start[0] if is_shared else start.ravel()
    # By L-BFGS-B, the default with bounds.
    result = minimize(evaluate, initial, jac=True, bounds=bounds, options=TOLERANCES)
    return expand(result.x)


def _frozen_names(base, freeze):
    wanted = [freeze] if isinstance(freeze, str) else list(freeze)
    if not wanted:
        return set()
    parts = _compatible.named_parts(base)
    frozen = set()
    for name in wanted:
        start = f"{name}."
        chosen = [part for part in parts if part == name or part.startswith(start)]
        if not chosen:
            raise ValueError(
                f"freeze holds {name!r}; the parts of the network are {list(parts)}."
            )
        frozen.update(*(parts[part] for part in chosen))
    return frozen


class Realignment(NamedTuple):
    """The rows that a merged estimator is trained on."""

    X: Any
    Y: Any
    max_epochs: int


def _realign(merged, realignment, frozen, random_state):
    """Train a copy of a merged estimator, except for the tensors in `frozen`."""
    random_state = check_random_state(random_state)
    trained = fine_tune(
        merged,
        realignment.X,
        realignment.Y,
        extend=False,
        max_epochs=realignment.max_epochs,
        early_stopping=False,
        refit=False,
        random_state=int(random_state.randint(LARGEST_SEED)),
        callbacks=[*(merged.callbacks or ()), Freezer(sorted(frozen))],
    )
    merged_parameters = dict(merged.net_.module_.named_parameters())
    with torch.no_grad():
        for name, parameter in trained.net_.module_.named_parameters():
            parameter.requires_grad_(merged_parameters[name].requires_grad)
            if name in frozen:
                # The average over the steps may have rounded it.
                parameter.copy_(merged_parameters[name])
    # The result has the parameters of the merged estimator, not those of this short
    # training.
    names = ("max_epochs", "early_stopping", "refit", "random_state", "callbacks")
    return trained.set_params(**{name: getattr(merged, name) for name in names})


def _check_realign(realign, base, X, Y):
    """Return the `Realignment`, or None."""
    if isinstance(realign, bool | np.bool_):
        realign = {} if realign else {"max_epochs": 0}
    if not isinstance(realign, Mapping) or not realign.keys() <= REALIGN_KEYS:
        raise ValueError(
            f"realign must be a bool or a dict with keys of {sorted(REALIGN_KEYS)}; "
            f"got {realign!r}."
        )
    if ("X" in realign) != ("Y" in realign):
        raise ValueError("realign must hold both X and Y, or neither.")
    X = realign.get("X", X)
    Y = realign.get("Y", Y)
    max_epochs = check_integer(
        "max_epochs in realign", realign.get("max_epochs", 1), at_least=0
    )
    X = as_table(X)
    if max_epochs == 0 or _num_samples(X) == 0:
        return None
    if Y is None:
        raise ValueError("Y must not be None with realign, which needs labels.")
    _compatible.check_labels(base, X, Y)
    return Realignment(X, Y, max_epochs)


def merge_interference(
    base: MultiTaskCTRCVRClassifier,
    estimators: Iterable[MultiTaskCTRCVRClassifier],
    X: Any,
    *,
    coefficients: npt.ArrayLike = 1.0,
    markets: npt.ArrayLike | str | None = None,
) -> float:
    r"""Measure how much the estimators of a merge disturb each other's predictions.

    .. math:: \xi(\lambda) = \sum_m \mathrm{E} \, |p(x; \theta_0 + \lambda_m \tau_m)
        - p(x; \theta_0 + \sum_j \lambda_j \tau_j)|

    with the weights :math:`\theta_0` of the base, the task vectors
    :math:`\tau_m = \theta_m - \theta_0` and the probabilities p: the mean absolute
    difference between the predictions with one task vector and with all of them. It is
    0 if each task vector changes the predictions in its own market only.

    Parameters
    ----------
    base : MultiTaskCTRCVRClassifier
        The fitted common start.
    estimators : sequence of MultiTaskCTRCVRClassifier
        Fitted estimators with the network, tasks and encoder of the base.
    X : {DataFrame, array-like} of shape (n_samples, n_features)
        Impressions.
    coefficients : float or array-like of shape (n_estimators,), default=1.0
        Coefficients of the task vectors.
    markets : array-like of int of shape (n_samples,) or str, default=None
        For each row, the index of the estimator of its market, as an array or as the
        name of a column of `X`: the mean of an estimator is over the rows of its
        market. None takes all rows for each estimator.

    Returns
    -------
    float
        The sum over the estimators of mean differences of probabilities, over rows and
        tasks.

    Raises
    ------
    ValueError, TypeError
        If an estimator differs from the base (the message names the first difference),
        or if another argument is invalid.

    Notes
    -----
    The measure is the disentanglement error of Ortiz-Jimenez et al., with the absolute
    difference of probabilities as the distance. An estimator whose market has no row
    contributes 0.

    References
    ----------
    Ortiz-Jimenez, Favero and Frossard (2023). "Task Arithmetic in the Tangent Space:
    Improved Editing of Pre-Trained Models." NeurIPS. :arxiv:`2305.12827`

    Djuhera et al. (2024). "R-MTLLMF: Resilient Multi-Task Large Language Model Fusion
    at the Wireless Edge." :arxiv:`2411.18220`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.transfer import fine_tune, merge_interference
    >>> data = make_ctr_cvr(900, ctr=0.3, random_state=0)
    >>> X, Y = data.data, data.target
    >>> base = MultiTaskCTRCVRClassifier(max_epochs=2, random_state=0)
    >>> base.fit(X[:300], Y[:300]).n_iter_
    2
    >>> markets = [slice(300, 600), slice(600, 900)]
    >>> params = {"max_epochs": 1, "extend": False}
    >>> models = [fine_tune(base, X[m], Y[m], **params) for m in markets]
    >>> merge_interference(base, models[:1], X)
    0.0
    >>> merge_interference(base, models, X) > 0
    True
    """
    members = _compatible.check_members(base, estimators)
    X = _compatible.check_table(X)
    values = _compatible.one_per_estimator("coefficients", coefficients, len(members))
    market_of_rows = _compatible.check_markets(markets, X, len(members))
    rows = base._result.schema.transform(X)
    first, states = read_states(base, members)

    def predict(used):
        """Predict probabilities with the task vectors of some members."""
        by_name = dict.fromkeys(first, np.where(used, values, 0.0))
        state = combine(first, states, by_name)
        with torch.no_grad():
            outputs = infer_with(base.net_, state, rows)
            logits = [widest(output.logits) for output, _ in outputs]
        return torch.cat(logits).sigmoid().cpu().double().numpy()

    together = predict(True)
    total = 0.0
    for index in range(len(members)):
        alone = predict(np.arange(len(members)) == index)
        differences = np.abs(alone - together)
        if market_of_rows is not None:
            # Each task vector should act in its own market only.
            differences = differences[market_of_rows == index]
        total += float(differences.mean()) if differences.size else 0.0
    return total
