"""A new fit with the encoding, and maybe the weights, of another estimator."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import replace
from typing import Any

from sk_pwiser._training._data import Schema, encode
from sk_pwiser._training._eval_set import with_eval_rows
from sk_pwiser._training._fit import build, optimise
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._plan import LARGEST_SEED, validate
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._rows import Rows
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._streamed import TrainingData


def fit_from(
    params: Mapping[str, Any],
    X: Any,
    Y: Any,
    sample_weight: Any = None,
    groups: Any = None,
    eval_set: Any = None,
    *,
    source: TrainingResult,
    share: Callable[[Rows], Schema],
    prepare: Callable[[MultiTaskNet, TrainingData, int], AbstractContextManager[None]],
    estimator_name: str,
) -> TrainingResult:
    """Train a new net on a table that is encoded by the schema of another fit.

    Parameters
    ----------
    params : mapping
        The estimator's parameters. `checkpoint_dir` is ignored: it may be that of the
        source, whose checkpoints stay.
    X, Y, sample_weight, groups, eval_set : array-like
        As passed to `fit`.
    source : TrainingResult
        The other fit, which is not changed. Tasks and encoding must be its own.
    share : callable
        Maps the checked rows to the schema that encodes them.
    prepare : callable
        Receives the new net, the encoded rows and a seed; training runs inside the
        context that it returns.
    estimator_name : str
        Name of the estimator, for messages.

    Returns
    -------
    TrainingResult
        The new result. Optimiser, history and random numbers are new.
    """
    settings = Settings.of({**params, "checkpoint_dir": None})
    plan = validate(
        settings, X, Y, sample_weight, groups, eval_set, source, None, False
    )
    plan = replace(plan, earlier=None)
    data = encode(
        settings,
        plan.rows,
        share(plan.rows),
        plan.random_state,
        holds_out=plan.monitor is not None and plan.eval_rows is None,
        is_update=False,
        estimator_name=estimator_name,
        extends=True,
    )
    if plan.eval_rows is not None:
        data = with_eval_rows(data, plan.eval_rows)
    net = build(plan, data.schema)
    # Drawn from a copy: training has the random numbers of an ordinary fit.
    seed = deepcopy(plan.random_state).randint(LARGEST_SEED)
    with prepare(net, data.rows, seed):
        return optimise(plan, data, net)
