"""The candidates of a comparison: losses, each with the weights that it takes."""

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any, NamedTuple

from sklearn.base import clone


class Candidate(NamedTuple):
    """A name, and the parameters of the estimator that differ from the given ones."""

    name: str
    params: dict[str, Any]


def build_candidates(estimator, losses, weights):
    """Return the candidates in order: each loss with each weight that it takes.

    Parameters
    ----------
    estimator : estimator object
        It, or the estimator inside it, has the parameter ``loss``.
    losses : sequence of str or class
        Values of ``loss``.
    weights : sequence of float or None
        Values of ``pwiser_weight`` for the losses that take it. None keeps the value of
        the estimator.

    Returns
    -------
    list of Candidate

    Raises
    ------
    ValueError, TypeError
        If there are fewer than two candidates or one occurs twice, if the estimator
        lacks a parameter or does not accept a value.
    """
    if isinstance(losses, str) or not isinstance(losses, Iterable):
        raise TypeError(
            f"losses must be a sequence such as ('bce', 'pwiser'), got {losses!r}."
        )
    if isinstance(estimator, type) or not hasattr(estimator, "get_params"):
        raise TypeError(f"estimator must be an estimator object, got {estimator!r}.")
    losses = list(losses)
    params = estimator.get_params(deep=True)
    loss_path = find_path(estimator, params, "loss")
    prefix = loss_path.removesuffix("loss")
    weight_path = f"{prefix}pwiser_weight"
    weights = check_weights(weights, losses, weight_path in params, estimator)

    candidates = []
    for loss in losses:
        changes = {loss_path: loss}
        # Keyword arguments of one loss are in general unknown to another one.
        if f"{prefix}loss_params" in params and loss != params[loss_path]:
            changes[f"{prefix}loss_params"] = None
        name = loss if isinstance(loss, str) else getattr(loss, "__name__", repr(loss))
        if not takes_weight(loss) or weight_path not in params:
            candidates.append(Candidate(name, changes))
            continue
        for weight in [params[weight_path]] if weights is None else weights:
            text = f"{weight:g}" if isinstance(weight, Real) else weight
            named = f"{name} (weight {text})"
            candidates.append(Candidate(named, {**changes, weight_path: weight}))
    check_candidates(candidates, estimator, prefix.removesuffix("__"))
    return candidates


def find_path(estimator, params, name):
    """Return the key of a parameter in ``get_params()`` of a nested estimator.

    The shallowest key is used, so that a transformer inside a selector does not count.
    """
    paths = [key for key in params if key == name or key.endswith(f"__{name}")]
    depths = [path.count("__") for path in paths]
    shallowest = [p for p, d in zip(paths, depths, strict=True) if d == min(depths)]
    if len(shallowest) != 1:
        found = f"found {shallowest} in" if shallowest else "found none in"
        raise ValueError(
            f"estimator must have one parameter {name!r}, itself or in its last step; "
            f"{found} {type(estimator).__name__}."
        )
    return shallowest[0]


def takes_weight(loss):
    """Return whether a loss takes ``pwiser_weight`` of the estimator."""
    # The registry of the names is not available here, because it requires torch.
    if isinstance(loss, str):
        return loss == "pwiser"
    return "pwiser_weight" in getattr(loss, "estimator_parameters", ())


def check_weights(weights, losses, has_parameter, estimator):
    """Return the weights as a list, or None; raise if they cannot be used."""
    if weights is None:
        return None
    is_sequence = isinstance(weights, Sequence) or getattr(weights, "ndim", 0) == 1
    if isinstance(weights, str) or not is_sequence or len(weights) == 0:
        raise TypeError(
            f"weights must be a sequence of numbers >= 0 or None, got {weights!r}."
        )
    for weight in weights:
        is_number = isinstance(weight, Real) and not isinstance(weight, bool)
        # Names are left to the estimator, which knows those that it accepts.
        if not isinstance(weight, str) and not (
            is_number and 0 <= weight < float("inf")
        ):
            raise ValueError(f"weights must hold finite numbers >= 0, got {weight!r}.")
    if not has_parameter:
        raise ValueError(
            "weights must be None for an estimator without the parameter "
            f"'pwiser_weight', got {weights!r} with {type(estimator).__name__}."
        )
    if not any(takes_weight(loss) for loss in losses):
        raise ValueError(
            f"weights must be None if no loss takes a weight, got {weights!r} with the "
            f"losses {losses!r}."
        )
    return list(weights)


def check_candidates(candidates, estimator, owner_path):
    """Raise if candidates are too few or repeated, or the estimator rejects one."""
    names = [candidate.name for candidate in candidates]
    if len(names) < 2:
        raise ValueError(
            "losses and weights must give at least two candidates; the first one is "
            f"the baseline. Got {names}."
        )
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"losses and weights must be distinct, got {repeated[0]!r} "
            f"{names.count(repeated[0])} times."
        )
    for candidate in candidates:
        model = clone(estimator).set_params(**candidate.params)
        owner = model.get_params()[owner_path] if owner_path else model
        if not hasattr(owner, "_parameter_constraints"):
            continue
        try:
            owner._validate_params()
        except ValueError as error:
            raise ValueError(
                "losses and weights must be valid for the estimator, but the candidate "
                f"{candidate.name!r} is not: {error}"
            ) from error
