"""The table of the package's folders and of their imports, read from its source.

`conf.py` calls `write`. A module at the top of the package counts as a folder. Imports
inside functions count, too.
"""

import ast
import importlib.util
from graphlib import TopologicalSorter
from pathlib import Path

from parameter_tables import list_table, write_if_changed

# The package is located but not imported: the table only needs its source.
PACKAGE = Path(importlib.util.find_spec("sk_pwiser").origin).parent
TOP = "sk_pwiser"  # __init__.py and __main__.py


def folder_of(path):
    """Return the folder of a path inside the package."""
    first = path.parts[0] if len(path.parts) > 1 else path.stem
    return TOP if first in ("__init__", "__main__") else first


def find_imports(package=PACKAGE):
    """Map the folders of a package to the sets of folders that they import from."""
    paths = [path.relative_to(package) for path in package.rglob("*.py")]
    imports = {folder_of(path): set() for path in paths}
    for path in paths:
        for node in ast.walk(ast.parse((package / path).read_text(encoding="utf-8"))):
            for name in imported_names(node, f"{package.name}."):
                target = folder_of(Path(*name.split(".")))
                # A name that is not a folder is defined in the package's __init__.
                imports[folder_of(path)].add(target if target in imports else TOP)
    return {
        folder: targets - {folder, "_version"}
        for folder, targets in imports.items()
        if folder != "_version"
    }


def imported_names(node, prefix):
    """Return the names that a node imports from the package, without its prefix."""
    names = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and not node.level:
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def layers(imports):
    """Return the folders in layers, the top first: each imports from lower ones only.

    Raises
    ------
    CycleError
        If folders import each other.
    """
    sorter, found = TopologicalSorter(imports), []
    sorter.prepare()
    while sorter.is_active():
        found.insert(0, sorted(sorter.get_ready()))
        sorter.done(*found[0])
    return found


def write(path):
    """Write the table to a file."""
    imports = find_imports()
    rows = [
        (f"``{folder}``", ", ".join(sorted(imports[folder])) or "none of these")
        for layer in layers(imports)
        for folder in layer
    ]
    write_if_changed(path, list_table(("Folder", "Imports from"), rows, (25, 75)))
