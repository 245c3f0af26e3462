"""Model files: `save` and `load`."""

from numbers import Integral

from sklearn.utils.validation import check_is_fitted

from sk_pwiser._files import PlainForm, read_file, write_file
from sk_pwiser._training import STATE_CLASSES, from_state, to_state
from sk_pwiser._version import __version__


class Saving:
    """The estimator's model files."""

    def save(self, path):
        """Write the fitted estimator to a file that holds no code.

        The file has the parameters, the encoding, the weights, the history and the
        state of training, so that a loaded estimator predicts the same to the bit and
        can continue with `partial_fit` or `warm_start`. It is in the format of
        safetensors, has a checksum, and appears at once or not at all; see
        :ref:`files`.

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
        state = to_state(self._result)
        params = self.get_params(deep=False)
        _check_params("", params)
        _check_params(" at the last fit", vars(state["settings"]))
        params["device"] = str(params["device"])
        content = {
            "class": type(self).__name__,
            "sk_pwiser": __version__,
            "params": params,
            "result": state,
        }
        write_file(path, *PlainForm(STATE_CLASSES).encode(content, "model"))

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
            If the file is damaged, altered, of another version of the format, or not
            a model of this class.
        ImportError
            If safetensors is not installed.

        Examples
        --------
        >>> from sk_pwiser import MultiTaskCTRCVRClassifier
        >>> model = MultiTaskCTRCVRClassifier.load(
        ...     "model.safetensors"
        ... )  # doctest: +SKIP
        """
        values, arrays = read_file(path)
        try:
            content = PlainForm(STATE_CLASSES).decode(values, arrays)
            if content["class"] != cls.__name__:
                raise ValueError(f"it is a model of {content['class']!r}")
            estimator = cls(**content["params"])
            return estimator._set_result(from_state(content["result"]))
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise ValueError(
                f"{str(path)!r} is no valid file of a {cls.__name__}: {error}"
            ) from error


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
