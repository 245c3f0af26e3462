"""Build the network, loss or weighting that a name or class stands for."""

import inspect


def build(registry, base, parameter, choice, params, *args, **context):
    """Build a component, or say what its parameters are.

    Parameters and errors are those of `check_names`, with what every component of the
    kind is given in place of `n_args`.
    """
    kind = check_names(registry, base, parameter, choice, params, len(args), **context)
    return kind(*args, **context, **(params or {}))


def check_names(registry, base, parameter, choice, params, n_args, **context):
    """Return a component's class, if it takes the parameters by their names.

    Parameters
    ----------
    registry : dict of str to type
        Names and their classes.
    base : type
        What every class of the kind is a subclass of.
    parameter : str
        Name of the estimator's parameter, such as "network", for messages.
    choice : str or type
        A name in the registry, or a class.
    params : dict or None
        The user's keyword parameters.
    n_args : int
        Number of positional arguments that every component of the kind is given.
    **context : dict
        What it is given by name.

    Returns
    -------
    type
        The class that is to be built.

    Raises
    ------
    ValueError
        If `params` holds a key that the component does not take or that is given by
        the estimator, or lacks one that the component needs.
    TypeError
        If the class is none of the kind.
    """
    kind = resolve(registry, base, parameter, choice)
    params = {} if params is None else dict(params)
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
                f"it takes {known}."
            )
    try:
        inspect.signature(kind).bind(*[None] * n_args, **context, **params)
    except TypeError as error:
        raise ValueError(
            f"{parameter}_params lacks what {choice!r} needs: {error}."
        ) from error
    return kind


def resolve(registry, base, parameter, choice):
    """Return the class that a name, or the class itself, stands for."""
    kind = registry[choice] if isinstance(choice, str) else choice
    if not issubclass(kind, base):
        raise TypeError(
            f"{parameter} must be a name or a subclass of {base.__name__}; got {kind}."
        )
    return kind
