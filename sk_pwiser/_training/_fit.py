"""From parameters and raw data to a trained net: what `fit` does."""

from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.utils import _safe_indexing, check_consistent_length, check_random_state

from sk_pwiser._table import (
    UNSEEN,
    TableEncoder,
    Targets,
    check_groups,
    check_row_weights,
    check_targets,
)
from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._device import check_compiler, find_device
from sk_pwiser._training._net import MultiTaskNet, TrainingData, check_loop, make_net
from sk_pwiser._utils import build, check_names, resolve
from sk_pwiser.losses import LOSSES, MultiTaskLoss
from sk_pwiser.model_selection import funnel_holdout
from sk_pwiser.networks import NETWORKS, MultiTaskNetwork, NetworkSpec
from sk_pwiser.weighting import WEIGHTINGS, TaskWeighting, as_weighting

# As HistGradientBoostingClassifier: with fewer rows, a part held out costs more than
# it saves.
EARLY_STOPPING_ABOVE = 10_000

LARGEST_SEED = np.iinfo(np.int32).max


@dataclass
class Trained:
    """What training leaves behind.

    Parameters
    ----------
    net : MultiTaskNet
        The trained net.
    encoder : TableEncoder
        The schema of the table.
    targets : Targets
        Classes and names of the tasks; its labels are dropped.
    base_rates : ndarray of shape (n_tasks,)
        Where the output biases started.
    """

    net: MultiTaskNet
    encoder: TableEncoder
    targets: Targets
    base_rates: np.ndarray


def train(
    estimator, X, Y, sample_weight, groups, *, previous=None, classes=None, once=False
):
    """Train on a table as the estimator's parameters say.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        Read for its parameters; nothing is set on it.
    X, Y, sample_weight, groups : array-like
        As passed to `fit`.
    previous : Trained, default=None
        Where to go on from.
    classes : array-like of shape (2,), default=None
        The two labels of a single task.
    once : bool, default=False
        Whether to go through the rows once, all of them.

    Returns
    -------
    Trained
        New objects throughout: `previous` stays as it is.
    """
    device = find_device(estimator.device)
    targets = _check_targets(estimator, Y, previous, classes)
    random_state = check_random_state(estimator.random_state)
    # With a seed that nothing is taken from: the draws of the network stay the same
    # whatever a loss or weighting draws.
    with _seeded(deepcopy(random_state).randint(LARGEST_SEED), device):
        criterion = _make_criterion(estimator, targets.task_names)
    _check_before_encoding(estimator)
    compile_mode = _compile_mode(estimator, criterion.weighting, device)
    plan = _batch_plan(estimator, criterion.loss, groups)
    groups = check_groups(groups, len(targets.values))
    weights = check_row_weights(sample_weight, len(targets.values))
    if weights is not None:
        check_consistent_length(X, weights)
        X, targets, weights, groups = _drop_weightless(X, targets, weights, groups)
    encoder, codes, numeric = _encode(estimator, X, weights, previous)
    check_consistent_length(codes, targets.values)
    tensors = (
        None if array is None else torch.from_numpy(array)
        for array in (codes, numeric, targets.values, weights, groups)
    )
    impressions = Impressions(*tensors)
    monitor = None if once else _monitored(estimator.early_stopping, targets)
    data = _split(impressions, estimator.validation_fraction, random_state, monitor)
    targets.warn_of_oddities(constant_tasks=not once)
    if previous is None:
        base_rates = _base_rates(targets.values, weights)
    else:
        base_rates = previous.base_rates
    with _seeded(random_state.randint(LARGEST_SEED), device):
        network = _make_network(estimator, encoder, base_rates)
        net = _make_net(
            estimator, network, criterion, device, compile_mode, plan, monitor, once
        )
        if previous is not None:
            _continue_from(net, previous.net)
        net.partial_fit(TrainingData(*(part and part.to(device) for part in data)))
    return Trained(net, encoder, targets.without_labels(), base_rates)


def _check_targets(estimator, Y, previous, classes):
    """Check the labels; where training goes on, they must be of the same tasks."""
    if previous is None:
        return check_targets(Y, estimator.task_names, classes=classes)
    earlier = previous.targets
    targets = check_targets(
        Y, estimator.task_names, default_names=earlier.task_names, classes=classes
    )
    if targets.classes.shape == (2,) == earlier.classes.shape:
        # A single task has no name that matters: a Series may bring any.
        targets = replace(targets, task_names=earlier.task_names)
    same = np.array_equal(targets.classes, earlier.classes)
    if targets.task_names != earlier.task_names or not same:
        raise ValueError(
            f"Training goes on with the tasks {list(earlier.task_names)} and classes "
            f"{earlier.classes.tolist()}; Y has {list(targets.task_names)} and "
            f"{targets.classes.tolist()}."
        )
    return targets


def _check_before_encoding(estimator):
    """Refuse what would otherwise show only once the table was encoded."""
    check_loop(estimator.optimizer, estimator.callbacks)
    check_names(
        NETWORKS,
        MultiTaskNetwork,
        "network",
        estimator.network,
        estimator.network_params,
        1,
    )


def _compile_mode(estimator, weighting, device):
    """Return the mode of torch.compile, or None where nothing is to be compiled."""
    if not estimator.compile:
        return None
    if weighting.goes_backward_per_task and weighting.n_tasks > 1:
        raise ValueError(
            f"compile={estimator.compile!r} asks for a weighting of losses: "
            f"weighting={estimator.weighting!r} goes backward once a task, which a "
            "compiled network does not take."
        )
    check_compiler(device)
    return "default" if estimator.compile is True else estimator.compile


def _batch_plan(estimator, loss, groups):
    """Return how the rows are put into batches."""
    together = loss.asks_for_groups and groups is not None
    if not estimator.stratified_batches:
        return "grouped" if together else "shuffled"
    if together:
        raise ValueError(
            f"stratified_batches takes apart the groups that loss={estimator.loss!r} "
            "compares within; pass no groups, or set stratified_batches=False."
        )
    if estimator.batch_size < 2:
        raise ValueError(
            "stratified_batches needs batch_size >= 2, room for a converted row and "
            f"another; got {estimator.batch_size}."
        )
    return "stratified"


def _drop_weightless(X, targets, weights, groups):
    """Leave out rows of weight 0, and scale the other weights to a mean of 1."""
    if weights.all():
        return X, targets, weights, groups
    rows = np.flatnonzero(weights)
    targets = replace(targets, values=targets.values[rows])
    weights = weights[rows] / weights[rows].mean()
    groups = None if groups is None else groups[rows]
    return _safe_indexing(X, rows), targets, weights, groups


def _encode(estimator, X, weights, previous):
    if previous is not None:
        learnt = previous.encoder.numeric_encoding
        if estimator.numeric_encoding != learnt:
            raise ValueError(
                "Training cannot go on with numeric_encoding="
                f"{estimator.numeric_encoding!r}: the earlier fit learnt {learnt!r}."
            )
        return previous.encoder, *previous.encoder.transform(X)
    encoder = TableEncoder(
        estimator.categorical_features, numeric_encoding=estimator.numeric_encoding
    )
    return encoder, *encoder.fit_transform(X, weights)


def _make_criterion(estimator, task_names):
    given = resolve(LOSSES, MultiTaskLoss, "loss", estimator.loss).estimator_parameters
    loss = build(
        LOSSES,
        MultiTaskLoss,
        "loss",
        estimator.loss,
        estimator.loss_params,
        task_names,
        **{name: getattr(estimator, name) for name in given},
    )
    weighting = build(
        WEIGHTINGS,
        TaskWeighting,
        "weighting",
        *as_weighting(estimator.weighting, estimator.weighting_params),
        len(task_names),
    )
    calibrator_weight = estimator.calibrator_weight
    if calibrator_weight is None:
        network = resolve(NETWORKS, MultiTaskNetwork, "network", estimator.network)
        calibrator_weight = network.calibrator_weight
    return MultiTaskCriterion(loss, weighting, calibrator_weight, estimator.task_space)


def _make_network(estimator, encoder, base_rates):
    spec = NetworkSpec(
        encoder.cardinalities_,
        encoder.n_numeric_,
        estimator.embedding_dim,
        base_rates.tolist(),
        unseen_code=UNSEEN,
        unseen_rate=estimator.unseen_rate,
        numeric_bins=encoder.numeric_bins_,
        interaction=estimator.interaction,
        task_space=estimator.task_space,
    )
    return build(
        NETWORKS,
        MultiTaskNetwork,
        "network",
        estimator.network,
        estimator.network_params,
        spec,
    )


def _make_net(
    estimator, network, criterion, device, compile_mode, batch_plan, monitor, once
):
    return make_net(
        network,
        criterion,
        optimizer=estimator.optimizer,
        lr=estimator.lr,
        weight_decay=estimator.weight_decay,
        batch_size=estimator.batch_size,
        max_epochs=1 if once else estimator.max_epochs,
        device=device,
        callbacks=estimator.callbacks or [],
        batch_plan=batch_plan,
        monitor=monitor,
        patience=estimator.n_iter_no_change,
        verbose=int(estimator.verbose),
        task_names=criterion.loss.task_names,
        precision=estimator.precision,
        compile_mode=compile_mode,
        task_space=estimator.task_space,
    )


def _monitored(early_stopping, targets):
    """Return the column of the history that early stopping watches, or None."""
    if early_stopping == "auto":
        early_stopping = len(targets.values) > EARLY_STOPPING_ABOVE
    if early_stopping is False:
        return None
    if early_stopping != "auc":
        return "valid_loss"
    only = len(targets.task_names) == 1
    return f"valid_auc_{targets.task_names[0]}" if only else "valid_auc_mean"


def _split(impressions, validation_fraction, random_state, monitor):
    if monitor is None:
        return impressions, None
    rows = funnel_holdout(
        impressions.y.numpy(),
        test_size=validation_fraction,
        random_state=random_state,
    )
    train, valid = (impressions.part(torch.from_numpy(part)) for part in rows)
    return train, valid


def _base_rates(y, weights):
    """Return each task's rate of ones, off 0 and off the rate of the task before.

    Half a row each way keeps it there, of all rows and of those with the task before.
    """
    if weights is None:
        n_rows, positives = float(len(y)), y.sum(axis=0, dtype=np.float64)
    else:
        n_rows, positives = weights.sum(dtype=np.float64), weights.astype(float) @ y
    rates, before, rate = [], n_rows, 1.0
    for ones in positives:
        # Labels that break the funnel may have more of a later task.
        of_rows, rate = (before, rate) if ones <= before else (n_rows, 1.0)
        rate *= (ones + 0.5) / (of_rows + 1.0)
        rates.append(rate)
        before = ones
    return np.array(rates)


@contextmanager
def _seeded(seed, device):
    """Seed torch's generators, and leave them as found afterwards."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _continue_from(net, previous):
    """Take weights, optimiser state and history from a trained net of equal form."""
    if net.task_space != previous.task_space:
        raise ValueError(
            f"Training cannot go on with task_space={net.task_space!r}: the earlier "
            f"fit learnt heads for {previous.task_space!r}."
        )
    for kind, part, earlier in (
        ("network", net.module_, previous.module_),
        ("loss or weighting", net.criterion_, previous.criterion_),
    ):
        try:
            part.load_state_dict(earlier.state_dict())
        except RuntimeError as error:
            raise ValueError(
                "Training cannot go on from the earlier fit, since the parameters now "
                f"describe another {kind}: {error}"
            ) from error
    if type(net.optimizer_) is type(previous.optimizer_):
        now = [
            {k: v for k, v in group.items() if k != "params"}
            for group in net.optimizer_.param_groups
        ]
        net.optimizer_.load_state_dict(deepcopy(previous.optimizer_.state_dict()))
        for group, settings in zip(net.optimizer_.param_groups, now, strict=True):
            group.update(settings)
    net.history = deepcopy(previous.history)
