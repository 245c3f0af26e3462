"""Results of the table of the paper: the CSV file and the table printed from it."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

AUCS = ("ctr_auc", "cvr_auc", "ctcvr_auc")
# Each group of metrics is a table of its own.
GROUPS = (
    AUCS,
    ("ctr_log_loss", "ctcvr_log_loss"),
    ("ctr_ece", "ctcvr_ece"),
    ("ctr_grouped_auc", "ctcvr_grouped_auc"),
)
KEY = ["block", "part", "data", "network", "loss", "weight", "seed"]
CELL = ["block", "data", "network"]
TEXTS = ("block", "part", "data", "network", "loss", "weight", "default_weight")


def read(path):
    """Return the results, one row per cell; the last row of a cell counts."""
    rows = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, "str"), keep_default_na=True)
    rows[["weight"]] = rows[["weight"]].fillna("")
    return rows.drop_duplicates(KEY, keep="last").reset_index(drop=True)


def append(path, row):
    """Append a row, after the header if the file is new.

    Raises
    ------
    ValueError
        If the file has other columns.
    """
    path = Path(path)
    is_new = not path.exists()
    if not is_new:
        with path.open(newline="") as file:
            header = next(csv.reader(file), [])
        if header != list(row):
            raise ValueError(f"{path} has other columns than the new row: {header}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def chosen_weight(results, block, data):
    """Return the weight with the best mean AUC on validation rows, None without any.

    The mean is over the tasks and over the seeds that all weights have in common.
    """
    rows = results[
        (results["block"] == block)
        & (results["data"] == data)
        & (results["part"] == "validation")
    ]
    if rows.empty:
        return None
    by_weight = rows.pivot_table(index="seed", columns="weight", values="mean_auc")
    return by_weight.dropna().mean().idxmax() if len(by_weight.dropna()) else None


def interval(values):
    """Return mean and half the width of the 95 % interval, NaN for a single value."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    if n < 2:
        return values.mean(), np.nan
    quantile = stats.t.ppf(0.975, n - 1)
    return values.mean(), quantile * values.std(ddof=1) / np.sqrt(n)


class Comparison:
    """BCE, PWiseR with the chosen weight and with the default, for one cell.

    Parameters
    ----------
    results : DataFrame
        The results of all cells.
    block, data, network : str
        The cell.
    """

    def __init__(self, results, block, data, network):
        rows = results[
            (results["block"] == block)
            & (results["data"] == data)
            & (results["network"] == network)
            & (results["part"] == "test")
        ].set_index("seed")
        is_bce = rows["loss"] == "bce"
        weights = rows["weight"].where(~is_bce, "")
        self.bce = rows[is_bce]
        self.weight = chosen_weight(results, block, data)
        self.tuned = rows[weights == self.weight] if self.weight else rows[:0]
        # That of the last run: earlier versions may have had another default.
        self.default_weight = results["default_weight"].iloc[-1]
        self.default = rows[weights == self.default_weight]

    def differences(self, metric, which):
        """Return the differences to BCE, one per seed that both have."""
        other = getattr(self, which)[metric]
        return (other - self.bce[metric]).dropna().sort_index()


def comparisons(results, block):
    """Return the comparisons of the finished cells, and the other cells.

    The former is a dictionary from (data, network), the latter a list of such pairs,
    both by data set, in the order of the results, and by name of the network. A cell is
    finished if all its losses have all seeds of its data set.
    """
    rows = results[(results["block"] == block) & (results["part"] == "test")]
    n_seeds = rows.groupby("data", sort=False)["seed"].nunique()
    cells = rows[["data", "network"]].drop_duplicates().sort_values("network")
    cells = cells.sort_values("data", key=n_seeds.index.get_indexer, kind="stable")
    finished, others = {}, []
    for data, network in cells.itertuples(index=False):
        found = Comparison(results, block, data, network)
        counts = [len(found.differences("ctr_auc", w)) for w in ("tuned", "default")]
        if min(counts) == n_seeds[data]:
            finished[data, network] = found
        else:
            others.append((data, network))
    return finished, others


def _cell_text(metric, found, which):
    """Return a difference to BCE in thousandths with its interval."""
    values = found.differences(metric, which)
    if values.empty:
        return "-"
    mean, half_width = interval(1000 * values)
    digits = 1 if metric.endswith("auc") else 2
    return f"{mean:+.{digits}f} ({half_width:.{digits}f})"


def _title(metric):
    """Return the title of a metric, such as "CTCVR log loss"."""
    words = metric.split("_")
    short = ("ctr", "cvr", "ctcvr", "auc", "ece")
    return " ".join(word.upper() if word in short else word for word in words)


def format_group(found, metrics):
    """Yield the lines of the table of some metrics for one data set.

    Parameters
    ----------
    found : dict
        From the name of a network to its comparison.
    metrics : tuple of str
        Columns of the results.
    """
    titles = [_title(name) for name in metrics]
    yield f"{'':<15}" + "".join(f"{title:<42}" for title in titles).rstrip()
    heads = f"{'bce':>8}{'tuned':>16}{'default':>16}  "
    yield f"{'':<15}" + (heads * len(metrics)).rstrip()
    for network, comparison in found.items():
        line = f"{network:<15}"
        for metric in metrics:
            line += f"{comparison.bce[metric].mean():>8.4f}"
            for which in ("tuned", "default"):
                line += f"{_cell_text(metric, comparison, which):>16}"
            line += "  "
        yield line.rstrip()


def format_block(results, block):
    """Yield the lines of a block."""
    found, unfinished = comparisons(results, block)
    for data in dict.fromkeys(data for data, _ in found):
        here = {network: c for (d, network), c in found.items() if d == data}
        first = next(iter(here.values()))
        seeds = max(len(c.bce) for c in here.values())
        yield ""
        yield (
            f"{data}: weight {first.weight or 'not yet chosen'}, default weight "
            f"{first.default_weight}, {seeds} seed{'s' if seeds > 1 else ''}"
        )
        for metrics in GROUPS:
            known = [m for m in metrics if first.bce[m].notna().any()]
            if known:
                yield from format_group(here, tuple(known))
    if unfinished:
        cells = ", ".join(f"{network} on {data}" for data, network in unfinished)
        yield ""
        yield f"Left out, since not all seeds have been run: {cells}."


def summary(results, block):
    """Return a summary of a block in one line, and the cells in which PWiseR is behind.

    A cell is a network on a data set. "default never below" is the smallest mean
    difference of the default weight over the cells, of CTR or CTCVR AUC.
    """
    found, _ = comparisons(results, block)
    tuned = {m: {} for m in ("ctr_auc", "ctcvr_auc")}
    lowest = []
    for cell, comparison in found.items():
        for metric, means in tuned.items():
            values = comparison.differences(metric, "tuned")
            if len(values):
                means[cell] = values.mean()
            defaults = comparison.differences(metric, "default")
            if len(defaults):
                lowest.append(defaults.mean())
    ctcvr, ctr = tuned["ctcvr_auc"], tuned["ctr_auc"]
    if not ctcvr or not lowest:
        return "no cell has both losses yet", []
    behind = [(*cell, mean) for cell, mean in ctcvr.items() if mean <= 0]
    line = (
        f"CTCVR: pwiser ahead in {len(ctcvr) - len(behind)} of {len(ctcvr)} cells, "
        f"mean {np.mean(list(ctcvr.values())):+.4f}; "
        f"CTR: mean {np.mean(list(ctr.values())):+.4f}; "
        f"default never below {min(lowest):+.4f}"
    )
    return line, behind


def format_table(results, blocks):
    """Yield the lines of the whole table; the last one summarises the first block."""
    yield (
        "Means over the seeds; tuned and default are differences to bce of the same "
        "seeds,"
    )
    yield "in thousandths, with half the width of their 95 % interval in parentheses."
    for block in blocks:
        if not (results["block"] == block).any():
            continue
        yield ""
        yield f"== {block} =="
        yield from format_block(results, block)
    first, *others = blocks
    yield ""
    settings = results[results["block"] == first]["settings"].nunique()
    if settings > 1:
        yield f"Cells of {first} were run with {settings} different settings."
    for block in others:
        if (results["block"] == block).any():
            yield f"{block}: {summary(results, block)[0]}"
    line, behind = summary(results, first)
    if behind:
        yield f"{first}, CTCVR not ahead in:"
        for data, network, mean in behind:
            yield f"  {data}, {network}: {mean:+.4f}"
    yield line
