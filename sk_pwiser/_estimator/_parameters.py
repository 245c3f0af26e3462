"""Parameters of the estimator that are entries of dictionaries, and wrong names."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from itertools import chain
from typing import Any, Self, TypeVar, cast

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import InvalidParameterError

from sk_pwiser._settings import (
    PARAMETER_CONSTRAINTS,
    check_optimizer_name,
    without_vectors,
)
from sk_pwiser._utils import _checks
from sk_pwiser.weighting import check_not_removed

# What other packages call the parameters, and arguments of `fit`.
OTHER_NAMES = {
    "lr": ("learning_rate", "eta"),
    "max_epochs": ("n_estimators", "num_boost_round", "iterations", "epochs"),
    "n_iter_no_change": ("early_stopping_rounds", "patience"),
    "early_stopping": ("eval_metric", "monitor"),
    "validation_fraction": ("validation_split",),
    "categorical_features": ("categorical_feature", "cat_features"),
    "weight_decay": ("reg_lambda",),
    "verbose": ("verbose_eval",),
    "random_state": ("seed",),
    "eval_set": ("validation_data",),
    "sample_weight": ("weight", "class_weight", "scale_pos_weight"),
    "groups": ("group",),
}
# The same, from their names to ours.
NAMES_HERE = {
    name_elsewhere: name
    for name, names_elsewhere in OTHER_NAMES.items()
    for name_elsewhere in names_elsewhere
}
# What other packages call the number of threads, which is no parameter.
THREADS = ("n_jobs", "num_threads", "nthread", "thread_count")

Method = TypeVar("Method", bound=Callable[..., Any])


def explain_names(function: Method) -> Method:
    """Let errors about unknown keywords of a method name the parameter meant.

    Labels may be passed as `y`, as in scikit-learn, or as `Y`.
    """
    arguments = signature(function).parameters

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs.keys() - arguments.keys():
            other_case = name[:1].swapcase() + name[1:]
            is_labels = name[:1] in ("Y", "y") and other_case in arguments
            if is_labels and other_case not in kwargs:
                kwargs[other_case] = kwargs.pop(name)
                continue
            names = [*arguments, *PARAMETER_CONSTRAINTS, *NAMES_HERE, *THREADS]
            meant = name if name in names else _checks.nearest(name, names)
            meant = NAMES_HERE.get(meant, meant)
            if name in THREADS:
                hint = "set the number of threads by `with sk_pwiser.num_threads(n):`"
            elif meant in arguments:
                hint = f"the argument is {meant}"
            elif meant in PARAMETER_CONSTRAINTS:
                hint = f"set the parameter {meant} of the estimator"
            elif meant in ("sample_weight", "groups", "eval_set"):
                hint = f"pass {meant} to fit"
            else:
                continue
            raise TypeError(
                f"{function.__name__}() got an unexpected keyword argument {name!r}; "
                f"{hint}."
            )
        return function(*args, **kwargs)

    return cast(Method, call)


class ParametersMixin(BaseEstimator):  # type: ignore[misc]
    """Mixin class of an estimator with entries of dictionaries as parameters."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Get the parameters of the estimator.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include entries of dictionaries, as `<dictionary>__<entry>`.

        Returns
        -------
        dict
            Parameter names mapped to their values.
        """
        params: dict[str, Any] = super().get_params(deep=deep)
        if deep:
            for name, value in list(params.items()):
                if name.endswith("_params") and isinstance(value, dict):
                    params.update({f"{name}__{key}": v for key, v in value.items()})
        return params

    def set_params(self, **params: Any) -> Self:
        """Set the parameters of the estimator.

        Parameters
        ----------
        **params : dict
            Parameters, or entries of dictionaries as `<dictionary>__<entry>`, for
            example `network_params__n_experts=8`. An entry is set in a copy of the
            dictionary, and its name is checked in `fit`.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The estimator.

        Raises
        ------
        ValueError
            If the estimator has no such parameter, or if an entry is to be set in a
            value that is not a dictionary.
        """
        names = self._get_param_names()
        entries = {}
        for key in list(params):
            name, separator, entry = key.partition("__")
            if separator and name.endswith("_params"):
                entries[name, entry] = params.pop(key)
            if name not in names:
                # The message of scikit-learn, with the name that was meant.
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. Valid "
                    f"parameters are: {names!r}.{_checks.did_you_mean(name, names)}"
                )
        # Values first: an entry may belong to a dictionary set in the same call.
        super().set_params(**params)
        for (name, entry), value in entries.items():
            dictionary = getattr(self, name)
            if not isinstance(dictionary, dict | None):
                raise ValueError(
                    f"{name}__{entry} sets an entry of {name}, which is not a "
                    f"dictionary but {dictionary!r}."
                )
            setattr(self, name, {**(dictionary or {}), entry: value})
        return self

    def __sklearn_clone__(self) -> Any:
        """Return a clone, which holds the same tables of vectors.

        scikit-learn copies dictionaries deeply, and the tables in one may be large.
        """
        without_tables = object.__new__(type(self))
        without_tables.__dict__.update(vars(self))
        params, tables = without_vectors(self.get_params(deep=False))
        without_tables.encoding_params = params["encoding_params"]
        cloned = super(ParametersMixin, without_tables).__sklearn_clone__()
        if tables is not None:
            tables = dict(tables) if isinstance(tables, dict) else tables
            cloned.encoding_params = {**cloned.encoding_params, "vectors": tables}
        return cloned

    def _validate_params(self) -> None:
        """Validate the parameters; errors also name the one that was meant."""
        check_not_removed(getattr(self, "weighting", None))
        check_optimizer_name(getattr(self, "optimizer", None))
        try:
            super()._validate_params()
        except InvalidParameterError as error:
            name = str(error).split("'")[1]
            rules = self._parameter_constraints.get(name, ())
            names = chain.from_iterable(getattr(rule, "options", ()) for rule in rules)
            hint = _checks.did_you_mean(getattr(self, name, None), names)
            raise InvalidParameterError(f"{error}{hint}") from error
