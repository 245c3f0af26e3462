"""Compares losses, or models of other packages, on one table."""

import argparse
from collections.abc import Sequence
from typing import Any

from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sk_pwiser import model_selection
from sk_pwiser._command._options import make_model, read_value_tasks


def compare(
    title: str,
    X: Any,
    Y: Any,
    arguments: argparse.Namespace,
    *,
    times: Any = None,
    groups: Any = None,
) -> None:
    """Compare losses, or models of other packages, on a data set; print the result."""
    value_tasks = read_value_tasks(arguments)
    events = Y.drop(columns=list(value_tasks))
    rates = ", ".join(f"{task} {rate:.2%}" for task, rate in events.mean().items())
    folds = arguments.folds
    order = "stratified by funnel depth"
    if times is not None:
        folds = model_selection.FunnelTimeSplit(folds, time=times)
        order = f"in the order of {times.name!r}"
    elif groups is not None:
        splitter = model_selection.FunnelGroupKFold(folds, random_state=arguments.seed)
        folds = list(splitter.split(X, events, groups))
        order = f"of whole {groups.name!r}"
    print(
        f"\n{title}: {len(X):,} rows, {X.shape[1]} features; {rates}\n"
        f"{arguments.folds} folds {order}, seed {arguments.seed}",
        flush=True,
    )
    # The list silences warnings about columns that the description has named.
    params: dict[str, Any] = {"categorical_features": []}
    if times is not None:
        X = X.assign(**{times.name: times})
        params["encoding_params"] = {"time_column": times.name}
    model = make_model(arguments, **params)
    common = {
        "cv": folds,
        "n_jobs": arguments.jobs,
        "verbose": 1,
        "random_state": arguments.seed,
    }
    comparisons = []
    if arguments.against_others:
        models = model_selection.named_models("default", n_tasks=events.shape[1])
        if times is not None:
            drop = FunctionTransformer(type(X).drop, kw_args={"columns": times.name})
            models = {
                name: make_pipeline(drop, baseline) for name, baseline in models.items()
            }
        models["sk_pwiser"] = model
        comparisons.append(
            model_selection.compare_models(X, events, models=models, **common)
        )
        if value_tasks:
            models = model_selection.named_value_models(
                "default",
                value_tasks,
                classifier=model,
                left_out=() if times is None else [times.name],
            )
            comparisons.append(
                model_selection.compare_models(
                    X, Y, models=models, value_tasks=value_tasks, **common
                )
            )
    else:
        model.set_params(value_tasks=value_tasks or None)
        models = compared_losses(arguments.weights)
        comparisons.append(
            model_selection.compare_models(
                X,
                Y,
                models=models,
                estimator=model,
                params=None if groups is None else {"groups": groups},
                **common,
            )
        )
    for comparison in comparisons:
        seeds = f"Seeds of the folds: {comparison.seeds.tolist()}."
        print(comparison, comparison.seconds, seeds, sep="\n", flush=True)


def compared_losses(weights: Sequence[float] | None) -> dict[str, Any]:
    """Return both losses as models, PWiseR with each of the weights."""
    if weights is None:
        return {"bce": "bce", "pwiser": "pwiser"}
    models: dict[str, Any] = {"bce": "bce"}
    for weight in weights:
        params = {"loss": "pwiser", "pwiser_weight": weight}
        models[f"pwiser (weight {weight:g})"] = params
    return models
