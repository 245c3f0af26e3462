"""Networks, losses, weightings and optimizers by name or class."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

from sk_pwiser._utils._checks import did_you_mean


class RemovedNameError(ValueError):
    """A choice that earlier versions had; the message names what to use instead."""


# Parameters that can be passed by name.
NAMED_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

# Components by name, their base class, the parameter that chooses one, and its value.
Choice = tuple[Mapping[str, type], type, str, Any]

Params = Mapping[str, Any] | None


def build(choice: Choice, params: Params, *args: Any, **context: Any) -> Any:
    """Build a component from `args` that all take, after `check_names`."""
    kind = check_names(choice, params, len(args), **context)
    component = kind(*args, **context, **(params or {}))
    # The constructor of the base class stores its first argument.
    argument = next(iter(inspect.signature(choice[1]).parameters))
    if not hasattr(component, argument):
        raise TypeError(
            f"{kind.__name__}.__init__ must call super().__init__({argument}) before "
            "it sets attributes."
        )
    return component


def check_names(
    choice: Choice,
    params: Params,
    n_args: int,
    *,
    shared: Collection[str] = (),
    **context: Any,
) -> type[Any]:
    """Return the class of a component, after a check of the names of its parameters.

    All components take `n_args` positional arguments and the `shared` parameters. The
    methods of a user's class must take those of the base class by position.
    """
    kind = resolve(choice)
    _, base, parameter, name = choice
    params = params or {}
    signature = inspect.signature(kind).parameters.values()
    named = [p.name for p in signature if p.kind in NAMED_KINDS]
    accepted = [key for key in named[n_args:] if key not in context]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in signature)
    for key in params:
        if key in context:
            raise ValueError(
                f"{parameter}_params holds {key!r}, which is a parameter of the "
                f"estimator: set {key}={params[key]!r} there."
            )
        if not (takes_any or key in accepted):
            accepted += shared
            raise ValueError(
                f"{parameter}_params holds {key!r}, which {name!r} does not take; "
                f"it takes {accepted}.{did_you_mean(key, accepted)}"
            )
    try:
        inspect.signature(kind).bind(*[None] * n_args, **context, **params)
    except TypeError as error:
        raise ValueError(
            f"{parameter}_params lacks an argument that {name!r} requires: {error}."
        ) from error
    for method in ("forward", "observe"):
        if method not in vars(base):
            continue
        arguments = list(inspect.signature(getattr(base, method)).parameters)
        try:
            inspect.signature(getattr(kind, method)).bind(*arguments)
        except TypeError as error:
            raise TypeError(
                f"{kind.__name__}.{method} must take the arguments "
                f"{', '.join(arguments)}: {error}."
            ) from error
    return kind


def resolve(choice: Choice) -> type[Any]:
    registry, base, parameter, value = choice
    if isinstance(value, str) and value in registry:
        return registry[value]
    if isinstance(value, type) and issubclass(value, base):
        return value
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(
        f"{parameter} must be one of {sorted(registry)} or a subclass of "
        f"{base.__name__}; got {value!r}.{did_you_mean(value, registry)}"
    )
