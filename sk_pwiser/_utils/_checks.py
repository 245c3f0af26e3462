"""Checks of parameters, the registry, optional packages, warnings, lines of tables."""

import importlib
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, wraps
from importlib.metadata import PackageNotFoundError, metadata
from inspect import signature
from numbers import Integral, Rational, Real
from typing import Any, TypeGuard

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
    return [
        "  ".join(
            f"{cell:{side}{width}}"
            for cell, side, width in zip(row, sides, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


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
        number = math.inf if value == abs(value) else -math.inf
    limits = {
        "> {}": (above, above is None or number > above),
        ">= {}": (at_least, at_least is None or number >= at_least),
        "< {}": (below, below is None or number < below),
        "<= {}": (at_most, at_most is None or number <= at_most),
    }
    is_finite = abs(number) < float("inf")
    if not is_finite or not all(holds for _, holds in limits.values()):
        rules = [
            rule.format(f"{limit:g}")
            for rule, (limit, _) in limits.items()
            if limit is not None
        ]
        raise ValueError(
            f"{name} must be {' and '.join(['finite', *rules])}; got {value!r}."
        )
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
    names = [name for name in signature(function).parameters if name[:1] in ("Y", "y")]

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in names:
            other = name[0].swapcase() + name[1:]
            if other not in kwargs:
                continue
            if name in kwargs:
                raise TypeError(
                    f"{function.__name__}() got labels twice: as {name!r} and as "
                    f"{other!r}."
                )
            kwargs[name] = kwargs.pop(other)
        return function(*args, **kwargs)

    return call


def build(
    registry: Mapping[str, type],
    base: type,
    parameter: str,
    choice: Any,
    params: Mapping[str, Any] | None,
    *args: Any,
    **context: Any,
) -> Any:
    """Build a component from `args` that all take, after `check_names`."""
    kind = check_names(registry, base, parameter, choice, params, len(args), **context)
    return kind(*args, **context, **(params or {}))


def check_names(
    registry: Mapping[str, type],
    base: type,
    parameter: str,
    choice: Any,
    params: Mapping[str, Any] | None,
    n_args: int,
    *,
    shared: Collection[str] = (),
    **context: Any,
) -> type[Any]:
    """Return the class of a component, after a check of the names of its parameters.

    All components take `n_args` positional arguments and the `shared` parameters.
    """
    kind = resolve(registry, base, parameter, choice)
    params = params or {}
    signature = inspect.signature(kind).parameters.values()
    known = [
        p.name for p in signature if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    known = [name for name in known[n_args:] if name not in context]
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
                f"{parameter}_params holds {key!r}, which {choice!r} does not take; "
                f"it takes {known}.{did_you_mean(key, known)}"
            )
    try:
        inspect.signature(kind).bind(*[None] * n_args, **context, **params)
    except TypeError as error:
        raise ValueError(
            f"{parameter}_params lacks an argument that {choice!r} requires: {error}."
        ) from error
    return kind


def check_base_init(component: object, attribute: str, argument: str) -> None:
    """Raise if the constructor of a user's class leaves that of its base class out."""
    if not hasattr(component, attribute):
        name = type(component).__name__
        raise TypeError(
            f"{name}.__init__ must call super().__init__({argument}) before it sets "
            "attributes."
        )


def check_signature(kind: type, method: str, *arguments: str) -> None:
    """Raise if a method of a user's class does not take these arguments by position."""
    try:
        inspect.signature(getattr(kind, method)).bind(kind, *arguments)
    except TypeError as error:
        raise TypeError(
            f"{kind.__name__}.{method} must take the arguments self, "
            f"{', '.join(arguments)}: {error}."
        ) from error


def resolve(
    registry: Mapping[str, type], base: type, parameter: str, choice: Any
) -> type[Any]:
    if isinstance(choice, str):
        if choice not in registry:
            raise ValueError(
                f"{parameter} must be one of {sorted(registry)} or a subclass of "
                f"{base.__name__}; got {choice!r}.{did_you_mean(choice, registry)}"
            )
        return registry[choice]
    if not (isinstance(choice, type) and issubclass(choice, base)):
        raise TypeError(
            f"{parameter} must be a name or a subclass of {base.__name__}; got "
            f"{choice!r}."
        )
    return choice


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
