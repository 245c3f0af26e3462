"""scikit-learn's check of the parameters before a fit, as a decorator with types."""

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.base import _fit_context

Method = TypeVar("Method", bound=Callable[..., Any])


def checks_parameters(*, also_nested: bool) -> Callable[[Method], Method]:
    """Return a decorator of methods that fit.

    It raises for parameters that break the `_parameter_constraints` of the class.
    `also_nested` says whether estimators among the parameters check theirs as well,
    which those that are fitted inside the method would otherwise repeat.
    """
    decorator: Callable[[Method], Method] = _fit_context(
        prefer_skip_nested_validation=not also_nested
    )
    return decorator
