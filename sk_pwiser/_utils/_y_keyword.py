"""The keyword argument `y` for functions and methods whose labels are called `Y`."""

from functools import wraps


def accept_lowercase_y(function):
    """Let a function with a parameter `Y` be called with the keyword `y` as well.

    Some functions of scikit-learn and of libraries built on it pass labels as `y=`.

    Parameters
    ----------
    function : callable
        A function or method with a parameter `Y`.

    Returns
    -------
    callable
    """

    @wraps(function)
    def call(*args, **kwargs):
        if "y" in kwargs:
            if "Y" in kwargs:
                raise TypeError(
                    f"{function.__name__}() got labels twice: as 'Y' and as 'y'."
                )
            kwargs["Y"] = kwargs.pop("y")
        return function(*args, **kwargs)

    return call
