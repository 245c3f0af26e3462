"""Fitted estimators as plain values and arrays, which files and skops hold."""

from numbers import Integral

from sklearn import config_context

from sk_pwiser._model_files import READING_ERRORS, PlainForm
from sk_pwiser._training._schema import encode_plain
from sk_pwiser._training._state import STATE_CLASSES, from_state, to_state
from sk_pwiser._version import __version__

# Methods that scikit-learn's metadata routing passes weights and groups to.
ROUTED = ("fit", "partial_fit", "score")


def to_plain(estimator):
    """Return the estimator, fitted or not, as values of JSON and arrays."""
    params = estimator.get_params(deep=False)
    _check_params("", params)
    result = getattr(estimator, "_result", None)
    if result is not None:
        result = to_state(result)
        _check_params(" at the last fit", vars(result["settings"]))
    routing = estimator.get_metadata_routing()
    params["device"] = str(params["device"])
    del params["checkpoint_dir"]
    content = {
        "class": type(estimator).__name__,
        "sk_pwiser": __version__,
        "params": params,
        "requests": {m: dict(getattr(routing, m).requests) for m in ROUTED},
        "result": result,
    }
    schema = None if result is None else result["schema"]
    return encode_plain(PlainForm(STATE_CLASSES), content, "model", schema)


def from_plain(cls, values, arrays, name):
    """Build an estimator from its plain form; `name` is the file's, for messages."""
    try:
        of_class = values.get("class") if isinstance(values, dict) else None
        if of_class is not None and of_class != cls.__name__:
            raise ValueError(
                f"it is a model of {of_class!r}; read it with {of_class}.load"
            )
        content = PlainForm(STATE_CLASSES).decode(values, arrays)
        if content.get("kind") == "checkpoint":
            raise ValueError("it is a checkpoint, from which fit resumes training")
        defaults = cls().get_params(deep=False)
        params = content["params"]
        unknown = [name for name in params if name not in defaults]
        if unknown:
            raise ValueError(f"its parameters {unknown} are unknown")
        # A file must not choose where a later fit writes.
        estimator = cls(**{**params, "checkpoint_dir": None})
        _set_requests(estimator, content.get("requests", {}))
        if content["result"] is not None:
            estimator._set_result(from_state(content["result"], defaults))
    except READING_ERRORS as error:
        raise ValueError(
            f"{name} is not a valid file of a {cls.__name__}: "
            f"{error}{_written_by(values)}"
        ) from error
    return estimator


def _set_requests(estimator, requests):
    with config_context(enable_metadata_routing=True):
        for method in ROUTED:
            made = {k: v for k, v in requests.get(method, {}).items() if v is not None}
            if made:
                getattr(estimator, f"set_{method}_request")(**made)


def _written_by(values):
    version = values.get("sk_pwiser") if isinstance(values, dict) else None
    if version in (None, __version__):
        return ""
    return (
        f". It was written by version {version} of sk_pwiser; this is version "
        f"{__version__}."
    )


def _check_params(when, params):
    """Raise for parameters that only code could restore."""
    for name in ("network", "loss", "weighting", "optimizer", "early_stopping"):
        if callable(params[name]):
            raise TypeError(
                f"A model with {name}={params[name]!r}{when} cannot be saved: the file "
                "would need its code. Use pickle, for files that you trust."
            )
    if params["callbacks"]:
        raise TypeError(
            "A model with callbacks cannot be saved: a file holds no code. Set "
            "callbacks=None first; the fitted network does not need them."
        )
    seed = params["random_state"]
    if seed is not None and not isinstance(seed, Integral):
        raise TypeError(
            f"A model with random_state={seed!r}{when} cannot be saved; set an int."
        )
