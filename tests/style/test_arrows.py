"""The imports allowed in each folder of the package, and the registries.

A module at the top of the package, such as `callbacks.py`, counts as a folder. Imports
are read from the source with ast, so that imports inside functions count and imports of
the tests do not.
"""

import ast
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import sk_pwiser

# Each family of components, and the name of its registry.
FAMILIES = {"networks": "NETWORKS", "losses": "LOSSES", "weighting": "WEIGHTINGS"}
COMPONENTS = " ".join(FAMILIES)
LEARN, TORCH = "numpy scipy sklearn", "numpy scipy sklearn torch"
EXTRAS = "lightgbm matplotlib pandas polars pyarrow"
BELOW_ESTIMATOR = (
    f"{COMPONENTS} _columns _fit _model_files _rows _settings _tasks _training _utils "
    "metrics"
)
ABOVE_ESTIMATOR = f"_estimator {BELOW_ESTIMATOR} model_selection"


class Folder(NamedTuple):
    """The imports allowed in a folder, in addition to the standard library.

    `ours` are other folders of the package, `others` are other packages, and `lazily`
    are packages that may only be imported inside functions.
    """

    ours: str = ""
    others: str = ""
    lazily: str = ""


# The folders from the lowest to the highest, then the folders beside them.
FOLDERS = {
    "_utils": Folder(),
    "_model_files": Folder("_utils", "numpy", "torch"),
    "_columns": Folder("_utils", LEARN, EXTRAS),
    "_tasks": Folder("_columns _utils", LEARN, EXTRAS),
    "_times": Folder("_columns _tasks _utils", LEARN, EXTRAS),
    "_responses": Folder("_columns _tasks _utils", LEARN),
    "networks": Folder("_tasks _utils", "torch"),
    "losses": Folder("_tasks _utils", "torch"),
    "weighting": Folder("_utils", "torch", "torchjd"),
    "metrics": Folder("_columns _responses _tasks", LEARN, EXTRAS),
    "_settings": Folder(f"{COMPONENTS} _tasks _utils", "numpy sklearn torch"),
    "_rows": Folder("_columns _settings _tasks _utils losses networks", TORCH, EXTRAS),
    "_training": Folder(
        f"{COMPONENTS} _columns _model_files _rows _settings _tasks _utils metrics",
        f"{TORCH} skorch",
    ),
    "_fit": Folder("_rows _columns _settings _tasks _times _training _utils", TORCH),
    "_estimator": Folder(f"{BELOW_ESTIMATOR} _responses _version", TORCH, EXTRAS),
    "__init__": Folder("_estimator _utils _version"),
    "__main__": Folder(
        "__init__ _columns _responses _tasks _utils datasets history inspection "
        "metrics model_selection",
        f"{LEARN} joblib",
        EXTRAS,
    ),
    "callbacks": Folder("_training"),
    "calibration": Folder(f"{ABOVE_ESTIMATOR} _responses", LEARN),
    "datasets": Folder("_utils", LEARN, EXTRAS),
    "delayed_feedback": Folder("_columns _tasks _utils", LEARN),
    "history": Folder(
        "_model_files _columns _tasks _times _utils _version", f"{LEARN} joblib", EXTRAS
    ),
    "inspection": Folder(
        "_estimator _responses _columns _tasks _times _utils metrics",
        LEARN,
        EXTRAS,
    ),
    "model_selection": Folder(
        "_estimator _responses _columns _tasks _times _utils metrics",
        f"{LEARN} joblib",
        f"{EXTRAS} catboost",
    ),
    "linear_model": Folder("_responses _columns _tasks _utils model_selection", LEARN),
    "export": Folder(
        f"__init__ {ABOVE_ESTIMATOR} calibration",
        TORCH,
        "onnx onnxruntime onnxscript skops",
    ),
    "transfer": Folder(f"__init__ {ABOVE_ESTIMATOR}", TORCH, EXTRAS),
    "distributed": Folder(f"__init__ {ABOVE_ESTIMATOR}", TORCH, f"{EXTRAS} ray"),
    "_version": Folder(),
}
# Files with rules of their own.
FILES = {
    # No weighting, but public beside them.
    "weighting/_session_critic.py": Folder("_columns _responses _tasks _utils", LEARN),
    # Whoever imports these loads torch; histories, metrics and folds do not.
    "_tasks/_conditional_labels.py": Folder("", "torch"),
    "_utils/_precision.py": Folder("", "torch"),
    "_utils/_random.py": Folder("", "torch"),
    "_utils/_threads.py": Folder("", "torch"),
}
# These folders hold a network, a loss and a weighting, whichever these are.
BLIND = {"_settings", "_tasks", "_utils", "_rows", "_training", "_fit", "_estimator"}
# Folders whose files are imported by name, which a list in one place would only repeat.
BY_FILE = {
    "_columns",
    "_estimator",
    "_rows",
    "_settings",
    "_tasks",
    "_training",
    "_utils",
}


def find_violations(package):
    """List the violations in a package folder, one string per violation."""
    registered = {family: registry_of(package, family) for family in FAMILIES}
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        folder = relative.with_suffix("").parts[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if folder not in FOLDERS:
            found.append(f"{relative}: no entry in FOLDERS for {folder}")
            continue
        rules = FILES.get(relative.as_posix(), FOLDERS[folder])
        imports = list(imports_of(tree))
        for line, name, is_lazy in imports:
            fault = fault_of(folder, rules, name, is_lazy, package.name)
            if fault is not None:
                found.append(f"{relative}:{line}: {folder} imports {name}{fault}")
        if folder in BLIND:
            found += [f"{relative}:{m}" for m in sights(tree, imports, registered)]
    return found


def imports_of(tree):
    """Yield (line, dotted name, whether inside a function) for every import."""
    lazy_lines = {
        node.lineno
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if hasattr(node, "lineno")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            # ruff refuses relative imports.
            module = getattr(node, "module", None)
            for alias in node.names:
                name = alias.name if module is None else f"{module}.{alias.name}"
                yield node.lineno, name, node.lineno in lazy_lines


def folder_of_import(name, package_name):
    """Return the folder of an imported name, or None if it is from another package."""
    top, *rest = name.split(".")
    if top != package_name:
        return None
    # A name that is not a folder comes from the `__init__.py` of the package.
    return rest[0] if rest and rest[0] in FOLDERS else "__init__"


def fault_of(folder, rules, name, is_lazy, package_name):
    """Return the end of a message about an import, or None if it is allowed."""
    top, *rest = name.split(".")
    target = folder_of_import(name, package_name)
    if target is None:
        allowed = rules.others.split() + is_lazy * rules.lazily.split()
        is_allowed = top in allowed or top in sys.stdlib_module_names
        return None if is_allowed else ""
    if target == folder:
        return None
    if target not in rules.ours.split():
        return ""
    if target in BY_FILE:
        return None
    inside = rest if target == "__init__" else rest[1:]
    if any(part.startswith("_") and not part.startswith("__") for part in inside):
        return f", which is private to {target}"
    return None


def registry_of(package, family):
    """Read the names and classes of a family from its `__init__.py`."""
    init = package / family / "__init__.py"
    tree = ast.parse(init.read_text(encoding="utf-8") if init.exists() else "")
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
        if any(ast.unparse(t) == FAMILIES[family] for t in targets):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            return {k.value: ast.unparse(v) for k, v in pairs}
    return {}


def sights(tree, imports, registered):
    """Yield where a file depends on which network, loss or weighting it holds."""
    concrete = {c for table in registered.values() for c in table.values()}
    keys = {k for table in registered.values() for k in table}
    family_names = {
        name.split(".")[-1]
        for _, name, _ in imports
        if len(name.split(".")) > 2 and name.split(".")[1] in FAMILIES
    }
    for line, name, _ in imports:
        if name.split(".")[-1] in concrete:
            yield f"{line}: imports the component {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            names = {getattr(n, "id", None) for n in ast.walk(node.args[1])}
            names |= {getattr(n, "attr", None) for n in ast.walk(node.args[1])}
            if names & (family_names | concrete):
                yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Compare | ast.match_case):
            part = node.pattern if isinstance(node, ast.match_case) else node
            values = {getattr(n, "value", None) for n in ast.walk(part)} - {None}
            if {value for value in values if isinstance(value, str)} & keys:
                yield f"{part.lineno}: compares with {ast.unparse(part)}"


PACKAGE = Path(sk_pwiser.__file__).parent


def test_the_package_keeps_its_arrows():
    assert find_violations(PACKAGE) == []


# A small package, and lines that are faults if they are added to one of its files.

SOUND = {
    "__init__.py": "from house._estimator import Estimator\n",
    "_estimator/__init__.py": """
from house.networks import NETWORKS, MultiTaskNetwork
from house.metrics import auc
def check(x):
    import pandas
    if isinstance(x, np.ndarray): return 'mmoe'
    if isinstance(x, type): return issubclass(x, MultiTaskNetwork)
    return x == 'auto'
""",
    "_fit/__init__.py": "from house._training._net import Net\n",
    "_training/_data.py": "import house._tasks\nfrom house._tasks._tree import path\n",
    "_training/_net.py": "import skorch.utils\nfrom house.networks import NETWORKS\n",
    "_utils/__init__.py": "import sys\n",
    "export/__init__.py": "from house import Estimator\ndef f():\n    import onnx\n",
    "losses/__init__.py": "from house.losses._bce import BCE\nLOSSES = {'bce': BCE}\n",
    "losses/_bce.py": (
        "import torch\nfrom house._utils._checks import check\nclass BCE: ...\n"
    ),
    "metrics/__init__.py": "import sklearn\nfrom house.metrics._auc import _part\n",
    "networks/__init__.py": (
        "from house.networks._mmoe import MMoE\nNETWORKS: dict = {'mmoe': MMoE}\n"
    ),
    "weighting/__init__.py": "WEIGHTINGS = {}\n",
    "weighting/_session_critic.py": "import sklearn\nfrom house import _responses\n",
}
PLANTED = [
    # Packages that a folder may not import, or not outside functions.
    ("losses/_bce.py", "import numpy as np"),
    ("losses/_bce.py", "import skorch.utils"),
    ("losses/_bce.py", "def f():\n    from sklearn import base"),
    ("weighting/__init__.py", "import sklearn"),
    ("metrics/__init__.py", "import pandas as pd"),
    ("metrics/__init__.py", "import torch"),
    ("_utils/__init__.py", "import torch"),
    # Folders that it may not import.
    ("losses/_bce.py", "import house.networks"),
    ("losses/_bce.py", "from house import networks"),
    ("losses/_bce.py", "from house.networks import MMoE"),
    ("losses/_bce.py", "import house"),
    ("losses/_bce.py", "def f():\n    from house.networks import MMoE"),
    ("metrics/__init__.py", "from house import Estimator"),
    ("__init__.py", "from house.metrics import auc"),
    # Private files and names of other folders.
    ("_training/_net.py", "import house.metrics._auc"),
    ("_training/_net.py", "from house.metrics import _part"),
    ("_estimator/__init__.py", "from house._fit._fit import fit"),
    ("__init__.py", "from house.networks._mmoe import MMoE"),
    # Which network, loss or weighting it is.
    ("_training/_net.py", "from house.networks import MMoE"),
    ("_training/_net.py", "from house.networks import Base\nisinstance(x, Base)"),
    ("_estimator/__init__.py", "isinstance(x, (int, losses.BCE))"),
    ("_estimator/__init__.py", "x.n == 'mmoe'"),
    ("_utils/__init__.py", "x in {'bce'}"),
    ("_estimator/__init__.py", "match s:\n    case 'bce': pass"),
]


def build(folder, files):
    for name, text in files.items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "house"


def test_a_sound_package_has_no_violation(tmp_path):
    assert find_violations(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize(("name", "lines"), PLANTED)
def test_a_planted_fault_is_found(tmp_path, name, lines):
    package = build(tmp_path, SOUND | {name: f"{SOUND[name]}{lines}\n"})
    violations = find_violations(package)
    assert violations
    assert all(name in violation for violation in violations)


def test_a_folder_without_an_entry_is_found(tmp_path):
    package = build(tmp_path, SOUND | {"helpers.py": "import math\n"})
    assert find_violations(package) == ["helpers.py: no entry in FOLDERS for helpers"]


BASES = {
    "networks": ("MultiTaskNetwork",),
    "losses": ("MultiTaskLoss",),
    "weighting": ("TaskWeighting", "GradientWeighting"),
}


def concrete_classes(folder, bases):
    """Return the public classes in a folder that derive from its base."""
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}.")
    ]
    return {
        cls
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, bases[0])
        and cls not in bases
        and cls.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_of_a_family_is_registered_and_exported(family):
    folder = importlib.import_module(f"sk_pwiser.{family}")
    registry = getattr(folder, FAMILIES[family])
    classes = concrete_classes(folder, [getattr(folder, n) for n in BASES[family]])
    assert set(registry.values()) == classes
    assert {*BASES[family], FAMILIES[family]} < set(folder.__all__)
    assert {cls.__name__ for cls in classes} < set(folder.__all__)
    # The search for violations reads the registry from the source: both must agree.
    written = registry_of(PACKAGE, family)
    assert {k: v.__name__ for k, v in registry.items()} == written


def test_a_network_is_in_the_file_of_its_registered_name():
    networks = importlib.import_module("sk_pwiser.networks")
    modules = {name: cls.__module__ for name, cls in networks.NETWORKS.items()}
    assert modules == {name: f"sk_pwiser.networks._{name}" for name in modules}
