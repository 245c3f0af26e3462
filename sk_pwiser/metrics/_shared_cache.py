"""The cache of predictions that the scorers of one ``scoring`` share."""


def shared_cache(method_caller):
    """Return the dict that the scorers of one ``scoring`` share, or a new one.

    Scikit-learn's scorer of several metrics passes ``partial(_cached_call, cache)`` as
    ``method_caller`` to each of its scorers. The function itself cannot be used,
    because it reduces the probabilities of several tasks to one column. The cache is
    None if no method would be called twice.
    """
    arguments = getattr(method_caller, "args", ())
    is_shared = len(arguments) == 1 and isinstance(arguments[0], dict)
    return arguments[0] if is_shared else {}
