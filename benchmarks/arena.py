"""The arena: this package and others on the same frozen tables, on one version.

    pip install ".[benchmark]"
    SK_PWISER_DATA=/path/to/data python benchmarks/arena.py --save
    python benchmarks/arena.py --tables hillstrom --models LightGBM --seeds 1
    python benchmarks/arena.py --report-only --save

Every run is one table, one model and one seed. Its predictions of the test rows are
kept in a folder (`--runs`), with the versions of what made them, so that the command
goes on where it was interrupted, and repeats only what another version made. `--workers
2` runs two models at a time, each with one thread. The tables are computed from all
runs.

Protocol
--------
- Tables (`_arena_tables.py`): KuaiRand with three second labels, MovieLens, InstEval
  and a generated log with drift in the order of time, the first three logs also with
  columns of the past; OULAD, whose test part is the last course run; Hillstrom,
  flights, adult and generated impressions with 0.5 % conversions, in no order. Splits
  are fixed. No model reads the test part before its last prediction.
- Models (`_arena_models.py`): this estimator with its defaults and with loss="bce";
  boosted trees plain, with small leaves and without ids most of whose values are new,
  and with the target statistics of all tasks; logistic regression; torch-rechub; TabM
  and RealMLP on tables of at most 50,000 training rows. For this estimator and
  LightGBM, also the best of eight settings on validation rows.
- Validation rows are the last tenth of the training rows where there are times, and a
  random tenth elsewhere (torch-rechub: always random).
- Five seeds, or as many as the command says (`--seeds` and, for models of other
  packages, `--peer-seeds`), and one for the searches and for TabM and RealMLP, which
  train for many minutes, and for logistic regression, which has none; where there are
  times, those of LightGBM are equal, since the rows decide. A table of results counts
  the seeds of each model that are there: CatBoost, which trains for minutes, may have
  fewer.
- A figure is the mean over the seeds. The error of a difference has two parts: the
  spread of the differences over the seeds, and that of the test rows, which are drawn
  by units: users where there are some, rows elsewhere.
- "level" is a difference within two of these errors. The tables on which this package
  is behind come first.

The seconds are those of the processor, with one thread; the memory is the peak of a fit
above what was held before. "pred/obs" is the mean of the predictions of the last task
over the rate of its events.
"""

import ast
import hashlib
import itertools
import json
import multiprocessing
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from _arena_models import LARGEST_OF_PYTABKIT, MODELS, OF_PYTABKIT, ONE_SEED, OWN
from _arena_tables import TABLES
from _harness import (
    PeakMemory,
    begin,
    cvr_of,
    expected_auc,
    limit_threads,
    make_parser,
    processor_time,
    rates_of,
    seeds_of,
)

import sk_pwiser

SMALLEST_P = 1e-7
# What makes the runs of other packages: their settings, and their versions.
PEER_FILES = ("_arena_models.py", "_arena_tables.py", "_peers.py", "_tables.py")
PEER_PACKAGES = {
    "LightGBM": "lightgbm",
    "CatBoost": "catboost",
    "XGBoost": "xgboost",
    "logistic": "scikit-learn",
    "torch-rechub": "torch-rechub",
    "TabM": "pytabkit",
    "RealMLP": "pytabkit",
}
# Models whose settings a search on validation rows chose.
SEARCHED = tuple(name for name in MODELS if name.endswith("best of 8"))
# How far behind the best rival the last task may be on any table.
LARGEST_LOSS = 0.005
FIGURES = ("last AUC", "first AUC", "CVR AUC", "log loss")
# The figures whose best rival is named; more names would make the table too wide.
WITH_NAME = ("last AUC", "first AUC")
# The facts of a run that are its cost, with the titles of their columns.
COSTS = {"fit": "fit, s", "predict": "predict, s", "MiB": "MiB"}
# What is measured below these is noise: of clocks, and of pages of memory.
SMALLEST_COST = {"fit": 0.01, "predict": 0.01, "MiB": 1.0}
# The model whose cost is 1 in the table of costs.
OF_COST = "LightGBM"


# ---------------------------------------------------------------- runs


def digest_of(files):
    """Return a short digest of the contents of files."""
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


@cache
def digest_of_code(folder):
    """Return a short digest of the code below a folder, whatever its docstrings say."""
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*.py")):
        code = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(code):
            if is_docstring(node):
                node.value.value = ""
        digest.update(file.name.encode())
        digest.update(ast.unparse(code).encode())
    return digest.hexdigest()[:16]


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def version_of(model_name):
    """Return what identifies the code that makes a run."""
    here = Path(__file__).parent
    settings = digest_of(here / name for name in PEER_FILES)
    if model_name in OWN:
        package = Path(sk_pwiser.__file__).parent
        return f"{sk_pwiser.__version__}-{digest_of_code(package)}"
    [package] = {
        package
        for prefix, package in PEER_PACKAGES.items()
        if model_name.startswith(prefix)
    }
    try:
        return f"{package} {version(package)}-{settings}"
    except PackageNotFoundError:
        return f"{package} is not installed"


class Runs:
    """The folder of the runs."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def path(self, table, model, seed):
        name = f"{table}-{model}-{seed}.npz".replace(" ", "_").replace("%", "percent")
        return self.folder / name.replace(",", "")

    def read(self, table, model, seed):
        """Return a run of the version of today, or None."""
        path = self.path(table, model, seed)
        if not path.exists():
            return None
        with np.load(path) as file:
            facts = json.loads(str(file["facts"]))
            if facts["version"] != version_of(model):
                return None
            return facts | {"p": file["p"]}

    def write(self, table, model, seed, *, p, facts):
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(table, model, seed)
        unfinished = path.with_suffix(".part.npz")
        np.savez_compressed(unfinished, p=p, facts=json.dumps(facts))
        unfinished.replace(path)


def can_run(table_name, model_name):
    """Return whether the packages of a model are installed, and its table small."""
    is_installed = "not installed" not in version_of(model_name)
    if model_name not in OF_PYTABKIT:
        return is_installed
    return is_installed and len(TABLES[table_name]().X) <= LARGEST_OF_PYTABKIT


def do_runs(table_name, model_name, seeds, folder):
    """Fit a model to a table with some seeds, and write the runs."""
    warnings.simplefilter("ignore")
    table = TABLES[table_name]()
    runs = Runs(folder)
    for seed in seeds:
        model = MODELS[model_name](seed)
        with PeakMemory() as memory:
            fit_seconds, _ = processor_time(model.fit, table.X, table.Y)
        predict_seconds, p = processor_time(model.predict_proba, table.X_test)
        facts = {
            "version": version_of(model_name),
            "fit": fit_seconds,
            "predict": predict_seconds,
            "MiB": memory.n_bytes / 2**20,
            "epochs": float(np.mean(getattr(model, "n_iter_", np.nan))),
            "choice": getattr(model, "choice_", ""),
        }
        runs.write(
            table_name, model_name, seed, p=np.asarray(p, dtype=np.float32), facts=facts
        )
    return table_name, model_name


def seeds_of_model(model_name, arguments):
    """Return the seeds of a model: all, or the first ones."""
    seeds = list(seeds_of(arguments))
    if model_name in (*ONE_SEED, *SEARCHED):
        return seeds[:1]
    return seeds if model_name in OWN else seeds[: arguments.peer_seeds]


def do_missing_runs(arguments):
    """Do the runs that the folder lacks, or that another version made."""
    runs = Runs(arguments.runs)
    missing = {}
    for model, table in itertools.product(arguments.models, arguments.tables):
        seeds = [
            seed
            for seed in seeds_of_model(model, arguments)
            if runs.read(table, model, seed) is None
        ]
        if seeds and can_run(table, model):
            missing[table, model] = seeds
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        arguments.workers,
        mp_context=context,
        initializer=limit_threads,
        initargs=(1,),
        max_tasks_per_child=1,  # each has the memory of a fresh process
    ) as pool:
        jobs = {
            pool.submit(do_runs, table, model, seeds, arguments.runs): (table, model)
            for (table, model), seeds in missing.items()
        }
        for n_done, job in enumerate(as_completed(jobs), 1):
            table, model = jobs[job]
            error = job.exception()
            result = "done" if error is None else f"failed: {error!r}"
            print(f"{n_done} of {len(jobs)}: {table}, {model}: {result}", flush=True)


# ---------------------------------------------------------------- figures


def auc_and_shares(y, p):
    """Return the AUC, and how much each row moves it (DeLong et al., 1988).

    The mean of the shares is 0; the variance of their sum over units, divided by the
    squared number of rows, is that of the AUC.
    """
    y = np.asarray(y) == 1
    order = np.argsort(p, kind="stable")
    sorted_p = p[order]
    first = np.searchsorted(sorted_p, p, side="left")
    last = np.searchsorted(sorted_p, p, side="right")
    n_events_below = np.concatenate([[0], np.cumsum(y[order])])
    events_below = (n_events_below[first] + n_events_below[last]) / 2
    rows_below = (first + last) / 2
    n_events = y.sum()
    n_others = len(y) - n_events
    auc = expected_auc(y.astype(float), p)
    share_of_others_below = (rows_below - events_below) / n_others
    share_of_events_above = 1 - events_below / n_events
    shares = np.where(
        y,
        (share_of_others_below - auc) * len(y) / n_events,
        (share_of_events_above - auc) * len(y) / n_others,
    )
    return auc, shares


def loss_and_shares(Y, p):
    """Return the log loss averaged over the tasks, and how much each row moves it."""
    Y = np.asarray(Y, dtype=float)
    p = np.clip(p, SMALLEST_P, 1 - SMALLEST_P)
    losses = -(Y * np.log(p) + (1 - Y) * np.log1p(-p)).mean(axis=1)
    return losses.mean(), losses - losses.mean()


def figures_of_rows(Y, p):
    """Return the figures that the arena compares, with the shares of the rows."""
    Y = np.asarray(Y)
    p = np.asarray(p, dtype=float)
    clicked = Y[:, 0] == 1
    cvr_auc, cvr_shares = auc_and_shares(Y[clicked, -1], cvr_of(p)[clicked])
    # The other rows do not move the AUC of the CVR.
    of_all_rows = np.zeros(len(Y))
    of_all_rows[clicked] = cvr_shares * len(Y) / clicked.sum()
    return {
        "first AUC": auc_and_shares(Y[:, 0], p[:, 0]),
        "last AUC": auc_and_shares(Y[:, -1], p[:, -1]),
        "CVR AUC": (cvr_auc, of_all_rows),
        "log loss": loss_and_shares(Y, p),
    }


def error_of_units(shares, units):
    """Return the standard error of a mean whose rows are drawn by units."""
    sums = np.bincount(units, weights=shares)
    n_units = len(sums)
    return np.sqrt(n_units / (n_units - 1) * np.sum(sums**2)) / len(shares)


def error_of_seeds(values):
    """Return the standard error of a mean over seeds."""
    n_seeds = len(values)
    return np.std(values, ddof=1) / np.sqrt(n_seeds) if n_seeds > 1 else 0.0


class Entry:
    """What the runs of a model on a table say."""

    def __init__(self, table, runs):
        self.runs = runs
        of_seeds = [figures_of_rows(table.Y_test, run["p"]) for run in runs]
        self.values = {
            name: np.array([figures[name][0] for figures in of_seeds])
            for name in of_seeds[0]
        }
        self.shares = {
            name: np.mean([figures[name][1] for figures in of_seeds], axis=0)
            for name in of_seeds[0]
        }
        rate = np.asarray(table.Y_test)[:, -1].mean()
        self.pred_obs = np.mean([run["p"][:, -1].mean() for run in runs]) / rate

    def mean(self, figure):
        return self.values[figure].mean()

    def median(self, fact):
        return np.median([run[fact] for run in self.runs])

    def difference(self, other, figure, units):
        """Return the difference to another model, and its standard error."""
        ours, theirs = self.values[figure], other.values[figure]
        if len(ours) == len(theirs):
            variance_of_seeds = error_of_seeds(ours - theirs) ** 2
        else:
            variance_of_seeds = error_of_seeds(ours) ** 2 + error_of_seeds(theirs) ** 2
        of_rows = error_of_units(self.shares[figure] - other.shares[figure], units)
        return ours.mean() - theirs.mean(), np.sqrt(variance_of_seeds + of_rows**2)


def is_better(figure):
    """Return the sign by which a larger figure is better."""
    return -1 if figure == "log loss" else 1


# ---------------------------------------------------------------- tables of results


def report_table(report, name, table, entries):
    """Print the figures of all models on a table."""
    n_units = len(np.unique(table.units))
    report.text(
        "",
        f"{name}: {len(table.X):,} training rows, {len(table.X_test):,} test rows of "
        f"{n_units:,} units, {table.X.shape[1]} columns;",
        f"{rates_of(table.Y)}",
    )
    report.table([*FIGURES, "pred/obs", *COSTS.values(), "seeds"])
    for model, entry in entries.items():
        cells = []
        for figure in FIGURES:
            values = entry.values[figure]
            deviation = f" ({np.std(values, ddof=1):.4f})" if len(values) > 1 else ""
            cells.append(f"{values.mean():.4f}{deviation}")
        cells += [f"{entry.pred_obs:.2f}"]
        cells += [f"{entry.median(fact):.1f}" for fact in ("fit", "predict")]
        cells += [f"{entry.median('MiB'):.0f}", str(len(entry.runs))]
        report.row(model, cells)
    chosen = {
        model: sorted({run["choice"] for run in entry.runs})
        for model, entry in entries.items()
        if entry.runs[0]["choice"]
    }
    for model, choices in chosen.items():
        report.text(f"{model}: {', '.join(choices)}")


def report_summary(report, own, all_entries, tables):
    """Print the differences between a model of this package and the best rivals.

    The tables on which the model is behind in a figure come first.
    """
    comparisons = {
        name: compare_with_best(own, entries, tables[name].units)
        for name, entries in all_entries.items()
        if own in entries and rivals_of(own, entries)
    }
    report.text("", f"Differences of {own} to the best of the others (two errors)")
    titles = ["behind in"]
    for figure in FIGURES:
        titles.append(figure)
        if figure in WITH_NAME:
            titles.append(f"{figure}, best")
    report.table(titles)
    if not comparisons:
        report.text("no runs")
        return
    by_last_task = sorted(
        comparisons, key=lambda name: comparisons[name]["last AUC"].gain
    )
    for behind, heading in (
        (True, "behind in a figure by more than two errors"),
        (False, "level or ahead in all figures"),
    ):
        names = [n for n in by_last_task if bool(behind_in(comparisons[n])) == behind]
        if names:
            report.text(heading)
        for name in names:
            cells = [", ".join(behind_in(comparisons[name])) or "-"]
            for figure, comparison in comparisons[name].items():
                two_errors = 2 * comparison.error
                cells += [f"{comparison.difference:+.4f} ({two_errors:.4f})"]
                if figure in WITH_NAME:
                    cells += [comparison.rival]
            report.row(name, cells)
    for figure in FIGURES:
        report.text(verdict(figure, [of[figure] for of in comparisons.values()]))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A figure of a model, less that of its best rival."""

    rival: str
    difference: float
    gain: float  # the difference, with the sign by which more is better
    error: float  # of the difference

    @property
    def is_ahead(self):
        return self.gain > 2 * self.error

    @property
    def is_behind(self):
        return self.gain < -2 * self.error


def rivals_of(own, entries):
    """Return the models of other packages; a search is a rival of a search only."""
    return [
        model
        for model in entries
        if model not in OWN and (own in SEARCHED or model not in SEARCHED)
    ]


def compare_with_best(own, entries, units):
    """Return, for each figure, the comparison of a model with its best rival."""
    comparisons = {}
    for figure in FIGURES:
        sign = is_better(figure)
        values = {
            model: sign * entries[model].mean(figure)
            for model in rivals_of(own, entries)
        }
        rival = max(values, key=values.get)
        difference, error = entries[own].difference(entries[rival], figure, units)
        comparisons[figure] = Comparison(
            rival=rival, difference=difference, gain=sign * difference, error=error
        )
    return comparisons


def behind_in(comparisons):
    """Return the figures in which a model is behind its best rival."""
    return [figure for figure, of in comparisons.items() if of.is_behind]


def verdict(figure, comparisons):
    """Return a line with the numbers of tables on which a model is ahead and behind."""
    n_tables = len(comparisons)
    ahead = sum(comparison.is_ahead for comparison in comparisons)
    behind = sum(comparison.is_behind for comparison in comparisons)
    far = sum(comparison.gain < -LARGEST_LOSS for comparison in comparisons)
    return (
        f"{figure}: ahead on {ahead}, level on {n_tables - ahead - behind}, "
        f"behind on {behind} of {n_tables} tables; "
        f"more than {LARGEST_LOSS} behind on {far}"
    )


def report_cost(report, all_entries):
    """Print the times and the memory of the models as ratios to those of one model."""
    report.text(
        "",
        f"Cost relative to {OF_COST} on the same table: "
        "geometric mean over the tables (smallest-largest)",
    )
    report.table(["tables", "fit", "predict", "memory"])
    with_base = [entries for entries in all_entries.values() if OF_COST in entries]
    for model in MODELS:
        pairs = [
            (entries[model], entries[OF_COST])
            for entries in with_base
            if model in entries
        ]
        if pairs:
            cells = [range_of(ratios_of(fact, pairs)) for fact in COSTS]
            report.row(model, [str(len(pairs)), *cells])


def ratios_of(fact, pairs):
    """Return the ratios of the medians of a fact of pairs of entries."""
    smallest = SMALLEST_COST[fact]
    return np.array(
        [
            max(entry.median(fact), smallest) / max(base.median(fact), smallest)
            for entry, base in pairs
        ]
    )


def range_of(ratios):
    """Return the geometric mean of ratios, with the smallest and the largest."""
    mean = np.exp(np.log(ratios).mean())
    return f"{mean:.2f} ({ratios.min():.2f}-{ratios.max():.2f})"


def report_all(report, arguments):
    """Print all tables from the runs."""
    runs = Runs(arguments.runs)
    tables = {}
    all_entries = {}
    for name in arguments.tables:
        tables[name] = TABLES[name]()
        entries = {}
        for model in arguments.models:
            seeds = seeds_of_model(model, arguments)
            done = [runs.read(name, model, seed) for seed in seeds]
            done = [run for run in done if run is not None]
            if done:
                entries[model] = Entry(tables[name], done)
        all_entries[name] = entries
    for own in OWN:
        report_summary(report, own, all_entries, tables)
    report_cost(report, all_entries)
    for name, entries in all_entries.items():
        if entries:
            report_table(report, name, tables[name], entries)


def main():
    parser = make_parser(__doc__, seeds=5, tables=TABLES, models=MODELS, device=False)
    parser.add_argument("--runs", default=".arena", help="the folder of the runs")
    parser.add_argument("--peer-seeds", type=int, help="seeds of the other packages")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report-only", action="store_true", help="do no runs")
    quick = {
        "tables": ["hillstrom"],
        "models": ["sk_pwiser, bce", "LightGBM"],
        "seeds": 1,
    }
    arguments, report = begin("arena", parser, **quick)
    if not arguments.report_only:
        do_missing_runs(arguments)
    report_all(report, arguments)


if __name__ == "__main__":
    main()
