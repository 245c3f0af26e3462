"""The rooms of the package, and the arrows between them.

Read from the source by ast, so that imports inside functions count as well, and no
import of a test changes what is found.
"""

import ast
import importlib
import inspect
import pkgutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import sk_pwiser

PACKAGE = Path(sk_pwiser.__file__).parent


@dataclass(frozen=True)
class Room:
    """What the files of a room may import beside the standard library.

    `ours` are other rooms of the package, `others` further packages, and `lazily`
    those that may be imported inside functions only.
    """

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    lazily: tuple[str, ...] = ()


FAMILIES = {
    "networks": "NETWORKS",
    "losses": "LOSSES",
    "weighting": "WEIGHTINGS",
}
EXTRAS = ("lightgbm", "matplotlib", "pandas", "polars", "pyarrow")
LEARN = ("joblib", "numpy", "scipy", "sklearn")
TORCH = ("torch",)
TOOL = Room((), LEARN, EXTRAS)
BELOW_NET = (*FAMILIES, "_batches", "_criterion", "_device")
BELOW_TRAINING = (
    *BELOW_NET,
    "_components",
    "_encoding",
    "_net",
    "_plans",
    "_targets",
    "metrics",
    "model_selection",
)

ROOMS = {
    "networks": Room((), TORCH),
    "losses": Room((), TORCH),
    "weighting": Room((), TORCH, ("torchjd",)),
    "_criterion": Room(tuple(FAMILIES), TORCH),
    "_components": Room(),
    "_device": Room((), TORCH),
    "_plans": Room((), ("numpy", *TORCH)),
    "_batches": Room(("_plans",), ("numpy", *TORCH)),
    "_columns": Room((), ("numpy",), EXTRAS),
    "_encoding": Room(("_columns", "_numeric"), LEARN, EXTRAS),
    "_numeric": Room(("_columns",), ("numpy", "scipy")),
    "_targets": Room(("_columns", "model_selection"), LEARN),
    "_net": Room(BELOW_NET, ("numpy", "sklearn", "skorch", *TORCH)),
    "_parameters": Room((*FAMILIES, "_net", "_numeric"), ("sklearn", *TORCH)),
    "_training": Room(BELOW_TRAINING, (*LEARN, *TORCH)),
    "_predictions": Room(
        ("_batches", "_targets", "metrics"), ("numpy", "sklearn", *TORCH)
    ),
    "_estimator": Room(
        (*BELOW_TRAINING, "_parameters", "_predictions", "_training"),
        (*LEARN, *TORCH),
        EXTRAS,
    ),
    "calibration": TOOL,
    "datasets": TOOL,
    "metrics": TOOL,
    "model_selection": TOOL,
    "plotting": TOOL,
    "_version": Room(),
}
# These stand above all rooms.
FREE = {"__init__", "__main__"}
# These hold a network, a loss and a weighting and must not ask which.
BLIND = {
    "_components",
    "_criterion",
    "_estimator",
    "_net",
    "_predictions",
    "_training",
}


def room_of(parts):
    """Room of a dotted path inside the package, such as ("networks", "_mmoe")."""
    return parts[0] if parts else "__init__"


def find_violations(package):
    """List what breaks the arrows in a package folder, a line each."""
    registered = {f: registry_of(package, f) for f in FAMILIES}
    found = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        room = room_of(relative.with_suffix("").parts)
        if room in FREE:
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if room not in ROOMS:
            found.append(f"{relative}: no line in ROOMS for {room}")
            continue
        imports = list(imports_of(tree, package, relative))
        found += [
            f"{relative}:{line}: {room} imports {name}"
            for line, name, lazy in imports
            if not is_allowed(room, name, lazy, package.name)
        ]
        if room in BLIND:
            found += [f"{relative}:{m}" for m in sights(tree, imports, registered)]
    return found


def imports_of(tree, package, relative):
    """Yield (line, dotted name, whether inside a function) of every import."""
    folder = [package.name, *relative.parts[:-1]]
    lazy_lines = {
        n.lineno
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for n in ast.walk(f)
        if hasattr(n, "lineno")
    }
    for node in ast.walk(tree):
        for name in imported_names(node, folder):
            yield node.lineno, name, node.lineno in lazy_lines


def imported_names(node, folder):
    """Dotted names that a node imports, "package.module.name" for a from-import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = folder[: len(folder) - node.level + 1] if node.level else []
        module = [*base, *([node.module] if node.module else [])]
        return [".".join([*module, alias.name]) for alias in node.names]
    is_dynamic = (
        isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
    )
    return [node.args[0].value] if is_dynamic else []


def is_allowed(room, name, lazy, package_name):
    top, *rest = name.split(".")
    rule = ROOMS[room]
    if top == package_name:
        target = room_of(rest)
        # A name that is no room comes from the package's own __init__.
        return target == room or (target in ROOMS and target in rule.ours)
    if top in sys.stdlib_module_names or top in rule.others:
        return True
    return lazy and top in rule.lazily


def registry_of(package, family):
    """Read a family's table of names and classes from its `__init__.py`."""
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
    """Yield where a file asks which network, loss or weighting it holds."""
    concrete = {c for table in registered.values() for c in table.values()}
    keys = {k for table in registered.values() for k in table}
    family_names = {
        name.split(".")[-1]
        for _, name, _ in imports
        if len(name.split(".")) > 2 and name.split(".")[1] in FAMILIES
    }
    for line, name, _ in imports:
        if name.split(".")[-1] in concrete:
            yield f"{line}: imports {name}, one of many"
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            names = names_in(node.args[1])
            if names & (family_names | concrete):
                yield f"{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Compare | ast.match_case):
            part = node.pattern if isinstance(node, ast.match_case) else node
            if {c.value for c in ast.walk(part) if is_text(c)} & keys:
                yield f"{part.lineno}: compares with {ast.unparse(part)}"


def names_in(node):
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return names | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def is_text(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_the_package_keeps_its_arrows():
    assert find_violations(PACKAGE) == []


def test_skorch_is_imported_by_the_net_alone():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        for _, name, _ in imports_of(
            ast.parse(path.read_text(encoding="utf-8")),
            PACKAGE,
            path.relative_to(PACKAGE),
        )
        if name.split(".")[0] == "skorch"
    }
    assert users == {"_net.py"}


# A small package without a fault, and what is planted in it.

SOUND = {
    "__init__.py": "from house._estimator import Estimator\n",
    "networks/__init__.py": (
        "from house.networks._mmoe import MMoE\nNETWORKS: dict = {'mmoe': MMoE}\n"
    ),
    "networks/_mmoe.py": "from torch import nn\nclass MMoE(nn.Module): ...\n",
    "losses/__init__.py": "from house.losses._bce import BCE\nLOSSES = {'bce': BCE}\n",
    "losses/_bce.py": "import math\nimport torch.nn.functional as F\nclass BCE: ...\n",
    "_criterion.py": "from house.losses import MultiTaskLoss\n",
    "_net.py": "import skorch\nfrom house._criterion import MultiTaskCriterion\n",
    "_estimator.py": (
        "import numpy as np\nfrom house import losses\n"
        "from house.networks import NETWORKS, MultiTaskNetwork\n"
        "def check(x):\n"
        "    if isinstance(x, np.ndarray): return 'mmoe'\n"
        "    if isinstance(x, type): return issubclass(x, MultiTaskNetwork)\n"
        "    return x == 'auto'\n"
    ),
    "metrics.py": "import sklearn\ndef frame():\n    import pandas\n",
}

FAULTS = {
    "network imports a loss": ("networks/_mmoe.py", "import house.losses\n"),
    "network imports sklearn": ("networks/_mmoe.py", "from sklearn import base\n"),
    "network imports numpy": ("networks/_mmoe.py", "import numpy as np\n"),
    "loss imports a network": ("losses/_bce.py", "from house.networks import MMoE\n"),
    "loss imports a network's room": ("losses/_bce.py", "from house import networks\n"),
    "loss imports skorch": ("losses/_bce.py", "import skorch.utils\n"),
    "loss imports the package": ("losses/_bce.py", "import house\n"),
    "relative import upwards": ("losses/_bce.py", "from ..networks import MMoE\n"),
    "import inside a function": ("losses/_bce.py", "def f():\n    import sklearn\n"),
    "import by name": (
        "losses/_bce.py",
        "import importlib\nimportlib.import_module('house.networks')\n",
    ),
    "criterion imports the net": ("_criterion.py", "from house._net import X\n"),
    "estimator imports skorch": ("_estimator.py", "from skorch import NeuralNet\n"),
    "metrics import the estimator": ("metrics.py", "from house import Estimator\n"),
    "metrics import torch": ("metrics.py", "import torch\n"),
    "metrics need pandas": ("metrics.py", "import pandas as pd\n"),
    "net imports a network": ("_net.py", "from house.networks import MMoE\n"),
    "net tests for the base class": (
        "_net.py",
        "from house.networks import Base\ndef f(x): return isinstance(x, Base)\n",
    ),
    "estimator tests for a loss": (
        "_estimator.py",
        "def f(x): return isinstance(x, (int, losses.BCE))\n",
    ),
    "estimator compares a name": ("_estimator.py", "def f(s): return s.n == 'mmoe'\n"),
    "estimator looks up names": ("_estimator.py", "def f(s): return s in {'bce'}\n"),
    "estimator matches a name": (
        "_estimator.py",
        "def f(s):\n    match s:\n        case 'bce': return 1\n",
    ),
    "room without a line": ("helpers.py", "import math\n"),
}


def build(folder, files):
    for name, text in files.items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "house"


def test_a_sound_package_has_no_violation(tmp_path):
    assert find_violations(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(tmp_path, fault):
    name, text = FAULTS[fault]
    package = build(tmp_path, SOUND | {name: SOUND.get(name, "") + text})
    violations = find_violations(package)
    assert violations
    assert all(v.startswith(name) for v in violations)


# Registries.

BASES = {
    "networks": ("MultiTaskNetwork",),
    "losses": ("MultiTaskLoss",),
    "weighting": ("TaskWeighting", "GradientWeighting"),
}


def concrete_classes(folder, base, *further_bases):
    """Classes of a folder that derive the base, bases and private ones aside."""
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}.")
    ]
    return {
        cls
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base)
        and cls not in (base, *further_bases)
        and cls.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_of_a_family_is_registered_and_exported(family):
    folder = importlib.import_module(f"sk_pwiser.{family}")
    registry = getattr(folder, FAMILIES[family])
    bases = [getattr(folder, name) for name in BASES[family]]
    classes = concrete_classes(folder, *bases)
    assert set(registry.values()) == classes
    assert {*BASES[family], FAMILIES[family]} < set(folder.__all__)
    assert {cls.__name__ for cls in classes} < set(folder.__all__)
    # The checker above reads the table from the source: both must see the same.
    written = registry_of(PACKAGE, family)
    assert {k: v.__name__ for k, v in registry.items()} == written
