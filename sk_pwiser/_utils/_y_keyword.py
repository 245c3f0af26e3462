"""The keyword arguments `y` and `Y` for functions that take labels."""

import inspect
from functools import wraps


def accept_any_case_of_y(function):
    """Let a function with a parameter `Y` or `y` be called with either keyword.

    Some functions of scikit-learn and of libraries built on it pass labels as `y=`,
    while labels of several tasks are usually called `Y`.

    Parameters
    ----------
    function : callable
        A function or method with a parameter `Y` or `y`.

    Returns
    -------
    callable
    """
    name = "Y" if "Y" in inspect.signature(function).parameters else "y"
    other = name.swapcase()

    @wraps(function)
    def call(*args, **kwargs):
        if other in kwargs:
            if name in kwargs:
                raise TypeError(
                    f"{function.__name__}() got labels twice: as 'Y' and as 'y'."
                )
            kwargs[name] = kwargs.pop(other)
        return function(*args, **kwargs)

    return call
