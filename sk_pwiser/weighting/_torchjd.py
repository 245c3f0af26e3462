"""The aggregators and scalarizers of TorchJD."""

import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser.weighting._base import TaskWeighting
from sk_pwiser.weighting._gradient import GradientWeighting


class TorchJD(GradientWeighting):
    """A method of the package TorchJD, which is installed apart.

    Its aggregators combine the tasks' gradients of the shared parameters, its
    scalarizers combine the losses. An instance may also be handed to the estimator
    itself: `weighting=UPGrad()`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    aggregator : str, class or instance, default="UPGrad"
        What combines: an `Aggregator`, a `Weighting` of inner products, or a
        `Scalarizer`; or the name of one in `torchjd.aggregation` or, where there is
        none of that name, in `torchjd.scalarization`. An instance is copied.
    **params : dict
        Parameters of a class or of a named one. `n_tasks` and `shape` need not be
        given.

    Raises
    ------
    ImportError
        If TorchJD is not installed.
    ValueError, TypeError
        If TorchJD has no such method, or it does not take the parameters, or needs
        more than the gradients or losses of a batch.

    Notes
    -----
    Several of its aggregators, such as UPGrad, have the length of a mean of gradients;
    entries that are not shared take the gradient of the sum of the losses.

    Methods that compare several batches a step, such as MoDo, get one.

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
        self.goes_backward_per_task = not isinstance(self.aggregator, scalarizer)
        # Others may keep figures for every single entry.
        self.skips_rows = self._by_gram is not None
        self._at_first = deepcopy(self._attributes())
        self._try_out()

    def _try_out(self) -> None:
        """Combine something small, so that what does not fit is refused early."""
        method, n = deepcopy(self.aggregator), self.n_tasks
        with torch.random.fork_rng(devices=[]):
            try:
                method(torch.eye(n) if self.goes_backward_per_task else torch.ones(n))
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                raise ValueError(
                    f"{type(method).__name__} of TorchJD cannot combine {n} tasks: "
                    f"{error}"
                ) from error

    @property
    def _is_weighting(self) -> bool:
        """Whether the method returns weights in place of a combination."""
        return isinstance(self.aggregator, _module("aggregation").Weighting)

    @property
    def _by_gram(self) -> Any:
        """What computes weights from inner products, if any."""
        if not self._is_weighting:
            return getattr(self.aggregator, "gramian_weighting", None)
        # TorchJD tells by a private base class what a weighting reads; one that wraps
        # another reads what that does.
        reads_products = any(
            base.__name__ == "_GramianWeighting"
            for module in self.aggregator.modules()
            for base in type(module).__mro__
        )
        return self.aggregator if reads_products else None

    def forward(self, losses: Tensor) -> Tensor:
        """Return the scalarizer's combination of the losses, of shape `()`."""
        total: Tensor = self.aggregator(losses)
        return total

    def backward(
        self,
        losses: Tensor,
        penalty: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> None:
        """Combine losses or gradients, and leave gradients in the parameters."""
        if self.goes_backward_per_task:
            super().backward(losses, penalty, parameters)
        else:
            TaskWeighting.backward(self, losses, penalty, parameters)

    def combine(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the aggregator's gradient of each tensor, of shape `(n_entries,)`."""
        if self._by_gram is not None:
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
        """Return the weights that TorchJD gives the gradients, `(n_tasks,)`."""
        # Preferences and the like are given in float32.
        weights: Tensor = self._by_gram(gram.float())
        return weights

    def end_epoch(self) -> list[float]:
        """Return the mean weights of the epoch; tell the scalarizer that it ends."""
        if hasattr(self.aggregator, "step"):
            self.aggregator.step()
        return super().end_epoch()

    # TorchJD keeps the state of its methods in buffers and in plain attributes, which
    # torch's state_dict does not see.

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
        """Return what steps have changed in the aggregator.

        Returns
        -------
        dict of str to object
            The aggregator's class by name, and attributes by the names of the modules
            that have them.
        """
        changed = {
            name: {
                key: deepcopy(value)
                for key, value in attributes.items()
                if not _same(value, self._at_first[name].get(key))
            }
            for name, attributes in self._attributes().items()
        }
        return {"class": type(self.aggregator).__name__, "changed": changed}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_extra_state` returned.

        Parameters
        ----------
        state : dict of str to object
            The aggregator's class by name, and attributes by the names of the modules
            that have them.
        """
        own = type(self.aggregator).__name__
        if state["class"] != own:
            raise RuntimeError(f"{own} cannot go on from {state['class']} of TorchJD.")
        for name, module in self.aggregator.named_modules():
            vars(module).update(deepcopy(state["changed"].get(name, {})))

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Some of its buffers are None before the first step, which torch would not
        # load into.
        for name, module in self.aggregator.named_modules(prefix=f"{prefix}aggregator"):
            for key, buffer in module._buffers.items():
                found = state_dict.get(f"{name}.{key}")
                if buffer is None and found is not None:
                    setattr(module, key, torch.zeros_like(found))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def as_weighting(
    choice: Any, params: dict[str, Any] | None
) -> tuple[Any, dict[str, Any] | None]:
    """Take an object in place of a name or class for one of TorchJD.

    Parameters
    ----------
    choice : str, class or module
        The estimator's `weighting`.
    params : dict or None
        The estimator's `weighting_params`.

    Returns
    -------
    tuple of str or class, and dict or None
        A name or class, and its parameters.
    """
    kind = choice if isinstance(choice, type) else type(choice)
    if any(base.__module__.partition(".")[0] == "torchjd" for base in kind.__mro__):
        return TorchJD, {**(params or {}), "aggregator": choice}
    if isinstance(choice, nn.Module):
        raise TypeError(
            "weighting must be a name, a class, or an aggregator or scalarizer of "
            f"TorchJD; got an instance of {kind.__name__}. Pass the class, and its "
            "parameters as weighting_params."
        )
    return choice, params


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"torchjd.{name}")
    except ImportError as error:
        raise ImportError(
            'weighting="torchjd" needs TorchJD: pip install "sk_pwiser[torchjd]"'
        ) from error


def _kinds() -> tuple[type, ...]:
    aggregation, scalarization = _module("aggregation"), _module("scalarization")
    return aggregation.Aggregator, aggregation.Weighting, scalarization.Scalarizer


def _make(choice: Any, n_tasks: int, params: dict[str, Any]) -> Any:
    """Build what a name or class stands for, or copy an instance."""
    kinds = _kinds()
    kind: Any = _find(choice) if isinstance(choice, str) else choice
    if isinstance(kind, type) and issubclass(kind, kinds):
        takes = inspect.signature(kind).parameters
        context = {"n_tasks": n_tasks, "shape": n_tasks}
        given = {k: v for k, v in context.items() if k in takes and k not in params}
        try:
            inspect.signature(kind).bind(**given, **params)
        except TypeError as error:
            raise ValueError(
                f"weighting_params do not fit {kind.__name__} of TorchJD: {error}."
            ) from error
        made: Any = kind(**given, **params)
    elif isinstance(kind, kinds):
        if params:
            raise ValueError(
                f"weighting_params holds {list(params)}, but aggregator is an instance "
                "of TorchJD, which has its parameters already."
            )
        made = deepcopy(kind)
    else:
        raise TypeError(
            "aggregator must be an Aggregator, Weighting or Scalarizer of TorchJD, an "
            f"instance, a class or its name; got {choice!r}."
        )
    if hasattr(made, "update"):
        raise ValueError(
            f"{type(made).__name__} of TorchJD needs the losses after the step as "
            "well, which are not computed here."
        )
    return made


def _find(name: str) -> Any:
    modules = _module("aggregation"), _module("scalarization")
    for module in modules:
        if name in module.__all__:
            return getattr(module, name)
    known = sorted({n for module in modules for n in module.__all__})
    raise ValueError(f"TorchJD has no {name!r}; aggregator may be one of {known}.")


def _is_plain(value: Any) -> bool:
    """Whether a value is data, and no object that the user configured."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    kinds = (Tensor, Number, str, torch.dtype, torch.device, type(None))
    return isinstance(value, kinds)


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return one.shape == other.shape and bool((one == other).all())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
