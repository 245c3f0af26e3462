"""What the validation rows of a fit cannot tell, for warnings."""

from sk_pwiser._fit._fit_plan import FitPlan
from sk_pwiser._rows._encoded_rows import TrainingRows
from sk_pwiser._rows._hold_out import largest_part
from sk_pwiser._training._early_stopping import usable_monitor
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._utils._warnings import warn_user


def check_validation(plan: FitPlan, data: EncodedData) -> str | None:
    """Return the figure to monitor; warn about validation rows that say little."""
    valid = data.valid
    monitor = usable_monitor(data.epochs.monitor, valid, data.schema.targets.task_names)
    if valid is not None and valid.n_missing:
        _warn_about_missing_labels(valid, data)
    if plan.components.sampler == "grouped":
        _warn_about_missing_groups(plan, data)
    if valid is not None and data.holds_out and plan.by_time:
        _warn_about_coarse_times(plan, len(data.train), len(valid))
    return monitor


def _warn_about_missing_labels(valid: TrainingRows, data: EncodedData) -> None:
    """Name the tasks of which no validation row says anything."""
    targets = data.schema.targets
    y = valid.column("y")
    is_known = valid.column("sample_weight") > 0
    unknown_tasks = []
    for task, parent in enumerate(targets.parents):
        happened = y[:, parent] == 1 if parent >= 0 else is_known.any(dim=1)
        if happened.any() and not is_known[happened, task].any():
            unknown_tasks.append(targets.task_names[task])
    if unknown_tasks:
        warn_user(
            f"None of the {len(y)} validation rows, or of those in which the task "
            f"before happened, has a label of {unknown_tasks}, which early stopping "
            "and a correction of levels by time ignore. Leave out rows whose labels "
            "are not known yet, or pass an eval_set with labels."
        )


def _warn_about_missing_groups(plan: FitPlan, data: EncodedData) -> None:
    """Name validation rows without groups, if the loss compares within them."""
    for name, rows in {**data.further, "valid": data.valid}.items():
        if rows is None or rows.spaced(1).groups is not None:
            continue
        eval_rows = plan.eval_rows.get(name)
        warn_user(
            f"In {'eval_set' if eval_rows is None else eval_rows.origin}: loss="
            f"{plan.settings.loss!r} compares rows within groups, and these rows "
            "have none: each batch is one. Pass X_val, Y_val and groups_val, or "
            "groups to ParquetImpressions."
        )


def _warn_about_coarse_times(plan: FitPlan, n_train: int, n_valid: int) -> None:
    """Say how many rows are held out, if they are not about as many as asked for."""
    share = plan.settings.validation_fraction
    n_rows = n_train + n_valid
    largest_share = max(largest_part(share), 1 / n_rows)
    if share / 2 <= n_valid / n_rows <= largest_share:
        return
    name = plan.settings.encoding_params["time_column"]
    warn_user(
        f"By time_column={name!r}, the last {n_valid} of {n_rows} rows are held out; "
        f"validation_fraction={share} asks for about {round(share * n_rows)}. Use "
        "finer times or an eval_set."
    )


def warn_about_trained(
    earlier_fit: TrainingResult, plan: FitPlan, data: EncodedData
) -> None:
    """Warn if rows may be held out that the earlier fit was trained on.

    Without `split_rows`, they are the last in time.
    """
    earlier_split = earlier_fit.split_rows
    split_rows = data.split_rows
    earlier_share = earlier_fit.settings.validation_fraction
    if earlier_fit.split_state is None or earlier_fit.used_all:
        reason = "it held out no rows"
    elif (earlier_split is None) != (split_rows is None):
        held_out = "random rows" if earlier_split else "its last rows in time"
        reason = f"it held out {held_out}"
    elif earlier_split is None or split_rows is None:
        if plan.settings.validation_fraction <= earlier_share:
            return
        reason = f"its validation_fraction was {earlier_share}"
    elif (
        earlier_split == split_rows or earlier_split["ends"] == split_rows["ends"][:-1]
    ):
        return
    else:
        reason = (
            f"its {earlier_split['ends'][-1]} rows, with equal labels, groups and "
            "validation_fraction, are not known to be the first of these "
            f"{split_rows['ends'][-1]}"
        )
    warn_user(
        "Early stopping may decide on rows that the earlier fit was trained on, since "
        f"{reason}. Pass new rows as X_val or eval_set, or set early_stopping=False."
    )
