"""Names of the tasks: given by the user, by the columns of Y, or by default."""


def check_distinct(label, names):
    """Raise if names of tasks are not strings or not distinct.

    Parameters
    ----------
    label : str
        Description of the names, for messages.
    names : sequence of str or None
        The names.

    Raises
    ------
    TypeError
        If a name is not a string.
    ValueError
        If two names are equal.
    """
    names = [] if names is None else list(names)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"{label} must be strings; got {names}.")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(
            f"{label} must be distinct; {repeated[0]!r} occurs "
            f"{names.count(repeated[0])} times."
        )


def choose_task_names(n_tasks, task_names, columns, default_names):
    """Return the names of the tasks: the first of three lists that is not None.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    task_names : sequence of str or None
        Names given by the user.
    columns : list of str or None
        Names of the columns of the labels.
    default_names : sequence of str or None
        Names to use if there are no others; None stands for "click" and "conversion"
        for two tasks, and "task_0", "task_1", ... otherwise.

    Returns
    -------
    tuple of str

    Raises
    ------
    ValueError
        If `task_names` has another length than `n_tasks`, or if a name is that of
        another column of the history.
    """
    if task_names is not None and len(task_names) != n_tasks:
        raise ValueError(
            f"Y has {n_tasks} columns, but task_names has {len(task_names)} names: "
            f"{list(task_names)}."
        )
    for names in (task_names, columns, default_names):
        if names is not None:
            names = tuple(map(str, names))
            _check_unreserved(names)
            return names
    if n_tasks == 2:
        return ("click", "conversion")
    return tuple(f"task_{k}" for k in range(n_tasks))


def _check_unreserved(names):
    """Raise if the figures of two tasks would have the same name in the history.

    It has the columns "valid_auc_mean" and "valid_auc_<task>" and, for each of them,
    one that ends with "_best".
    """
    if len(names) == 1:
        return
    reserved = {"mean", "mean_best", *(f"{name}_best" for name in names)}
    for name in names:
        if name in reserved:
            raise ValueError(
                f"A task must not have the name {name!r}: the column "
                f"'valid_auc_{name}' of the history is another figure. Rename the "
                "column of Y, or pass other task_names."
            )
