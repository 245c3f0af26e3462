"""Model files: `save` and `load`."""

from numbers import Integral

from sklearn import config_context
from sklearn.utils.validation import check_is_fitted

from sk_pwiser._files import PlainForm, read_file, write_file
from sk_pwiser._training import STATE_CLASSES, from_state, to_state
from sk_pwiser._version import __version__

# Methods that scikit-learn's metadata routing passes weights and groups to.
ROUTED = ("fit", "partial_fit", "score")


class Saving:
    """The estimator's model files."""

    def save(self, path):
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
            If something cannot be saved: a class of your own as `network`, `loss`,
            `weighting` or `optimizer`, callbacks, a RandomState instance, or category
            values that are not numbers, text or tuples. No file is written.
        ImportError
            If safetensors is not installed.

        Examples
        --------
        >>> model.save("model.safetensors")  # doctest: +SKIP
        """
        check_is_fitted(self)
        write_file(path, *self._to_plain())

    @classmethod
    def load(cls, path):
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
        ImportError
            If safetensors is not installed.

        Examples
        --------
        >>> from sk_pwiser import MultiTaskCTRCVRClassifier
        >>> model = MultiTaskCTRCVRClassifier.load(
        ...     "model.safetensors"
        ... )  # doctest: +SKIP
        """
        return cls._from_plain(*read_file(path), repr(str(path)))

    def _to_plain(self):
        """Return the estimator, fitted or not, as values of JSON and arrays."""
        params = self.get_params(deep=False)
        _check_params("", params)
        result = getattr(self, "_result", None)
        if result is not None:
            result = to_state(result)
            _check_params(" at the last fit", vars(result["settings"]))
        params["device"] = str(params["device"])
        del params["checkpoint_dir"]
        content = {
            "class": type(self).__name__,
            "sk_pwiser": __version__,
            "params": params,
            "requests": _read_requests(self),
            "result": result,
        }
        return PlainForm(STATE_CLASSES).encode(content, "model")

    @classmethod
    def _from_plain(cls, values, arrays, name):
        """Build an estimator from its plain form; `name` is the file's, for messages.

        Raises
        ------
        ValueError
            If it is no plain form of an estimator of this class.
        """
        try:
            content = PlainForm(STATE_CLASSES).decode(values, arrays)
            if content.get("kind") == "checkpoint":
                raise ValueError("it is a checkpoint, from which fit resumes training")
            if content["class"] != cls.__name__:
                raise ValueError(f"it is a model of {content['class']!r}")
            defaults = cls().get_params(deep=False)
            params = content["params"]
            _check_names(params, defaults)
            # A file must not choose where a later fit writes.
            estimator = cls(**{**params, "checkpoint_dir": None})
            _set_requests(estimator, content.get("requests", {}))
            if content["result"] is not None:
                estimator._set_result(from_state(content["result"], defaults))
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(
                f"{name} is no valid file of a {cls.__name__}: "
                f"{error}{_written_by(values)}"
            ) from error
        return estimator


def _read_requests(estimator):
    """Return what was requested by `set_fit_request` and the like."""
    routing = estimator.get_metadata_routing()
    return {method: dict(getattr(routing, method).requests) for method in ROUTED}


def _set_requests(estimator, requests):
    with config_context(enable_metadata_routing=True):
        for method in ROUTED:
            made = {k: v for k, v in requests.get(method, {}).items() if v is not None}
            if made:
                getattr(estimator, f"set_{method}_request")(**made)


def _check_names(params, defaults):
    """Raise for parameters that this version of the class does not have."""
    unknown = [name for name in params if name not in defaults]
    if unknown:
        raise ValueError(f"its parameters {unknown} are unknown")


def _written_by(values):
    """Say which version wrote a file, if it was another one."""
    version = values.get("sk_pwiser") if isinstance(values, dict) else None
    if version in (None, __version__):
        return ""
    return (
        f". It was written by version {version} of sk_pwiser; this is version "
        f"{__version__}."
    )


def _check_params(when, params):
    """Raise for parameters that only code could restore."""
    for name in ("network", "loss", "weighting", "optimizer"):
        if not isinstance(params[name], str):
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
