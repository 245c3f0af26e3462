"""What must hold for every call of an estimator, whatever is passed to it.

A call returns finite probabilities strictly between 0 and 1, or it raises a ValueError
or TypeError that names what is wrong. It changes no argument, and after an error the
estimator is as it was before.

The variable SK_PWISER_FUZZ selects how many calls there are: "short", the default, is
the same in every run; "long" draws new examples each time, and prints how a failure can
be repeated.
"""

import os
import re
import warnings
from contextlib import contextmanager

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from numpy.testing import assert_array_equal
from sklearn.exceptions import UndefinedMetricWarning

# Longest message: errors must not print whole tables.
LONGEST = 1_500
PROFILE = os.environ.get("SK_PWISER_FUZZ", "short")
if PROFILE not in ("short", "long"):
    raise ValueError(f"SK_PWISER_FUZZ must be 'short' or 'long'; got {PROFILE!r}.")


def examples(short, long):
    """Return a decorator that sets the number of examples by the profile."""
    is_short = PROFILE == "short"
    phases = set(Phase)
    if is_short:
        phases -= {Phase.explain}
    return settings(
        max_examples=short if is_short else long,
        deadline=None,  # a slow machine is not a defect
        derandomize=is_short,
        database=None,
        print_blob=True,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def declared_warnings():
    """Let the package's own warnings pass, which point to the caller: this file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=UserWarning, module=r".*oracle$")
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        for library in ("X does not have valid feature names", "X has feature names"):
            warnings.filterwarnings("ignore", message=library)
        yield


class Session:
    """An estimator, fitted or not, and what is known about its last fit."""

    def __init__(self, model):
        self.model = model
        self.table = None
        self.predictions = None

    def train(self, method, X, Y, culprit=None, **kwargs):
        """Call `fit` or `partial_fit`, and return whether it succeeded.

        `culprit` is a regular expression of what an error must name; None if all is
        valid, so that no error is allowed.
        """
        before = fitted_attributes(self.model)
        succeeded = self._call(method, (X, Y), kwargs, culprit)
        if succeeded:
            self.table = X
            self.predictions = self.check_probabilities(X)
            return True
        after = fitted_attributes(self.model)
        assert after.keys() == before.keys()
        assert all(after[name] is before[name] for name in before)
        if self.predictions is not None:
            assert_array_equal(self.check_probabilities(self.table), self.predictions)
        return False

    def use(self, method, *args, culprit=None, **kwargs):
        """Call a method that does not train, and return whether it succeeded."""
        succeeded = self._call(method, args, kwargs, culprit)
        if self.predictions is not None:
            assert_array_equal(self.check_probabilities(self.table), self.predictions)
        return succeeded

    def check_probabilities(self, X):
        """Return the probabilities for a table, after checks of their form."""
        model = self.model
        with declared_warnings():
            probabilities = model.predict_proba(X)
        n_columns = 2 if model.classes_.ndim == 1 else model.n_tasks_
        assert probabilities.ndim == 2
        assert probabilities.shape[1] == n_columns
        assert np.isfinite(probabilities).all()
        assert (probabilities > 0).all()
        assert (probabilities < 1).all()
        return probabilities

    def _call(self, method, args, kwargs, culprit):
        before = content((args, kwargs))
        try:
            with declared_warnings():
                getattr(self.model, method)(*args, **kwargs)
        except (ValueError, TypeError) as error:
            if culprit is None:
                raise
            message = str(error)
            assert re.search(culprit, message), f"{culprit!r} is not in: {message}"
            assert len(message) <= LONGEST, message
            return False
        finally:
            assert content((args, kwargs)) == before
        return True


def fitted_attributes(model):
    """Return the attributes of an estimator that a fit sets."""
    return {k: v for k, v in vars(model).items() if k.endswith("_") or k[0] == "_"}


def content(value):
    """Return all that an argument contains as text."""
    if isinstance(value, dict):
        return {repr(key): content(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [content(each) for each in value]
    if hasattr(value, "to_pydict"):
        return repr(value.schema), repr(value.to_pydict())
    if hasattr(value, "to_dict") and hasattr(value, "columns"):
        columns = [value[column] for column in value.columns]
        return [(repr(c.dtype), list(map(repr, c))) for c in columns]
    if hasattr(value, "tocoo"):
        entries = value.tocoo()
        return value.shape, *map(
            repr, zip(entries.row, entries.col, entries.data, strict=True)
        )
    if isinstance(value, np.ndarray):
        return value.dtype.str, list(map(repr, value.ravel().tolist()))
    return repr(value)
