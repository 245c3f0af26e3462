"""The way of a fit: rows are read, checked and encoded, a net is built and trained."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sk_pwiser._columns._frames import reads_in_parts
from sk_pwiser._fit._encode import encode
from sk_pwiser._fit._fit_plan import FitPlan, check
from sk_pwiser._fit._learn_columns import NewColumns
from sk_pwiser._fit._time_column import take_time_column
from sk_pwiser._fit._train import train
from sk_pwiser._fit._weight_trial import try_weight
from sk_pwiser._rows._checked_rows import GivenRows
from sk_pwiser._rows._file_rows import FileRows
from sk_pwiser._rows._protocol import Rows
from sk_pwiser._rows._table_rows import read_table
from sk_pwiser._settings import Settings
from sk_pwiser._tasks._labels import Targets
from sk_pwiser._training._build_net import NetForm, build_net
from sk_pwiser._training._callbacks import FitTask
from sk_pwiser._training._encoded_data import EncodedData
from sk_pwiser._training._initial_embeddings import spread_frequent_values
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._utils._random import LARGEST_SEED, seeded_globally


def fit(
    settings: Settings,
    given_rows: GivenRows,
    eval_set: Any = None,
    *,
    task: FitTask | None = None,
    estimator_name: str,
) -> TrainingResult:
    """Train a new network on a table, or on a dataset that is read in parts.

    `_resume.py` continues an earlier fit or a checkpoint, `_update.py` is `partial_fit`
    and `_refit.py` a fit of two stages: functions of the same steps.
    """
    settings = take_time_column(settings, given_rows.X)
    with ExitStack() as stack:
        # Labels come first: a wrong one is found before the table is looked at.
        rows = read(settings, given_rows, stack)
        # Whatever can be refused is refused here, before work that takes long.
        plan = check(settings, rows, eval_set)
        # The host's part: columns, validation rows, target statistics.
        data = encode(plan, rows, NewColumns(settings, estimator_name))
        # Whether rare conversions are learnt better with a larger weight of pairs.
        data = try_weight(plan, data)
        # The sizes of the network depend on the columns.
        net = build(plan, data)
        return train(plan, data, net, task=task)


def read(
    settings: Settings,
    given_rows: GivenRows,
    stack: ExitStack,
    expected: Targets | None = None,
) -> Rows:
    """Return the rows: a table, whose labels are checked, or files.

    `expected` has the tasks of the training that this one continues. Encoded rows of
    files are in a folder that is deleted when the stack is closed.
    """
    # No context manager itself: warnings of a generator would not name the user's line.
    if not reads_in_parts(given_rows.X):
        return read_table(settings, given_rows, expected)
    dataset, *arrays = given_rows
    for name, value in zip(given_rows._fields[1:], arrays, strict=True):
        if value is not None:
            role = "targets" if name == "Y" else name
            raise ValueError(
                f"{name} must be None for a dataset, whose {role} names its columns."
            )
    folder = tempfile.TemporaryDirectory(prefix="sk_pwiser_", dir=dataset.cache_dir)
    return FileRows(settings, dataset, Path(stack.enter_context(folder)))


def build(
    plan: FitPlan,
    data: EncodedData,
    net_class: type[MultiTaskNet] = MultiTaskNet,
    n_earlier_rows: int = 0,
) -> MultiTaskNet:
    """Build the net; `n_earlier_rows` have determined its weights so far."""
    n_rows = n_earlier_rows + data.n_counted
    seed = plan.random_state.randint(LARGEST_SEED)
    with seeded_globally(seed, plan.device):
        net = build_net(
            plan.settings,
            plan.components,
            data.schema,
            plan.device,
            form=NetForm.for_fit(plan.settings, n_rows),
            epochs=data.epochs,
            n_rows=n_rows,
            base_rates=data.base_rates,
            net_class=net_class,
        )
    # With a number, the embeddings start as small as in an update.
    if plan.settings.weight_decay == "auto" and not n_earlier_rows:
        spread_frequent_values(net.module_, data)
    net.first_stage = plan.first_stage
    return net
