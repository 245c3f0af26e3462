"""Variants of one estimator as models of a comparison: other losses or parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.base import clone

from sk_pwiser import _responses


@dataclass(frozen=True, kw_only=True)
class EstimatorVariant:
    """An estimator with other parameters than those it is given with.

    Parameters
    ----------
    label : str
        Its name among the models, for errors.
    params : dict of str to object
        Those that differ, as `set_params` takes them.
    """

    label: str
    params: dict[str, Any]

    def build(self, estimator: Any, names: Sequence[str]) -> Any:
        """Return the estimator; raise if its `fit` would refuse the parameters.

        `names` are those of other models, for the error.
        """
        try:
            model = clone(estimator).set_params(**self.params)
            owner = owner_of_loss(model)
            if hasattr(owner, "_parameter_constraints"):
                owner._validate_params()
        except ValueError as error:
            raise ValueError(
                f"models[{self.label!r}] must be one of {list(names)}, a loss or "
                f"parameters of the estimator: {error}"
            ) from error
        return model


def variant_of_loss(label: str, loss: Any, estimator: Any) -> EstimatorVariant:
    """Return the variant with another loss, a name or a class."""
    params = estimator.get_params(deep=True)
    prefix = find_prefix(estimator, params)
    changes = {f"{prefix}loss": loss}
    loss_params = f"{prefix}loss_params"
    # Other losses have other keyword arguments.
    if loss_params in params and loss != params[f"{prefix}loss"]:
        changes[loss_params] = None
    return EstimatorVariant(label=label, params=changes)


def is_loss_class(model: Any) -> bool:
    """Return whether an entry of the models is a class, but none of an estimator."""
    return isinstance(model, type) and not hasattr(model, "get_params")


def owner_of_loss(estimator: Any) -> Any:
    """Return the estimator within a nested one whose parameter is the loss."""
    params = estimator.get_params(deep=True)
    owner_path = find_prefix(estimator, params).removesuffix("__")
    return params[owner_path] if owner_path else estimator


def with_value_tasks(estimator: Any, value_tasks: Mapping[Any, Any]) -> Any:
    """Return a copy of the estimator that predicts these amounts."""
    prefix = find_prefix(estimator, estimator.get_params(deep=True))
    return clone(estimator).set_params(**{f"{prefix}value_tasks": dict(value_tasks)})


def find_prefix(estimator: Any, params: Mapping[str, Any]) -> str:
    """Return the prefix of the least nested parameter ``loss`` in ``get_params()``."""
    paths = _responses.find_paths(params, "loss")
    # Parameters of an estimator may hold further estimators, with the same names.
    depth = min((path.count("__") for path in paths), default=0)
    shallowest = [path for path in paths if path.count("__") == depth]
    if len(shallowest) != 1:
        raise ValueError(
            "estimator must have one parameter 'loss', itself or in its last step; "
            f"found {shallowest or 'none'} in {type(estimator).__name__}."
        )
    return shallowest[0].removesuffix("loss")
