"""The names of the parameters of the estimator, and the arguments of `fit`."""

from functools import wraps
from inspect import signature

from sklearn.utils._param_validation import StrOptions

from sk_pwiser._table._frames import reads_in_parts
from sk_pwiser._table._numbers import NUMERIC_ENCODINGS
from sk_pwiser._training._schema import GivenRows
from sk_pwiser._training._settings import PARAMETER_CONSTRAINTS
from sk_pwiser._utils import nearest

PARAMETER_CONSTRAINTS["numeric_encoding"] = [StrOptions(set(NUMERIC_ENCODINGS))]

# What other packages call the parameters, and arguments of `fit`.
OTHER_NAMES = {
    "learning_rate": "lr",
    "eta": "lr",
    "n_estimators": "max_epochs",
    "num_boost_round": "max_epochs",
    "iterations": "max_epochs",
    "epochs": "max_epochs",
    "early_stopping_rounds": "n_iter_no_change",
    "patience": "n_iter_no_change",
    "eval_metric": "early_stopping",
    "monitor": "early_stopping",
    "validation_split": "validation_fraction",
    "categorical_feature": "categorical_features",
    "cat_features": "categorical_features",
    "reg_lambda": "weight_decay",
    "verbose_eval": "verbose",
    "seed": "random_state",
    "validation_data": "eval_set",
    "weight": "sample_weight",
    "class_weight": "sample_weight",
    "scale_pos_weight": "sample_weight",
    "group": "groups",
}
THREADS = ("n_jobs", "num_threads", "nthread", "thread_count")


def explain_names(function):
    """Let errors about unknown keywords of a method name the parameter meant."""
    known = signature(function).parameters

    @wraps(function)
    def call(*args, **kwargs):
        for name in kwargs.keys() - known.keys():
            names = [*known, *PARAMETER_CONSTRAINTS, *OTHER_NAMES, *THREADS]
            meant = name if name in names else nearest(name, names)
            meant = OTHER_NAMES.get(meant, meant)
            if name in THREADS:
                hint = "set the number of threads by `with sk_pwiser.num_threads(n):`"
            elif meant in known:
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

    return call


def one_eval_set(eval_set, X_val, Y_val, sample_weight_val, groups_val):
    """Return the validation rows as `eval_set`, in whichever way `fit` got them."""
    rows = GivenRows(X_val, Y_val, sample_weight_val, groups_val)
    given = [name for name, value in rows._asdict().items() if value is not None]
    if not given:
        return eval_set
    if eval_set is not None:
        raise ValueError(
            f"Pass validation rows as eval_set or as {given[0]}_val, not as both."
        )
    if reads_in_parts(X_val):
        if given != ["X"]:
            raise ValueError(
                f"{given[1]}_val must be None for X_val={X_val!r}, which names its "
                "columns of labels and of groups, and has no weights."
            )
        return X_val
    for name in ("X", "Y"):
        if name not in given:
            raise ValueError(f"{name}_val must be given with {given[0]}_val.")
    return rows


def with_entry(dictionary, entry, value, name):
    """Return a copy of a dictionary with one entry set, `__` leading into others."""
    if not (dictionary is None or isinstance(dictionary, dict)):
        raise ValueError(
            f"{name}__{entry} sets an entry of {name}, which is not a dictionary but "
            f"{dictionary!r}."
        )
    key, _, rest = entry.partition("__")
    copy = dict(dictionary or {})
    if rest:
        value = with_entry(copy.get(key), rest, value, f"{name}__{key}")
    copy[key] = value
    return copy
