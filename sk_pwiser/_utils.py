"""Shared: parameter checks, registry, task trees, random numbers, threads."""

import importlib
import inspect
import math
import operator
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, metadata
from itertools import chain
from numbers import Integral, Rational, Real
from threading import Lock, RLock
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

# Warnings, and checks of parameters.

# Packages whose frames may come between the user's call and a warning.
_CALLING_PACKAGES = ("sk_pwiser", "sklearn", "skorch", "joblib")


def warn_user(message: str, category: type[UserWarning] = UserWarning) -> None:
    """Issue a warning that refers to the line of the user's call."""
    frame, level = sys._getframe(0), 1
    while frame.f_back is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] not in _CALLING_PACKAGES:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def aligned(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Return rows of cells as lines; `sides` has "<" or ">" for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = [f"{{:{side}{width}}}" for side, width in zip(sides, widths, strict=True)]
    return ["  ".join(cells).format(*row).rstrip() for row in rows]


def check_number(
    name: str,
    value: object,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
) -> float:
    """Return a parameter as a float; a bool, and a fraction, raises TypeError."""
    is_fraction = isinstance(value, Rational) and not isinstance(value, Integral)
    if not isinstance(value, Real) or isinstance(value, bool) or is_fraction:
        raise TypeError(f"{name} must be a number; got {value!r}.")
    try:
        number = float(value)
    except OverflowError:  # an int
        number = math.inf
    limits = {">": above, ">=": at_least, "<": below, "<=": at_most}
    holds = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
    given = {sign: limit for sign, limit in limits.items() if limit is not None}
    if not math.isfinite(number) or not all(
        holds[sign](number, limit) for sign, limit in given.items()
    ):
        rules = ["finite", *(f"{sign} {limit:g}" for sign, limit in given.items())]
        raise ValueError(f"{name} must be {' and '.join(rules)}; got {value!r}.")
    return number


def is_iterable(value: object) -> TypeGuard[Iterable[Any]]:
    """Return whether a value has entries, unlike text and arrays without axes."""
    has_axes = getattr(value, "ndim", 1) > 0
    return isinstance(value, Iterable) and not isinstance(value, str) and has_axes


def check_integer(name: str, value: object, *, at_least: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be an integer >= {at_least}; got {value!r}.")
    if value < at_least:
        raise ValueError(f"{name} must be an integer >= {at_least}; got {value!r}.")
    return int(value)


def check_boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False; got {value!r}.")
    return value


def nearest(name: object, known: Iterable[object]) -> str:
    """Return the most similar of some names, or ""."""
    names = [each for each in known if isinstance(each, str)]
    found = get_close_matches(name, names, 1) if isinstance(name, str) else []
    return found[0] if found else ""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """Return a question for the end of a message, or "" if no name is similar."""
    meant = nearest(name, known)
    return f" Did you mean {meant!r}?" if meant else ""


class RemovedNameError(ValueError):
    """A choice that earlier versions had; the message names what to use instead."""


def check_choice(name: str, value: object, choices: Collection[str | None]) -> str:
    if isinstance(value, str | None) and value in choices:
        return value  # type: ignore[return-value]
    kind = ValueError if isinstance(value, str) else TypeError
    hint = did_you_mean(value, choices)
    raise kind(f"{name} must be one of {list(choices)}; got {value!r}.{hint}")


def equal(a: Any, b: Any) -> bool:
    """Compare values, also dictionaries and sequences that hold arrays or tensors."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    try:
        shape = getattr(a, "shape", ())  # scalars of numpy have one, too
        if shape != getattr(b, "shape", ()):
            return False
        return bool((a == b).all() if shape else a == b)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return False


def accept_any_case_of_y(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function be called with either keyword, `y` as in scikit-learn or `Y`."""
    parameters = inspect.signature(function).parameters
    names = [name for name in parameters if name[:1] in ("Y", "y")]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in names:
            other = name[0].swapcase() + name[1:]
            if other in kwargs and name not in kwargs:
                kwargs[name] = kwargs.pop(other)
        return function(*args, **kwargs)

    return call


# Components by name or class.


# Components by name, their base class, the parameter that chooses one, and its value.
Choice = tuple[Mapping[str, type], type, str, Any]
Params = Mapping[str, Any] | None


def build(choice: Choice, params: Params, *args: Any, **context: Any) -> Any:
    """Build a component from `args` that all take, after `check_names`."""
    kind = check_names(choice, params, len(args), **context)
    component = kind(*args, **context, **(params or {}))
    # The constructor of the base class stores its first argument.
    argument = next(iter(inspect.signature(choice[1]).parameters))
    if not hasattr(component, argument):
        raise TypeError(
            f"{kind.__name__}.__init__ must call super().__init__({argument}) before "
            "it sets attributes."
        )
    return component


def check_names(
    choice: Choice,
    params: Params,
    n_args: int,
    *,
    shared: Collection[str] = (),
    **context: Any,
) -> type[Any]:
    """Return the class of a component, after a check of the names of its parameters.

    All components take `n_args` positional arguments and the `shared` parameters. The
    methods of a user's class must take those of the base class by position.
    """
    kind, (_, base, parameter, name) = resolve(choice), choice
    params = params or {}
    signature = inspect.signature(kind).parameters.values()
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    known = [p.name for p in signature if p.kind in kinds][n_args:]
    known = [key for key in known if key not in context]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in signature)
    for key in params:
        if key in context:
            raise ValueError(
                f"{parameter}_params holds {key!r}, which is a parameter of the "
                f"estimator: set {key}={params[key]!r} there."
            )
        if not (takes_any or key in known):
            known += shared
            raise ValueError(
                f"{parameter}_params holds {key!r}, which {name!r} does not take; "
                f"it takes {known}.{did_you_mean(key, known)}"
            )
    try:
        inspect.signature(kind).bind(*[None] * n_args, **context, **params)
    except TypeError as error:
        raise ValueError(
            f"{parameter}_params lacks an argument that {name!r} requires: {error}."
        ) from error
    for method in ("forward", "observe"):
        if method not in vars(base):
            continue
        arguments = list(inspect.signature(getattr(base, method)).parameters)
        try:
            inspect.signature(getattr(kind, method)).bind(*arguments)
        except TypeError as error:
            raise TypeError(
                f"{kind.__name__}.{method} must take the arguments "
                f"{', '.join(arguments)}: {error}."
            ) from error
    return kind


def resolve(choice: Choice) -> type[Any]:
    registry, base, parameter, value = choice
    if isinstance(value, str) and value in registry:
        return registry[value]
    if isinstance(value, type) and issubclass(value, base):
        return value
    kind = ValueError if isinstance(value, str) else TypeError
    raise kind(
        f"{parameter} must be one of {sorted(registry)} or a subclass of "
        f"{base.__name__}; got {value!r}.{did_you_mean(value, registry)}"
    )


# Optional packages and links to the documentation.

# What pip installs for a package, and the extra of this package that does so, too.
REQUIREMENTS = {
    "matplotlib": ("matplotlib", "plot"),
    "onnx": ("onnx onnxruntime onnxscript", "onnx"),
    "onnxruntime": ("onnx onnxruntime onnxscript", "onnx"),
    "onnxscript": ("onnx onnxruntime onnxscript", "onnx"),
    "pandas": ("pandas pyarrow", "pandas"),
    "pyarrow": ("pyarrow", "pandas"),
    "ray": ('"ray[train]" pandas pyarrow', "ray"),
    "torchjd": ('"torchjd[quadprog-projector]"', "torchjd"),
}


def import_extra(module: str, user: str) -> Any:
    """Return an optional module, or raise an ImportError that names the extra."""
    name = module.partition(".")[0]
    try:
        importlib.import_module(name)  # even if the module itself is loaded already
        return importlib.import_module(module)
    except ImportError as error:
        packages, extra = REQUIREMENTS[name]
        raise ImportError(
            f"{user} needs {name}: pip install {packages} (extra [{extra}])"
        ) from error


@cache
def documentation_address() -> str:
    try:
        lines: list[str] = metadata("sk_pwiser").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    urls = dict(line.split(", ", 1) for line in lines)
    return urls.get("Documentation", "").rstrip("/")


class DocLink:
    """Mixin class of estimators with a page in the API reference."""

    _doc_link_module = "sk_pwiser"

    @property
    def _doc_link_template(self) -> str:
        address = documentation_address()
        page = "/generated/{estimator_module}.{estimator_name}.html"
        return address and address + page


# Which task presupposes which: the chain of a funnel, sibling tasks, or a tree.

CHAIN = "chain"


def chain_parents(n_tasks: int) -> tuple[int, ...]:
    """Return the parents in a funnel: the task before each task, or -1."""
    return tuple(range(-1, n_tasks - 1))


def read_task_parents(task_parents: Any, task_names: Sequence[str]) -> tuple[int, ...]:
    """Return the index of the task that each task presupposes, -1 for none.

    `task_parents` is "chain", None, a mapping of names, or indices, of tasks, or what
    this function returned.
    """
    if isinstance(task_parents, str) and task_parents == CHAIN:
        return tuple(range(-1, len(task_names) - 1))
    if isinstance(task_parents, tuple):
        return task_parents
    if not isinstance(task_parents, Mapping | None):
        raise TypeError(
            f"task_parents must be 'chain', None or a dict; got {task_parents!r}."
        )
    parents = [-1] * len(task_names)
    for task, parent in (task_parents or {}).items():
        if parent is None or parent == -1:
            continue
        k, of = (place_of("task_parents", each, task_names) for each in (task, parent))
        if of >= k:
            raise ValueError(
                f"task_parents has {task_names[of]!r} as the parent of "
                f"{task_names[k]!r}; a parent must stand before its task in "
                f"{list(task_names)}, the order of the columns of Y."
            )
        parents[k] = of
    return tuple(parents)


def parents_by_name(
    parents: Sequence[int], names: Sequence[str]
) -> dict[str, str | None]:
    """Return the names of the parents, or None, as `task_parents_`."""
    pairs = zip(names, parents, strict=True)
    return {name: None if parent < 0 else names[parent] for name, parent in pairs}


def place_of(parameter: str, name: Any, task_names: Sequence[str]) -> int:
    """Return the index of a task that a parameter names."""
    if name in task_names:
        return task_names.index(name)
    is_index = isinstance(name, Integral) and not isinstance(name, bool)
    if is_index and 0 <= int(name) < len(task_names):
        return int(name)
    raise ValueError(
        f"{parameter} has {name!r}, which is not a task; the tasks are "
        f"{list(task_names)}.{did_you_mean(name, task_names)}"
    )


def path_to(task: int, parents: Sequence[int]) -> tuple[int, ...]:
    """Return the tasks that one presupposes, from the first on, and the task itself."""
    path = []
    while task >= 0:
        path.append(task)
        task = parents[task]
    return tuple(reversed(path))


def task_paths(parents: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the path to each task that no other one presupposes."""
    return [path_to(k, parents) for k in range(len(parents)) if k not in parents]


def labels_of_parents(y: Tensor, parents: Sequence[int]) -> Tensor:
    """Return the labels of the task that each task presupposes, 1 without one."""
    columns, ones = y.unbind(dim=1), torch.ones_like(y[:, 0])
    return torch.stack([columns[p] if p >= 0 else ones for p in parents], dim=1)


def conditional_labels(y: Tensor, parents: Sequence[int]) -> Tensor:
    """Divide the labels of each task by those of its parent, at most to 1.

    Probabilities become P(Y_k = 1 | parent = 1); labels do not change.
    """
    before = labels_of_parents(y, parents)
    return (y / torch.where(before > 0, before, 1.0)).clamp(max=1)


# The precision of tensors.


def at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


@cache
def widest_float(device: torch.device) -> torch.dtype:
    """Return float64 if the device has it, float32 otherwise, as on Apple's GPUs."""
    try:
        torch.ones(1, dtype=torch.float64, device=device).sum()
    except (TypeError, RuntimeError):
        return torch.float32
    return torch.float64


def widest(tensor: Tensor) -> Tensor:
    return tensor.to(widest_float(tensor.device))


# Random numbers. The global generators of torch belong to the whole process: two fits
# in two threads would draw from the same sequence. A fit therefore activates its own
# generators, and the layers of this package draw random numbers from these.


@dataclass(eq=False)
class Generators:
    """One generator per device, which is created on first use, all of one seed."""

    seed: int
    _by_device: dict[torch.device, torch.Generator] = field(default_factory=dict)

    def on(self, device: torch.device) -> torch.Generator:
        if device not in self._by_device:
            self._by_device[device] = torch.Generator(device).manual_seed(self.seed)
        return self._by_device[device]

    def __getstate__(self) -> dict[str, Any]:
        # Arrays: a pickle of a tensor contains its address, so that no two are equal.
        states = {str(d): g.get_state().numpy() for d, g in self._by_device.items()}
        return {"seed": self.seed, "states": states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the generators of the devices that are available."""
        self.__init__(state["seed"])  # type: ignore[misc]
        for name, values in state["states"].items():
            try:
                generator = self.on(torch.device(name))
            except RuntimeError:  # this machine lacks the device
                continue
            # A copy: joblib may have mapped the array to a file that is only read.
            generator.set_state(torch.as_tensor(deepcopy(values)))


_active: ContextVar[Generators | None] = ContextVar("generators", default=None)


@contextmanager
def active(generators: Generators) -> Iterator[None]:
    """Draw random numbers from `generators` inside a `with` block."""
    token = _active.set(generators)
    try:
        yield
    finally:
        _active.reset(token)


def generator_on(device: torch.device) -> torch.Generator | None:
    """Return the active generator; None, the global one, in compiled code."""
    if torch.compiler.is_compiling():
        return None
    generators = _active.get()
    return None if generators is None else generators.on(device)


_GLOBAL = RLock()


@contextmanager
def seeded_globally(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators for code that takes none, and restore them."""
    with _GLOBAL:
        before = global_states(device)
        # Not torch.manual_seed, which seeds the generators of all devices.
        seeded = [torch.Generator().manual_seed(seed).get_state()]
        if len(before) > 1:
            seeded.append(torch.Generator(device).manual_seed(seed).get_state())
        set_global_states(seeded, device)
        try:
            yield
        finally:
            set_global_states(before, device)


def global_states(device: torch.device) -> list[Tensor]:
    states = [torch.random.get_rng_state()]
    module: Any = getattr(torch, device.type, None)
    if hasattr(module, "get_rng_state"):  # the CPU is no such device
        states.append(module.get_rng_state(*_place(device)))
    return states


def set_global_states(states: Sequence[Tensor], device: torch.device) -> None:
    torch.random.set_rng_state(states[0])
    if len(states) > 1:
        getattr(torch, device.type).set_rng_state(states[1], *_place(device))


def _place(device: torch.device) -> list[torch.device]:
    """Return the argument for the device that all devices but Apple's take."""
    return [] if device.type == "mps" else [device]


def draws_globally(*components: object) -> bool:
    """Return whether components of other packages may draw from global generators."""
    parts = chain.from_iterable(
        component.modules() if isinstance(component, nn.Module) else [component]
        for component in components
    )
    known = ("sk_pwiser.", "torch.nn.", "torch.optim.")
    return any(not type(part).__module__.startswith(known) for part in parts)


# Threads.

# Products of a row and a weight, per step and thread. A second thread shortens a fit by
# a fifth with 5e7 products per step, and by a twentieth with 2e7.
PRODUCTS_PER_THREAD = 25_000_000

_requested: ContextVar[int | None] = ContextVar("requested threads", default=None)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Train and predict with a given number of threads of torch.

    By default, a fit on the CPU uses one thread per 25 million products of a row of the
    batch and a weight of the network's layers, but not more threads than torch is set
    to use. Predictions use all threads that torch is set to use. The number applies to
    the Python thread that enters the `with` block.

    Parameters
    ----------
    n : int
        Number of threads, >= 1.

    Yields
    ------
    None

    Raises
    ------
    TypeError or ValueError
        If `n` is not an integer >= 1.

    Examples
    --------
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier, num_threads
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> data = make_ctr_cvr(1_000, ctr=0.3, random_state=0)
    >>> with num_threads(1):
    ...     model = MultiTaskCTRCVRClassifier(max_epochs=1).fit(data.data, data.target)
    """
    check_integer("n", n, at_least=1)
    token = _requested.set(n)
    try:
        yield
    finally:
        _requested.reset(token)


@contextmanager
def limited_threads(n_products: int | None = None) -> Iterator[None]:
    """Set the threads of torch for a time, by `num_threads` or products per step."""
    with _SETTING:  # a thread that has not used torch yet begins with the usual number
        before = torch.get_num_threads()
    n_threads = _requested.get()
    if n_threads is None and n_products is not None:
        n_threads = min(max(n_products // PRODUCTS_PER_THREAD, 1), before)
    if n_threads is None or n_threads == before:
        yield
        return
    _set_in_this_thread(n_threads)
    try:
        yield
    finally:
        _set_in_this_thread(before)


_SETTING = Lock()


def _set_in_this_thread(n_threads: int) -> None:
    """Set the number of threads of torch for operations of this thread only.

    `torch.set_num_threads` also sets the number that every later thread begins with,
    and keeps: a web server would predict by one thread after a fit in the background.
    Another thread, whose own number does not matter, sets it back.
    """
    with _SETTING, ThreadPoolExecutor(1) as later:
        # At its first call in a thread, torch sets the usual number.
        torch.get_num_threads()
        usual = later.submit(torch.get_num_threads).result()
        try:
            torch.set_num_threads(n_threads)
        finally:
            later.submit(torch.set_num_threads, usual).result()


T = TypeVar("T")
_END: Any = object()


def in_background(items: Iterator[T]) -> Iterator[T]:
    """Yield items, or raise their errors, while a thread prepares the next one."""
    with ThreadPoolExecutor(
        1,
        thread_name_prefix="sk_pwiser-reader",
        initializer=_set_in_this_thread,
        initargs=(torch.get_num_threads(),),
    ) as pool:
        pending = pool.submit(next, items, _END)
        while (item := pending.result()) is not _END:
            pending = pool.submit(next, items, _END)
            yield item
            del item  # so that two items are in memory at a time, not three
