"""Networks, losses and weightings by name or class."""

import inspect


def build(registry, base, parameter, choice, params, *args, **context):
    """Build a component from `args` that all take, after `check_names`."""
    kind = check_names(registry, base, parameter, choice, params, len(args), **context)
    return kind(*args, **context, **(params or {}))


def check_names(
    registry, base, parameter, choice, params, n_args, *, shared=(), **context
):
    """Return the class of a component, after a check of the names of its parameters.

    All components take `n_args` positional arguments and the `shared` parameters.
    """
    kind = resolve(registry, base, parameter, choice)
    params = params or {}
    signature = inspect.signature(kind).parameters.values()
    known = [
        p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    known = [name for name in known[n_args:] if name not in context]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in signature)
    for key in params:
        if key in context:
            raise ValueError(
                f"{parameter}_params holds {key!r}, which is a parameter of the "
                f"estimator: set {key}={params[key]!r} there."
            )
        if not (takes_any or key in known):
            raise ValueError(
                f"{parameter}_params holds {key!r}, which {choice!r} does not take; "
                f"it takes {[*known, *shared]}."
            )
    try:
        inspect.signature(kind).bind(*[None] * n_args, **context, **params)
    except TypeError as error:
        raise ValueError(
            f"{parameter}_params lacks an argument that {choice!r} requires: {error}."
        ) from error
    return kind


def resolve(registry, base, parameter, choice):
    if isinstance(choice, str):
        if choice not in registry:
            raise ValueError(
                f"{parameter} must be one of {sorted(registry)} or a subclass of "
                f"{base.__name__}; got {choice!r}."
            )
        return registry[choice]
    if not (isinstance(choice, type) and issubclass(choice, base)):
        raise TypeError(
            f"{parameter} must be a name or a subclass of {base.__name__}; got "
            f"{choice!r}."
        )
    return choice
