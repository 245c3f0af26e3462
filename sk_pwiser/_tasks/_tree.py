"""Which task presupposes which: the chain of a funnel, sibling tasks, or a tree."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from sk_pwiser._utils._checks import did_you_mean

CHAIN = "chain"


def chain_parents(n_tasks: int) -> tuple[int, ...]:
    """Return the parents in a funnel: the task before each task, or -1."""
    return tuple(range(-1, n_tasks - 1))


def read_task_parents(task_parents: Any, task_names: Sequence[str]) -> tuple[int, ...]:
    """Return the index of the task that each task presupposes, -1 for none.

    `task_parents` is "chain", None, a mapping of names, or indices, of tasks, or what
    this function returned.
    """
    if isinstance(task_parents, str) and task_parents == CHAIN:
        return tuple(range(-1, len(task_names) - 1))
    if isinstance(task_parents, tuple):
        return task_parents
    if not isinstance(task_parents, Mapping | None):
        raise TypeError(
            f"task_parents must be 'chain', None or a dict; got {task_parents!r}."
        )
    parents = [-1] * len(task_names)
    for task, parent in (task_parents or {}).items():
        if parent is None or parent == -1:
            continue
        k = place_of("task_parents", task, task_names)
        k_parent = place_of("task_parents", parent, task_names)
        if k_parent >= k:
            raise ValueError(
                f"task_parents has {task_names[k_parent]!r} as the parent of "
                f"{task_names[k]!r}; a parent must stand before its task in "
                f"{list(task_names)}, the order of the columns of Y."
            )
        parents[k] = k_parent
    return tuple(parents)


def parents_by_name(
    parents: Sequence[int], names: Sequence[str]
) -> dict[str, str | None]:
    """Return the names of the parents, or None, as `task_parents_`."""
    pairs = zip(names, parents, strict=True)
    return {name: None if parent < 0 else names[parent] for name, parent in pairs}


def place_of(parameter: str, name: Any, task_names: Sequence[str]) -> int:
    """Return the index of a task that a parameter names."""
    if name in task_names:
        return task_names.index(name)
    is_index = isinstance(name, Integral) and not isinstance(name, bool)
    if is_index and 0 <= int(name) < len(task_names):
        return int(name)
    raise ValueError(
        f"{parameter} has {name!r}, which is not a task; the tasks are "
        f"{list(task_names)}.{did_you_mean(name, task_names)}"
    )


def path_to(task: int, parents: Sequence[int]) -> tuple[int, ...]:
    """Return the tasks that one presupposes, from the first on, and the task itself."""
    path = []
    while task >= 0:
        path.append(task)
        task = parents[task]
    return tuple(reversed(path))


def task_paths(parents: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the path to each task that no other one presupposes."""
    return [path_to(k, parents) for k in range(len(parents)) if k not in parents]
