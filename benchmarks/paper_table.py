"""BCE and PWiseR with every network, on real and generated impressions.

    python benchmarks/paper_table.py --save             # writes the table
    python benchmarks/paper_table.py --data engage      # prints a part of it
    python benchmarks/paper_table.py --run --jobs 2     # runs what is missing
    python benchmarks/paper_table.py --run --data rare --networks mmoe --seeds 2

The data are read from the folder that SK_PWISER_DATA names; data sets whose files are
absent are left out. Every finished fit is appended to the CSV file, and fits that it
holds are not run again, so an interrupted run continues where it stopped.

There are two blocks. In the first, "embeddings", the networks read embeddings of the
category columns and the numbers, as in the paper. In the second, "target-encoding", the
estimator adds target statistics; it has the data sets with columns of many values and
three networks.

A cell is a network on a data set. BCE and PWiseR have the same rows, seeds and
settings: the defaults of the estimator, except for at most 15 epochs and a patience of
one epoch, which bound the time, and numbers in at most 16 bins, without scores.
KuaiRand has all networks and three second tasks: `engage` (3.3 %), `long` (31 %) and
`rare`, a follow, comment or forward (0.4 %). The other data sets have three networks.
The seed selects the initial weights, the rows of early stopping and the order of the
rows; the split is fixed, so that intervals on real data do not cover the noise of the
test rows. Generated impressions are new for each seed, and their figures are
expectations over the labels.

The weight of PWiseR is chosen per data set among 0.1, 0.3 and 1, on validation rows,
with `shared_bottom`: the best AUC, averaged over the tasks and seeds. Validation rows
are the last day of the training rows on KuaiRand and 30 % of them elsewhere. The
columns of the table are BCE, the chosen weight ("tuned") and the default weight.

CTR is the first task of the funnel, CTCVR the last; the AUC of CVR is over the rows of
the first task. The calibration error (ECE) has 20 bins of equally many rows. The
grouped AUC is the mean over users with both classes, weighted by their rows. Labels may
be true probabilities: AUC and log loss are then expectations over the labels that each
row could have had.
"""

import hashlib
import os
import tempfile
import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from _harness import (
    RESULTS,
    Report,
    cvr_of,
    expected_auc,
    expected_log_loss,
    make_parser,
    parse,
)
from _tables import GENERATED, KUAIRAND, load_tables
from joblib import Parallel, delayed
from scipy import stats

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.metrics import expected_calibration_error, grouped_auc
from sk_pwiser.networks import NETWORKS

OUTPUT = RESULTS / "paper_table.csv"
SMOKE_OUTPUT = Path(tempfile.gettempdir(), "paper_table_smoke.csv")
FIRST_BLOCK, SECOND_BLOCK = "embeddings", "target-encoding"
BLOCKS = (FIRST_BLOCK, SECOND_BLOCK)
DATA = (*KUAIRAND, "hillstrom", "oulad", *GENERATED)
THREE_NETWORKS = ("shared_bottom", "mmoe", "stem")
WEIGHTS = ("0.1", "0.3", "1")
# They bound the time. The averaged weights make the validation loss smooth enough for
# a patience of one epoch.
MAX_EPOCHS, PATIENCE = 15, 1
# Each group of metrics is a table of its own.
GROUPS = (
    ("ctr_auc", "cvr_auc", "ctcvr_auc"),
    ("ctr_log_loss", "ctcvr_log_loss"),
    ("ctr_ece", "ctcvr_ece"),
    ("ctr_grouped_auc", "ctcvr_grouped_auc"),
)
METRICS = [metric for group in GROUPS for metric in group]


# ---------------------------------------------------------------- figures


def funnel_figures(y, p, users=None):
    """Return the figures of the first task (CTR), the last (CTCVR), and the CVR.

    `y` are labels, or their true probabilities. The grouped AUC is NaN without users.
    """
    clicks, deepest = y[:, 0], y[:, -1]
    clicked = clicks > 0
    among_clicks = deepest[clicked] / clicks[clicked]
    heads = {"ctr": (clicks, p[:, 0]), "ctcvr": (deepest, p[:, -1])}
    figures = {f"{head}_auc": expected_auc(*pair) for head, pair in heads.items()}
    figures["cvr_auc"] = expected_auc(among_clicks, cvr_of(p)[clicked], clicks[clicked])
    figures["mean_auc"] = np.mean(list(map(expected_auc, y.T, p.T)))
    for head, pair in heads.items():
        figures[f"{head}_log_loss"] = expected_log_loss(*pair)
        figures[f"{head}_ece"] = expected_calibration_error(*pair)
        by_user = np.nan if users is None else grouped_auc(*pair, users)
        figures[f"{head}_grouped_auc"] = by_user
    return figures


# ---------------------------------------------------------------- cells


class Cell(NamedTuple):
    """One fit: its place in the table, its loss and its seed."""

    block: str
    part: str  # "validation" or "test": the rows held out
    data: str
    network: str
    loss: str
    weight: str  # `pwiser_weight`; "" for other losses
    seed: int  # of the estimator and of generated impressions


KEY = list(Cell._fields)
TEXTS = (*KEY[:-1], "default_weight")
DEFAULT_WEIGHT = f"{MultiTaskCTRCVRClassifier().pwiser_weight:g}"


def tuning_cells(block, data, seeds):
    """Return the fits that choose the weight of a data set, on validation rows."""
    return [
        Cell(block, "validation", data, "shared_bottom", "pwiser", weight, seed)
        for seed in range(seeds)
        for weight in WEIGHTS
    ]


def test_cells(block, data, networks, weight, seeds):
    """Return the fits for the test rows: BCE, the chosen weight and the default."""
    losses = [("bce", "")]
    # The chosen weight may be the default, which is then fitted once.
    losses += [("pwiser", w) for w in dict.fromkeys([weight, DEFAULT_WEIGHT])]
    return [
        Cell(block, "test", data, network, loss, value, seed)
        for seed in range(seeds)
        for network in networks
        for loss, value in losses
    ]


def build(cell, max_epochs):
    """Return the estimator of a cell."""
    params = {"network": cell.network, "loss": cell.loss}
    params |= {"max_epochs": max_epochs, "n_iter_no_change": PATIENCE}
    if cell.weight:
        params["pwiser_weight"] = float(cell.weight)
    # The encoding of numbers that was the default when the table was begun.
    params["numeric_encoding"] = "piecewise_linear"
    params["encoding_params"] = {"max_bins": 16}
    params["target_encoding"] = "auto" if cell.block == SECOND_BLOCK else False
    return MultiTaskCTRCVRClassifier(random_state=cell.seed, **params)


def settings_of(estimator):
    """Return a short hash of the parameters that all cells share."""
    names = ("network", "loss", "pwiser_weight", "target_encoding", "random_state")
    names += ("checkpoint_dir",)  # without influence on the result
    params = estimator.get_params(deep=False)
    shared = {key: value for key, value in params.items() if key not in names}
    return hashlib.sha256(repr(sorted(shared.items())).encode()).hexdigest()[:8]


# Cells of one data set follow each other, so that a process reads its files once.
@lru_cache(maxsize=2)
def read_tables(name, path, part, seed):
    return load_tables(name, path, part, seed)


def run_cell(cell, path, max_epochs, threads=1):
    """Fit one cell and return its row of the results."""
    torch.set_num_threads(threads)
    seed_of_data = cell.seed if cell.data in GENERATED else 0
    tables = read_tables(cell.data, path, cell.part, seed_of_data)
    estimator = build(cell, max_epochs)
    settings = settings_of(estimator)
    started = time.perf_counter()
    with warnings.catch_warnings():
        # Warnings on rare conversions and on the number of epochs.
        warnings.simplefilter("ignore")
        estimator.fit(tables.X, tables.Y)
    seconds = time.perf_counter() - started
    y = tables.probabilities if tables.probabilities is not None else tables.Y_test
    p = estimator.predict_proba(tables.X_test).astype(float)
    figures = funnel_figures(np.asarray(y, dtype=float), p, tables.users)
    return {
        **cell._asdict(),
        "default_weight": DEFAULT_WEIGHT,
        "rows": len(tables.X),
        "rate": f"{tables.Y.iloc[:, -1].mean():.5f}",
        **{name: f"{value:.6f}" for name, value in figures.items()},
        "epochs": estimator.n_iter_,
        "seconds": f"{seconds:.1f}",
        "settings": settings,
    }


# ---------------------------------------------------------------- runs


def read(path):
    """Return the results, one row per cell; the last row of a cell counts."""
    rows = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, "str"), keep_default_na=True)
    rows[["weight"]] = rows[["weight"]].fillna("")
    return rows.drop_duplicates(KEY, keep="last").reset_index(drop=True)


def append(path, row):
    """Append a row, after the header if the file is new; refuse other columns."""
    is_new = not path.exists()
    header = list(row) if is_new else list(pd.read_csv(path, nrows=0))
    if header != list(row):
        raise ValueError(f"{path} has other columns than the new row: {header}")
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([row]).to_csv(path, mode="a", header=is_new, index=False)


def attempt(cell, path, max_epochs, threads):
    """Return a cell with its row, or with the message of the error."""
    try:
        return cell, run_cell(cell, path, max_epochs, threads)
    except Exception as error:  # one cell must not end a run of hours
        return cell, f"{type(error).__name__}: {error}"


def run(cells, arguments, path):
    """Run the cells that the file does not hold yet."""
    finished = set()
    if arguments.output.exists():
        keys = read(arguments.output)[KEY].itertuples(index=False)
        finished = {Cell(*key) for key in keys}
    cells = [cell for cell in cells if cell not in finished]
    started = time.perf_counter()
    work = (
        delayed(attempt)(cell, path, arguments.max_epochs, arguments.threads)
        for cell in cells
    )
    # Results arrive in the order of the cells, each as soon as it is ready.
    rows = Parallel(n_jobs=arguments.jobs, return_as="generator")(work)
    for number, (cell, row) in enumerate(rows, start=1):
        label = " ".join(str(value) for value in cell if value != "")
        found = f"failed, {row}"
        if not isinstance(row, str):
            append(arguments.output, row)
            auc_values = f"{float(row['ctr_auc']):.4f} / {float(row['ctcvr_auc']):.4f}"
            found = f"AUC {auc_values}, {row['epochs']} epochs, {row['seconds']} s"
        minutes = (time.perf_counter() - started) / 60
        left = minutes / number * (len(cells) - number)
        done = f"{minutes:.0f} min, about {left:.0f} min left"
        print(f"[{number}/{len(cells)}] {label}: {found}; {done}", flush=True)


def present_data(names, path):
    """Return the names whose files are there; print the others."""
    present = []
    for name in names:
        try:
            load_tables(name, path, "validation")
        except (FileNotFoundError, ImportError) as error:
            print(f"{name}: absent, left out ({str(error).splitlines()[0]})")
        else:
            present.append(name)
    return present


def run_all(arguments):
    """Choose the weights on validation rows, then fit for the test rows."""
    path = os.environ.get("SK_PWISER_DATA")
    names = present_data(arguments.data, path)
    # Target encoding is for columns of many values, which the other data sets lack.
    encoded = [name for name in names if name in KUAIRAND]
    for block in arguments.blocks:
        in_block = names if block == FIRST_BLOCK else encoded
        tuning = [
            cell
            for name in in_block
            for cell in tuning_cells(block, name, arguments.seeds)
        ]
        run(tuning, arguments, path)
        cells = []
        for name in in_block:
            weight = chosen_weight(read(arguments.output), block, name)
            if weight is None:
                print(f"{block}, {name}: no weight was chosen, left out")
                continue
            has_all = block == FIRST_BLOCK and name in KUAIRAND
            known = NETWORKS if has_all else THREE_NETWORKS
            networks = [n for n in known if n in arguments.networks]
            cells += test_cells(block, name, networks, weight, arguments.seeds)
        run(cells, arguments, path)


# ---------------------------------------------------------------- the table


def chosen_weight(results, block, data):
    """Return the weight with the best mean AUC on validation rows, None without any.

    The mean is over the tasks and over the seeds that all weights have in common.
    """
    query = "block == @block and data == @data and part == 'validation'"
    rows = results.query(query)
    by_weight = rows.pivot_table(index="seed", columns="weight", values="mean_auc")
    return by_weight.dropna().mean().idxmax() if len(by_weight.dropna()) else None


def interval(values):
    """Return mean and half the width of the 95 % interval, NaN for a single value."""
    n = len(values)
    if n < 2:
        return np.mean(values), np.nan
    return np.mean(values), stats.t.ppf(0.975, n - 1) * stats.sem(values)


def comparisons(results, block):
    """Compare PWiseR with BCE in every cell, with the chosen weight and the default.

    The first result maps (data, network) to DataFrames with one row per seed and one
    column per metric: the figures of "bce", and the differences of "tuned" and
    "default" to them. The second one lists the cells in which not all losses have all
    seeds of the data set.
    """
    rows = results[(results["block"] == block) & (results["part"] == "test")]
    # That of the last run: earlier versions may have had another default.
    default = results["default_weight"].iloc[-1]
    finished, others = {}, []
    for data, here in rows.groupby("data", sort=False):
        chosen = chosen_weight(results, block, data)
        for network, cell in here.groupby("network"):
            fits = cell.set_index(["weight", "seed"])[METRICS]
            bce, tuned, other = (
                fits[fits.index.get_level_values("weight") == weight].droplevel(0)
                for weight in ("", chosen, default)
            )
            tuned, other = ((x - bce).dropna(how="all") for x in (tuned, other))
            if len(tuned) == len(other) == here["seed"].nunique():
                found = {"bce": bce, "tuned": tuned, "default": other}
                finished[data, network] = found
            else:
                others.append((data, network))
    return finished, others


def title(metric):
    """Return the title of a metric, such as "CTCVR log loss"."""
    short = ("ctr", "cvr", "ctcvr", "auc", "ece")
    words = (word.upper() if word in short else word for word in metric.split("_"))
    return " ".join(words)


def print_group(report, found, metrics):
    """Print the table of some metrics, with one row per network."""
    forms = ("bce", "tuned", "default")
    report.table(f"{title(metric)}: {form}" for metric in metrics for form in forms)
    for network, cell in found.items():
        cells = []
        for metric in metrics:
            cells.append(f"{cell['bce'][metric].mean():.4f}")
            digits = 1 if metric.endswith("auc") else 2
            for form in forms[1:]:
                mean, half_width = interval(1000 * cell[form][metric])
                cells.append(f"{mean:+.{digits}f} ({half_width:.{digits}f})")
        report.row(network, cells)


def print_block(report, results, block):
    """Print the tables of a block."""
    found, unfinished = comparisons(results, block)
    default = results["default_weight"].iloc[-1]
    report.text("", f"Block {block}")
    for data in dict.fromkeys(data for data, _ in found):
        here = {network: cell for (d, network), cell in found.items() if d == data}
        bce = next(iter(here.values()))["bce"]
        chosen = chosen_weight(results, block, data)
        seeds = f"{len(bce)} seed{'s' if len(bce) > 1 else ''}"
        caption = f"{data}: weight {chosen}, default weight {default}, {seeds}"
        for metrics in GROUPS:
            if known := [m for m in metrics if bce[m].notna().any()]:
                report.text("", caption)
                print_group(report, here, known)
    if unfinished:
        cells = ", ".join(f"{network} on {data}" for data, network in unfinished)
        report.text("", f"Left out, since not all seeds have been run: {cells}.")


def summary(results, block):
    """Return a summary of a block in one line, and the cells in which PWiseR is behind.

    A cell is a network on a data set. "default never below" is the smallest mean
    difference of the default weight over the cells, of CTR or CTCVR AUC.
    """
    found, _ = comparisons(results, block)
    if not found:
        return "no cell has both losses yet", []
    pair = ["ctr_auc", "ctcvr_auc"]
    tuned, default = (
        pd.DataFrame({cell: c[which][pair].mean() for cell, c in found.items()})
        for which in ("tuned", "default")
    )
    ctr, ctcvr = tuned.loc["ctr_auc"], tuned.loc["ctcvr_auc"]
    behind = [(*cell, mean) for cell, mean in ctcvr.items() if mean <= 0]
    line = (
        f"CTCVR: pwiser ahead in {len(ctcvr) - len(behind)} of {len(ctcvr)} cells, "
        f"mean {ctcvr.mean():+.4f}; CTR: mean {ctr.mean():+.4f}; "
        f"default never below {default.min().min():+.4f}"
    )
    return line, behind


def print_table(report, results, blocks):
    """Print the whole table; the last line summarises the first block."""
    report.text(
        "Means over the seeds; tuned and default are differences to bce of the same "
        "seeds,",
        "in thousandths, with half the width of their 95 % interval in parentheses.",
    )
    blocks = [block for block in blocks if (results["block"] == block).any()]
    for block in blocks:
        print_block(report, results, block)
    first, *others = blocks
    report.text("")
    settings = results[results["block"] == first]["settings"].nunique()
    if settings > 1:
        report.text(f"Cells of {first} were run with {settings} different settings.")
    for block in others:
        report.text(f"{block}: {summary(results, block)[0]}")
    line, behind = summary(results, first)
    if behind:
        report.text(f"{first}, CTCVR not ahead in:")
        report.text(*(f"{data}, {net}: {mean:+.4f}" for data, net, mean in behind))
    report.text(line)


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.add_argument("--run", action="store_true", help="run the missing cells")
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=BLOCKS)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--max-epochs", type=int, default=MAX_EPOCHS)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the CSV file")
    parser.set_defaults(threads=1)
    arguments = parse(parser, seeds=1, max_epochs=1, output=SMOKE_OUTPUT)
    if arguments.run:
        run_all(arguments)
    if not arguments.output.exists():
        raise SystemExit(f"{arguments.output} does not exist yet: add --run")
    rows = read(arguments.output)
    rows = rows[rows["data"].isin(arguments.data)]
    report = Report("paper_table", arguments)
    print_table(report, rows, arguments.blocks)
    report.save()


if __name__ == "__main__":
    main()
