"""Fitted estimators as plain values and arrays, which files and skops hold."""

import copyreg
import os
from collections.abc import Mapping
from contextvars import ContextVar
from numbers import Integral
from typing import Any, Self, TypeVar

import numpy as np
from sklearn import config_context
from sklearn.utils.validation import check_is_fitted

from sk_pwiser import _model_files
from sk_pwiser._columns._id_vectors import IN_FILE
from sk_pwiser._model_files import PlainForm
from sk_pwiser._settings import without_vectors
from sk_pwiser._training._result_files import STATE_CLASSES, from_state, to_state
from sk_pwiser._training._schema import encode_plain
from sk_pwiser._utils._components import RemovedNameError
from sk_pwiser._version import __version__

# Methods that scikit-learn's metadata routing passes weights and groups to.
ROUTED = ("fit", "partial_fit", "score")

Fitted = TypeVar("Fitted", bound="SavingMixin")

# Whether pickle or copy reads the state: they call `__reduce__`, whereas skops calls
# `__getstate__` directly. No argument can tell it, as a subclass may define a
# `__getstate__` of its own around this one.
_keeps_all = ContextVar("keeps_all", default=False)


class SavingMixin:
    """Mixin class of the estimator: files, pickles, and the arrays that skops holds."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a file that holds no code.

        The file has the parameters, the encoding, the weights, the history and the
        state of training, so that a loaded estimator predicts the same to the bit and
        can continue with `partial_fit` or `warm_start`. `checkpoint_dir` is left out.
        It is in the format of safetensors, has a checksum, and appears at once or not
        at all; see :ref:`files`.

        Parameters
        ----------
        path : str or path-like
            The file. One that exists is replaced.

        Raises
        ------
        ValueError, TypeError
            If something cannot be saved: a class of your own, or an object of TorchJD,
            as `network`, `loss`, `weighting` or `optimizer`, callbacks, a RandomState
            instance, or category values other than text, numbers, bytes, dates,
            timestamps, intervals, and tuples of these. No file is written.

        Examples
        --------
        >>> model.save("model.safetensors")  # doctest: +SKIP
        """
        check_is_fitted(self)
        _model_files.write_file(path, *to_plain(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read an estimator from a file that `save` wrote.

        Nothing in the file is executed, so that a file may come from anywhere; compare
        `pickle`, whose files may run any code.

        Parameters
        ----------
        path : str or path-like
            The file.

        Returns
        -------
        MultiTaskCTRCVRClassifier
            The fitted estimator, on its device if this machine has it, otherwise, with
            a warning, on the CPU.

        Raises
        ------
        ValueError
            If the file is damaged, altered, or not a model of this class, or if a
            later version wrote it in a newer format or with parameters that this one
            does not have. Parameters that did not exist when the file was written have
            their default values.

        Examples
        --------
        >>> from sk_pwiser import MultiTaskCTRCVRClassifier
        >>> model = MultiTaskCTRCVRClassifier.load(
        ...     "model.safetensors"
        ... )  # doctest: +SKIP
        """
        return from_plain(cls, *_model_files.read_file(path), repr(str(path)))

    # pickle, joblib and copy keep all attributes, such as callbacks and classes of the
    # user. skops gets arrays of numbers alone, with the content of the file of `save`,
    # because its own form of a net contains a pickle.
    def __reduce__(self) -> tuple[Any, ...]:
        token = _keeps_all.set(True)
        try:
            state = self.__getstate__()
        finally:
            _keeps_all.reset(token)
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]

    def __getstate__(self) -> dict[str, Any]:
        if _keeps_all.get():
            attributes: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
            return attributes
        return {
            "sk_pwiser": _model_files.FORMAT_VERSION,
            "arrays": _model_files.join(*to_plain(self)),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "sk_pwiser" not in state:
            super().__setstate__(state)  # type: ignore[misc] # of scikit-learn
            return
        name = "The state"
        _model_files.check_version(state["sk_pwiser"], name)
        values, arrays = _model_files.split(state.get("arrays"))
        # The state may share memory with the estimator that it was read from.
        arrays = {key: array.copy() for key, array in arrays.items()}
        # Protocols of copies fill an object that exists already.
        self.__dict__.update(vars(from_plain(type(self), values, arrays, name)))


def requests_of(estimator: Any) -> dict[str, dict[str, Any]]:
    """Return the metadata that an estimator requests for its methods."""
    routing = estimator._get_metadata_request()
    return {method: dict(getattr(routing, method).requests) for method in ROUTED}


def set_requests(
    estimator: Any, requests_by_method: Mapping[str, Mapping[str, Any]]
) -> None:
    """Set the requests of a file on an estimator."""
    with config_context(enable_metadata_routing=True):
        for method, requests in requests_by_method.items():
            decided = {
                name: request
                for name, request in requests.items()
                if request is not None
            }
            if method in ROUTED and decided:
                getattr(estimator, f"set_{method}_request")(**decided)


def to_plain(estimator: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the estimator, fitted or not, as values of JSON and arrays."""
    params = without_tables(estimator.get_params(deep=False))
    _check_params("", params)
    result = getattr(estimator, "_result", None)
    state = None if result is None else to_state(result)
    if state is not None:
        _check_params(" at the last fit", vars(state["settings"]))
    params["device"] = str(params["device"])
    del params["checkpoint_dir"]
    content = {
        "class": type(estimator).__name__,
        "sk_pwiser": __version__,
        "params": params,
        "requests": requests_of(estimator),
        "result": state,
    }
    schema = None if state is None else state["schema"]
    return encode_plain(PlainForm(STATE_CLASSES), content, "model", schema)


def from_plain(
    cls: type[Fitted], values: Any, arrays: Mapping[str, np.ndarray], name: str
) -> Fitted:
    """Build an estimator from its plain form; `name` is the file's, for messages."""
    header = values if isinstance(values, dict) else {}
    try:
        class_name = header.get("class", cls.__name__)
        if class_name != cls.__name__:
            raise ValueError(
                f"it is a model of {class_name!r}; read it with {class_name}.load"
            )
        content = PlainForm(STATE_CLASSES).decode(values, arrays)
        if content.get("kind") == "checkpoint":
            raise ValueError("it is a checkpoint, from which fit resumes training")
        new_estimator: Any = cls()
        defaults = new_estimator.get_params(deep=False)
        params = content["params"]
        unknown = [name for name in params if name not in defaults]
        if unknown:
            raise ValueError(f"its parameters {unknown} are unknown")
        # A file must not choose where a later fit writes.
        estimator: Any = cls(**{**params, "checkpoint_dir": None})
        set_requests(estimator, content.get("requests", {}))
        if content["result"] is not None:
            estimator._set_result(from_state(content["result"], defaults))
    except RemovedNameError as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from None
    except _model_files.READING_ERRORS as error:
        message = f"{name} is not a valid file of a {cls.__name__}: {error}"
        version = header.get("sk_pwiser") or __version__
        if version != __version__:
            message += (
                f". It was written by version {version} of sk_pwiser; this is version "
                f"{__version__}: load it with that version, or fit the model again."
            )
        raise ValueError(message) from error
    fitted: Fitted = estimator
    return fitted


def without_tables(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters with a text in the place of each table of vectors."""
    params, tables = without_vectors(params)
    if tables is None:
        return params
    texts = dict.fromkeys(tables, IN_FILE)
    encoding_params = {**params["encoding_params"], "vectors": texts}
    return {**params, "encoding_params": encoding_params}


def _check_params(when: str, params: Mapping[str, Any]) -> None:
    """Raise for parameters that only code could restore."""
    for name, value in params.items():
        is_state = name == "random_state" and not isinstance(value, Integral | None)
        has_callbacks = name == "callbacks" and value
        entries = value.values() if isinstance(value, dict) else ()
        has_code = any(map(callable, [value, *entries]))
        if has_code or is_state or has_callbacks:
            raise TypeError(
                f"A model with {name}={value!r}{when} cannot be saved: a file holds "
                "no code. Set another value, or use pickle for files that you trust."
            )
