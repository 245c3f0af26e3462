"""The keyword argument `y` for methods whose labels are called `Y`."""

from functools import wraps


def accept_lowercase_y(method):
    """Let a method with a parameter `Y` be called with the keyword `y` as well.

    Some functions of scikit-learn and of libraries built on it pass labels as `y=`.

    Parameters
    ----------
    method : callable
        A method with a parameter `Y`.

    Returns
    -------
    callable
    """

    @wraps(method)
    def call(self, *args, **kwargs):
        if "y" in kwargs:
            if "Y" in kwargs:
                raise TypeError(
                    f"{method.__name__}() got labels twice: as 'Y' and as 'y'."
                )
            kwargs["Y"] = kwargs.pop("y")
        return method(self, *args, **kwargs)

    return call
