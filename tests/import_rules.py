"""Which imports each room of the package may contain, and a search for violations.

Imports are read from the source by ast, so that those inside functions are included
and the imports of the tests have no influence.
"""

import ast
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """What the files of a room may import in addition to the standard library.

    `ours` are other rooms of the package, `others` further packages, and `lazily`
    packages that may be imported inside functions only.
    """

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    lazily: tuple[str, ...] = ()


# Each family of components, and the name of its registry.
FAMILIES = {
    "networks": "NETWORKS",
    "losses": "LOSSES",
    "weighting": "WEIGHTINGS",
}
EXTRAS = ("lightgbm", "matplotlib", "pandas", "polars", "pyarrow")
LEARN = ("numpy", "scipy", "sklearn")
TORCH = ("torch",)
ONNX = ("onnx", "onnxruntime", "onnxscript")
TOOL = Room((), LEARN, EXTRAS)
READS_LABELS = Room(("_labels",), LEARN, EXTRAS)
READS_RESPONSES = Room(("_labels", "_responses"), LEARN, EXTRAS)
BELOW_ESTIMATOR = (
    *FAMILIES,
    "_files",
    "_labels",
    "_table",
    "_training",
    "_utils",
    "metrics",
)
ABOVE_ESTIMATOR = ("__init__", "_estimator", *BELOW_ESTIMATOR, "model_selection")

# The rooms from the lowest to the highest, then those beside them.
ROOMS = {
    "_utils": Room((), (*TORCH, "joblib")),
    "_files": Room((), ("numpy",), ("safetensors",)),
    "_labels": Room((), LEARN),
    "_times": Room(("_labels",), LEARN, EXTRAS),
    "_responses": Room(("_labels",), LEARN),
    "networks": Room(("_utils",), TORCH),
    "losses": Room(("_utils",), TORCH),
    "_row_weights": Room(("_labels", "_utils"), LEARN),
    "weighting": Room(("_utils", "_row_weights"), TORCH, ("torchjd",)),
    "_table": Room(("_labels", "_utils"), LEARN, EXTRAS),
    "_training": Room(
        (*FAMILIES, "_files", "_table", "_utils", "model_selection"),
        (*LEARN, *TORCH, "skorch"),
        ("optuna",),
    ),
    "_estimator": Room((*BELOW_ESTIMATOR, "_version"), (*LEARN, *TORCH), EXTRAS),
    "__init__": Room(("_estimator", "_version")),
    "__main__": Room(("__init__", "datasets", "model_selection"), LEARN, EXTRAS),
    "callbacks": Room(("_training",)),
    "calibration": Room(("metrics", "model_selection"), LEARN),
    "datasets": TOOL,
    "delayed_feedback": READS_LABELS,
    "history": Room(
        ("_files", "_labels", "_table", "_times", "_utils", "_version"), LEARN, EXTRAS
    ),
    "inspection": Room(
        ("_labels", "_responses", "metrics", "model_selection"), LEARN, EXTRAS
    ),
    "metrics": READS_RESPONSES,
    "model_selection": Room(
        ("_labels", "_times", "metrics"), (*LEARN, "joblib"), EXTRAS
    ),
    "linear_model": Room(("model_selection",), LEARN),
    "export": Room(ABOVE_ESTIMATOR, (*LEARN, *TORCH), (*ONNX, "skops")),
    "transfer": Room(ABOVE_ESTIMATOR, (*LEARN, *TORCH), EXTRAS),
    "distributed": Room(ABOVE_ESTIMATOR, (*LEARN, *TORCH), (*EXTRAS, "ray")),
    "_version": Room(),
}
# These hold a network, a loss and a weighting, and must not depend on which.
BLIND = {"_utils", "_training", "_estimator"}
# (room, room below it): a single file of the first may import the second.
JOINED_IN_ONE_FILE = [("_training", "_table")]


def room_of(parts):
    """Return the room of a dotted path such as ("networks", "_mmoe").

    A name that is no room comes from the `__init__.py` of the package.
    """
    return parts[0] if parts and parts[0] in ROOMS else "__init__"


def find_violations(package):
    """List the violations in a package folder, one string per violation."""
    registered = {f: registry_of(package, f) for f in FAMILIES}
    found = []
    joints = {pair: set() for pair in JOINED_IN_ONE_FILE}
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        room = relative.with_suffix("").parts[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if room not in ROOMS:
            found.append(f"{relative}: no entry in ROOMS for {room}")
            continue
        imports = list(imports_of(tree, package, relative))
        for line, name, lazy in imports:
            fault = fault_of(room, name, lazy, package.name)
            if fault:
                found.append(f"{relative}:{line}: {fault}")
            target = room_of_import(name, package.name)
            if (room, target) in joints:
                joints[room, target].add(str(relative))
        if room in BLIND:
            found += [f"{relative}:{m}" for m in sights(tree, imports, registered)]
    return found + [
        f"{', '.join(sorted(files))}: more than one file of {room} imports {target}"
        for (room, target), files in joints.items()
        if len(files) > 1
    ]


def imports_of(tree, package, relative):
    """Yield (line, dotted name, whether inside a function) for every import."""
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
    """Return the imported dotted names, "package.module.name" for a from-import."""
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


def room_of_import(name, package_name):
    """Return the room that an imported name belongs to, None outside the package."""
    top, *rest = name.split(".")
    return room_of(rest) if top == package_name else None


def fault_of(room, name, lazy, package_name):
    """Return what is wrong with an import, None if nothing is."""
    top, *rest = name.split(".")
    target = room_of_import(name, package_name)
    if target is None:
        allowed = {*sys.stdlib_module_names, *ROOMS[room].others}
        allowed |= set(ROOMS[room].lazily) if lazy else set()
        return None if top in allowed else f"{room} imports {name}"
    if target == room:
        return None
    if target not in ROOMS[room].ours:
        return f"{room} imports {name}"
    inside = rest[1:] if target != "__init__" else rest
    if any(part.startswith("_") and not is_dunder(part) for part in inside):
        return f"{room} imports {name}, which is private to {target}"
    return None


def is_dunder(name):
    return name.startswith("__") and name.endswith("__")


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
