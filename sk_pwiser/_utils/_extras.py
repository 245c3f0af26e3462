"""Optional packages, and how to install them."""

import importlib
from typing import Any

# What pip installs for a package, and the extra of this package that does so, too.
REQUIREMENTS = {
    "matplotlib": ("matplotlib", "plot"),
    "onnx": ("onnx onnxruntime onnxscript", "onnx"),
    "onnxruntime": ("onnx onnxruntime onnxscript", "onnx"),
    "onnxscript": ("onnx onnxruntime onnxscript", "onnx"),
    "pandas": ("pandas pyarrow", "pandas"),
    "pyarrow": ("pyarrow", "pandas"),
    "ray": ('"ray[train]" pandas pyarrow', "ray"),
    "skops": ("skops", "skops"),
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
