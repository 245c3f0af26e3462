"""Common code never tests which network, loss or weighting it holds; the registries.

Imports are read from the source with ast. `lint-imports` holds the order of folders.
"""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import sk_pwiser

# Each family of components, and the name of its registry.
FAMILIES = {"networks": "NETWORKS", "losses": "LOSSES", "weighting": "WEIGHTINGS"}
# These folders hold a network, a loss and a weighting, whichever these are.
BLIND = {"_settings", "_tasks", "_utils", "_rows", "_training", "_fit", "_estimator"}


def find_violations(package):
    """List where common code of a package depends on a component, one string each."""
    registered = {family: registry_of(package, family) for family in FAMILIES}
    violations = []
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        if relative.with_suffix("").parts[0] in BLIND:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            violations += [f"{relative}:{sight}" for sight in sights(tree, registered)]
    return violations


def imports_of(tree):
    """Yield the line and the dotted name of every import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            # ruff refuses relative imports.
            module = getattr(node, "module", None)
            for alias in node.names:
                name = alias.name if module is None else f"{module}.{alias.name}"
                yield node.lineno, name


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


def sights(tree, registered):
    """Yield where a file depends on which network, loss or weighting it holds."""
    imports = list(imports_of(tree))
    concrete = {c for table in registered.values() for c in table.values()}
    keys = {k for table in registered.values() for k in table}
    family_names = {
        name.split(".")[-1]
        for _, name in imports
        if len(name.split(".")) > 2 and name.split(".")[1] in FAMILIES
    }
    for line, name in imports:
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


def test_common_code_does_not_know_its_components():
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
