"""The imports allowed in each folder of the package, and a search for violations.

A module at the top of the package, such as `callbacks.py`, counts as a folder. Imports
are read from the source with ast, so that imports inside functions count and imports of
the tests do not.
"""

import ast
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Folder:
    """The imports allowed in a folder, in addition to the standard library.

    `ours` are other folders of the package, `others` are other packages, and `lazily`
    are packages that may only be imported inside functions.
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
BELOW_ESTIMATOR = (
    *FAMILIES,
    "_model_files",
    "_fit",
    "_table",
    "_training",
    "_utils",
    "metrics",
)
ABOVE_ESTIMATOR = ("__init__", "_estimator", *BELOW_ESTIMATOR, "model_selection")

# The folders from the lowest to the highest, then the folders beside them.
FOLDERS = {
    "_utils": Folder((), (*TORCH, "joblib")),
    "_auc": Folder((), LEARN),
    "_model_files": Folder(("_utils",), ("numpy",)),
    "_table": Folder(("_utils",), LEARN, EXTRAS),
    "_times": Folder(("_table", "_utils"), LEARN, EXTRAS),
    "_funnel": Folder(("_table", "_utils"), LEARN),
    "_responses": Folder(("_table", "_utils"), LEARN),
    "networks": Folder(("_utils",), TORCH),
    "losses": Folder(("_utils",), TORCH),
    "_session_critic": Folder(("_responses", "_table", "_utils"), LEARN),
    "weighting": Folder(("_utils", "_session_critic"), TORCH, ("torchjd",)),
    "_training": Folder(
        (*FAMILIES, "_auc", "_model_files", "_funnel", "_table", "_utils"),
        (*LEARN, *TORCH, "skorch"),
    ),
    "_fit": Folder(
        ("_funnel", "_table", "_times", "_training", "_utils"), (*LEARN, *TORCH)
    ),
    "_estimator": Folder(
        (*BELOW_ESTIMATOR, "_responses", "_version"), (*LEARN, *TORCH), EXTRAS
    ),
    "__init__": Folder(("_estimator", "_version")),
    "__main__": Folder(
        (
            *("__init__", "_table", "_utils", "datasets"),
            *("history", "inspection", "metrics", "model_selection"),
        ),
        (*LEARN, "joblib"),
        EXTRAS,
    ),
    "callbacks": Folder(("_training",)),
    "calibration": Folder((*ABOVE_ESTIMATOR[1:], "_responses", "_times"), LEARN),
    "datasets": Folder(("_utils",), LEARN, EXTRAS),
    "delayed_feedback": Folder(("_table", "_utils"), LEARN),
    "history": Folder(
        ("_model_files", "_table", "_times", "_utils", "_version"),
        (*LEARN, "joblib"),
        EXTRAS,
    ),
    "inspection": Folder(
        (
            "_auc",
            "_estimator",
            "_funnel",
            "_responses",
            "_table",
            "_times",
            "_utils",
            "metrics",
        ),
        LEARN,
        EXTRAS,
    ),
    "metrics": Folder(("_auc", "_responses", "_table"), LEARN, EXTRAS),
    "model_selection": Folder(
        (
            "_estimator",
            "_funnel",
            "_responses",
            "_table",
            "_times",
            "_utils",
            "metrics",
        ),
        (*LEARN, "joblib"),
        (*EXTRAS, "catboost"),
    ),
    "linear_model": Folder(
        ("_responses", "_table", "_utils", "model_selection"), LEARN
    ),
    "export": Folder(
        (*ABOVE_ESTIMATOR, "calibration"), (*LEARN, *TORCH), (*ONNX, "skops")
    ),
    "transfer": Folder(ABOVE_ESTIMATOR, (*LEARN, *TORCH), EXTRAS),
    "distributed": Folder(ABOVE_ESTIMATOR, (*LEARN, *TORCH), (*EXTRAS, "ray")),
    "_version": Folder(),
}
# These folders hold a network, a loss and a weighting, whichever these are.
BLIND = {"_utils", "_training", "_fit", "_estimator"}
# (folder, folder below it): only one file of the first may import the second.
JOINED_IN_ONE_FILE = [("_training", "_table")]
# Folders whose files are imported by name, which a list in one place would only repeat.
BY_FILE = {"_table", "_training"}


def folder_of(parts):
    """Return the folder of a dotted path such as ("networks", "_mmoe").

    A name that is not a folder comes from the `__init__.py` of the package.
    """
    return parts[0] if parts and parts[0] in FOLDERS else "__init__"


def find_violations(package):
    """List the violations in a package folder, one string per violation."""
    registered = {f: registry_of(package, f) for f in FAMILIES}
    found = []
    joints = {pair: set() for pair in JOINED_IN_ONE_FILE}
    for path in sorted(package.rglob("*.py")):
        relative = path.relative_to(package)
        folder = relative.with_suffix("").parts[0]
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if folder not in FOLDERS:
            found.append(f"{relative}: no entry in FOLDERS for {folder}")
            continue
        imports = list(imports_of(tree, package, relative))
        for line, name, lazy in imports:
            fault = fault_of(folder, name, lazy, package.name)
            if fault:
                found.append(f"{relative}:{line}: {fault}")
            target = folder_of_import(name, package.name)
            if (folder, target) in joints:
                joints[folder, target].add(str(relative))
        if folder in BLIND:
            found += [f"{relative}:{m}" for m in sights(tree, imports, registered)]
    return found + [
        f"{', '.join(sorted(files))}: more than one file of {folder} imports {target}"
        for (folder, target), files in joints.items()
        if len(files) > 1
    ]


def imports_of(tree, package, relative):
    """Yield (line, dotted name, whether inside a function) for every import."""
    parents = [package.name, *relative.parts[:-1]]
    lazy_lines = {
        n.lineno
        for f in ast.walk(tree)
        if isinstance(f, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for n in ast.walk(f)
        if hasattr(n, "lineno")
    }
    for node in ast.walk(tree):
        for name in imported_names(node, parents):
            yield node.lineno, name, node.lineno in lazy_lines


def imported_names(node, parents):
    """Return the imported dotted names, "package.module.name" for a from-import."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = parents[: len(parents) - node.level + 1] if node.level else []
        module = [*base, *([node.module] if node.module else [])]
        return [".".join([*module, alias.name]) for alias in node.names]
    is_dynamic = (
        isinstance(node, ast.Call)
        and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}
        and node.args
        and isinstance(node.args[0], ast.Constant)
    )
    return [node.args[0].value] if is_dynamic else []


def folder_of_import(name, package_name):
    """Return the folder of an imported name, or None if it is from another package."""
    top, *rest = name.split(".")
    return folder_of(rest) if top == package_name else None


def fault_of(folder, name, lazy, package_name):
    """Return the error of an import as text, or None if it is allowed."""
    top, *rest = name.split(".")
    target = folder_of_import(name, package_name)
    if target is None:
        allowed = {*sys.stdlib_module_names, *FOLDERS[folder].others}
        allowed |= set(FOLDERS[folder].lazily) if lazy else set()
        return None if top in allowed else f"{folder} imports {name}"
    if target == folder:
        return None
    if target not in FOLDERS[folder].ours:
        return f"{folder} imports {name}"
    inside = rest[1:] if target != "__init__" else rest
    if target in BY_FILE:
        return None
    if any(part.startswith("_") and not is_dunder(part) for part in inside):
        return f"{folder} imports {name}, which is private to {target}"
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
