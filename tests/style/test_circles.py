"""No two files need each other, types included."""

import ast
from pathlib import Path

from scipy.sparse import lil_array
from scipy.sparse.csgraph import connected_components

import sk_pwiser

PACKAGE = Path(sk_pwiser.__file__).parent


def modules():
    """Return the path of each file of the package by the name of its module."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path
        for path in paths
    }


def imported_names(path):
    """Yield the names that a file imports, as modules and as names within them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def circles(needs):
    """Return the groups of modules that reach each other, from what each imports."""
    names = list(needs)
    matrix = lil_array((len(names), len(names)), dtype=bool)
    for name in names:
        for needed in needs[name] & needs.keys():
            matrix[names.index(name), names.index(needed)] = True
    n_groups, labels = connected_components(matrix, connection="strong")
    groups = [[] for _ in range(n_groups)]
    for name, label in zip(names, labels, strict=True):
        groups[label].append(name)
    return [group for group in groups if len(group) > 1]


def test_a_circle_is_seen():
    needs = {"a": {"b"}, "b": {"c", "json"}, "c": {"a"}, "d": {"a", "d"}}
    assert circles(needs) == [["a", "b", "c"]]


def test_no_files_need_each_other():
    paths = modules()
    assert len(paths) > 100
    assert (
        circles({name: {*imported_names(path)} for name, path in paths.items()}) == []
    )
