"""Aggregators and scalarizers of TorchJD."""

import inspect
from collections.abc import Mapping, Sequence
from copy import deepcopy
from numbers import Number
from typing import Any, cast

import torch
from torch import Tensor, nn

from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._equality import equal
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.weighting._base import GradientWeighting

# Errors of methods whose parameters or number of tasks do not fit.
ERRORS = AttributeError, IndexError, RuntimeError, TypeError, ValueError


class TorchJD(GradientWeighting):
    """A method of the package TorchJD, which is an optional dependency.

    Aggregators of TorchJD combine the tasks' gradients of the shared parameters, and
    its scalarizers combine the losses. The estimator also accepts an instance of
    TorchJD, as in `weighting=UPGrad()`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    aggregator : str, class or instance, default="UPGrad"
        An `Aggregator`, `Weighting` or `Scalarizer` of TorchJD: an instance, which is
        copied, a class, or the name of a class. Names are looked up in
        `torchjd.aggregation` first and in `torchjd.scalarization` second.
    **params : dict
        Parameters of the class. `n_tasks` and `shape` are set to the number of tasks
        by default.

    Raises
    ------
    ValueError, TypeError
        If TorchJD has no such method, or if the method does not accept the parameters
        or needs more than the gradients or the losses of a batch.

    Notes
    -----
    The result of several aggregators, such as UPGrad, has the scale of the mean of the
    tasks' gradients, while parameters of one task take the gradient of its loss, which
    has the scale of the sum.

    Methods that take the gradients of several batches in one step, such as
    MoDoWeighting and SDMGradWeighting, are refused: a step has one batch.

    References
    ----------
    Quinton and Rey (2024), "Jacobian descent for multi-objective optimization".
    :arxiv:`2406.16232`

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> model = MultiTaskCTRCVRClassifier(
    ...     weighting="torchjd", weighting_params={"aggregator": "GradVac", "beta": 0.1}
    ... )
    """

    def __init__(
        self, n_tasks: int, *, aggregator: Any = "UPGrad", **params: Any
    ) -> None:
        super().__init__(n_tasks)
        self.aggregator: Any = _make(aggregator, n_tasks, params)
        scalarizer = _module("scalarization").Scalarizer
        combines_losses = isinstance(self.aggregator, scalarizer)
        self.needs_task_gradients = n_tasks > 1 and not combines_losses
        # Methods that read the gradients themselves may have a state per entry, whose
        # number must then be the same in all steps.
        self.skips_rows = self._gram_weighting is not None
        self._initial_attributes = deepcopy(self._attributes())
        # Combine a small input, so that unsuitable methods raise before training. The
        # gradients are not square, unlike products of the gradients of two batches.
        method = deepcopy(self.aggregator)
        with torch.random.fork_rng(devices=[]):
            try:
                if combines_losses:
                    method(torch.ones(n_tasks))
                elif self._gram_weighting is self.aggregator:
                    method(torch.eye(n_tasks))
                else:
                    method(torch.eye(n_tasks, n_tasks + 1))
            except ERRORS as error:
                raise ValueError(
                    f"{type(method).__name__} of TorchJD cannot combine {n_tasks} "
                    f"tasks with the gradients of one batch: {error}"
                ) from error

    @property
    def _is_weighting(self) -> bool:
        """Whether the method returns weights instead of a combination."""
        return isinstance(self.aggregator, _module("aggregation").Weighting)

    @property
    def _gram_weighting(self) -> Any:
        """The module that computes weights from inner products, or None."""
        if not self._is_weighting:
            return getattr(self.aggregator, "gramian_weighting", None)
        # Weightings of inner products have a private base class of TorchJD. A weighting
        # that wraps another one takes the same input as that one.
        takes_products = any(
            base.__name__ == "_GramianWeighting"
            for module in self.aggregator.modules()
            for base in type(module).__mro__
        )
        return self.aggregator if takes_products else None

    def forward(self, losses: Tensor) -> Tensor:
        """Return the scalarizer's combination of the losses, of shape `()`."""
        return cast(Tensor, self.aggregator(losses))

    def combine(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the combined gradient of each tensor, of shape `(n_entries,)`."""
        if self._gram_weighting is not None:
            return super().combine(gradients)
        sizes = [g.shape[1] for g in gradients]
        matrix = torch.cat(list(gradients), dim=1)
        if not bool(matrix.isfinite().all()):
            total = torch.full_like(matrix[0], torch.nan)
        elif self._is_weighting:
            weights = self.aggregator(matrix)
            self.record(weights)
            total = weights.to(matrix) @ matrix
        else:
            total = self.aggregator(matrix)
        return list(torch.split(total, sizes))

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights computed by TorchJD, of shape `(n_tasks,)`."""
        # Parameters of TorchJD, such as preference vectors, are float32 tensors.
        return cast(Tensor, self._gram_weighting(gram.float()))

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them; call the method's `step`."""
        if hasattr(self.aggregator, "step"):
            self.aggregator.step()
        return super().end_epoch()

    # TorchJD stores the state of its methods in buffers and in plain attributes. The
    # latter are not part of torch's state_dict, so the methods below add them.

    def _attributes(self) -> dict[str, dict[str, Any]]:
        internal = vars(nn.Module()).keys()
        return {
            name: {
                key: value
                for key, value in vars(module).items()
                if key not in internal and _is_plain(value)
            }
            for name, module in self.aggregator.named_modules()
        }

    def get_extra_state(self) -> dict[str, Any]:
        """Return the attributes of the method that training has changed.

        Returns
        -------
        dict of str to object
            "class", the name of the method's class, and "changed", a dictionary of the
            changed attributes of each module.
        """
        changed = {
            name: {
                key: _to_values(value)
                for key, value in attributes.items()
                if not equal(value, self._initial_attributes[name].get(key))
            }
            for name, attributes in self._attributes().items()
        }
        return {"class": type(self.aggregator).__name__, "changed": changed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Restore the attributes that `get_extra_state` returned.

        Parameters
        ----------
        state : dict of str to object
            "class", the name of the method's class, and "changed", a dictionary of the
            changed attributes of each module.

        Raises
        ------
        RuntimeError
            If the state belongs to another class.
        """
        class_name = type(self.aggregator).__name__
        if state["class"] != class_name:
            raise RuntimeError(
                f"{class_name} of TorchJD cannot continue from the state of "
                f"{state['class']}."
            )
        for name, module in self.aggregator.named_modules():
            changed = state["changed"].get(name, {})
            restored = {
                k: _from_values(v, self._sums.device) for k, v in changed.items()
            }
            vars(module).update(restored)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Some buffers are None before the first step, and torch does not load values
        # into these.
        for name, module in self.aggregator.named_modules(prefix=f"{prefix}aggregator"):
            for key, buffer in module._buffers.items():
                saved = state_dict.get(f"{name}.{key}")
                if buffer is None and saved is not None:
                    setattr(module, key, torch.zeros_like(saved))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _module(name: str) -> Any:
    return import_extra(f"torchjd.{name}", 'weighting="torchjd"')


def _make(choice: Any, n_tasks: int, params: dict[str, Any]) -> Any:
    """Build the class with the given name, or the given class; copy an instance."""
    aggregation = _module("aggregation")
    scalarization = _module("scalarization")
    kinds = aggregation.Aggregator, aggregation.Weighting, scalarization.Scalarizer
    kind: Any = choice
    if isinstance(choice, str):
        names = dict.fromkeys([*scalarization.__all__, *aggregation.__all__])
        check_choice("aggregator", choice, names)
        kind = getattr(aggregation, choice, None) or getattr(scalarization, choice)
    if isinstance(kind, type) and issubclass(kind, kinds):
        takes = inspect.signature(kind).parameters
        context = {"n_tasks": n_tasks, "shape": n_tasks}
        defaults = {key: value for key, value in context.items() if key in takes}
        try:
            method: Any = kind(**{**defaults, **params})
        except ERRORS as error:
            raise ValueError(
                f"weighting_params must fit {kind.__name__} of TorchJD: {error}"
            ) from error
    elif isinstance(kind, kinds):
        if params:
            raise ValueError(
                f"weighting_params must be empty for an instance; got {list(params)}."
            )
        method = deepcopy(kind)
    else:
        raise TypeError(
            "aggregator must be an Aggregator, Weighting or Scalarizer of TorchJD, an "
            f"instance, a class or its name; got {choice!r}."
        )
    if hasattr(method, "update"):
        raise ValueError(
            f"aggregator must not need the losses after the step, which are not "
            f"computed in training; got {type(method).__name__} of TorchJD."
        )
    return method


# Key of a dictionary that stands for a value of a class of torch: files of models hold
# numbers, text and arrays only.
TORCH_CLASS = "torch"


def _to_values(value: Any) -> Any:
    """Return a plain attribute as what a file can hold, and no object twice."""
    if isinstance(value, list | tuple):
        return type(value)(map(_to_values, value))
    if isinstance(value, torch.dtype):
        return {TORCH_CLASS: "dtype", "name": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {TORCH_CLASS: "device", "is_cpu": value.type == "cpu"}
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return {TORCH_CLASS: "tensor", "values": value.detach().clone()}
    return deepcopy(value)


def _from_values(value: Any, device: torch.device) -> Any:
    """Return the attribute of `_to_values`, on the device that trains now.

    What was on the CPU stays there: some methods compute on the CPU only.
    """
    if isinstance(value, list | tuple):
        return type(value)(_from_values(item, device) for item in value)
    if not isinstance(value, dict):
        return deepcopy(value)
    if value[TORCH_CLASS] == "dtype":
        dtype = getattr(torch, value["name"], None)
        if not isinstance(dtype, torch.dtype):  # of a file that was altered
            raise ValueError(f"{value['name']!r} is no dtype of torch.")
        return dtype
    if value[TORCH_CLASS] == "device":
        return torch.device("cpu") if value["is_cpu"] else device
    return value["values"].detach().clone().to(device)


def _is_plain(value: Any) -> bool:
    """Return whether a value is plain data, in contrast to a configured object."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    kinds = (Tensor, Number, str, torch.dtype, torch.device, type(None))
    return isinstance(value, kinds)
