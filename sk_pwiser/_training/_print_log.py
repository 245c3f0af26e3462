"""The table of figures that training prints, one line per epoch."""

import sys
from collections.abc import Iterable
from typing import Any

from skorch.callbacks import PrintLog


def epoch_table(criterion: Any, task_names: Iterable[str]) -> "EpochTable":
    """Return the table of a net with this criterion."""
    # Figures of the loss and weights would make the table too wide.
    names = [*criterion.loss.pop_epoch_record(), *criterion.weight_names]
    unprinted = [f"{part}_{name}" for part in ("train", "valid") for name in names]
    return EpochTable(task_names, keys_ignored=unprinted)


class EpochTable(PrintLog):  # type: ignore[misc]
    """skorch's table, with the tasks in the order of the funnel and then their mean.

    skorch sorts the columns by name. It marks the best figures by colours, which are
    left out if the output is not a terminal: a log file would contain their codes.

    Parameters
    ----------
    task_names : sequence of str
        Names of the tasks.
    keys_ignored : sequence of str
        Columns of the history that are not printed.
    """

    def __init__(
        self, task_names: Iterable[str] = (), keys_ignored: Iterable[str] = ()
    ) -> None:
        super().__init__(keys_ignored=keys_ignored)
        self.task_names = task_names

    def _sorted_keys(self, keys: Iterable[str]) -> list[str]:
        """Return the columns: losses, AUC per task and mean, then all others."""
        aucs = [f"valid_auc_{name}" for name in (*self.task_names, "mean")]
        first = ["epoch", "train_loss", "valid_loss", *aucs]
        others: list[str] = super()._sorted_keys(keys)
        found = [key for key in dict.fromkeys(first) if key in others]
        return [*found, *(key for key in others if key not in found)]

    def table(self, row: dict[str, Any]) -> str:
        """Return the table of one epoch."""
        if not sys.stdout.isatty():
            # Without these flags, no figure is marked.
            row = {k: v for k, v in row.items() if not k.endswith("_best")}
        table: str = super().table(row)
        return table
