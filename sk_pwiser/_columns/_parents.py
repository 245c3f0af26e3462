"""Category columns whose values belong to values of another one, such as its brand."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sk_pwiser._columns._frames import check_among

# The place of the parent of a column that has none.
NO_PARENT = -1


def read_parents(
    parents: Mapping[Any, Any] | None,
    find_name: Callable[[Any], Any],
    categories: Sequence[Any],
) -> dict[Any, Any]:
    """Return the name of the parent of each column that has one.

    `find_name` returns the name of a column of the table, or raises.
    """
    names: dict[Any, Any] = {}
    for column, parent in (parents or {}).items():
        child_name = find_name(column)
        parent_name = find_name(parent)
        for name in (child_name, parent_name):
            check_among("parents", name, categories, "category column without lists")
        names[child_name] = parent_name
    for first in names:
        path = [first]
        while path[-1] in names:
            path.append(names[path[-1]])
            if path[-1] == first:
                circle = " -> ".join(map(repr, path))
                raise ValueError(
                    f"parents must not lead back to a column; got {circle}."
                )
            if path[-1] in path[:-1]:  # another circle, which begins at its own column
                break
    return names


def with_parents(
    columns: Sequence[int], categories: Sequence[Any]
) -> tuple[list[int], list[int]]:
    """Return indices of category columns and of their parents, parents first.

    The second result has the place of the parent of each of them, or `NO_PARENT`.
    """
    places = {column.name: index for index, column in enumerate(categories)}
    levels: dict[int, int] = {}

    def level_of(index: int) -> int:
        if index not in levels:
            parent_name = categories[index].parent_name
            has_parent = parent_name in places
            levels[index] = 1 + level_of(places[parent_name]) if has_parent else 0
        return levels[index]

    for index in columns:
        level_of(index)
    ordered = sorted(levels, key=lambda index: (levels[index], index))
    parents = []
    for index in ordered:
        parent = places.get(categories[index].parent_name)
        parents.append(NO_PARENT if parent is None else ordered.index(parent))
    return ordered, parents
