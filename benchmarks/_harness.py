"""The harness of the benchmarks: command line, timing, memory, figures and tables.

Runs that are compared alternate within a round, in a random order for each round. A
figure of speed is the median over the rounds of the ratio within a round, followed by
the quartiles, so that other load on the machine affects both sides equally. A figure of
AUC is a mean over seeds, followed by the standard deviation, or a mean difference with
the same seeds, followed by its standard error.
"""

import argparse
import ast
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score
from skorch.callbacks import Callback
from threadpoolctl import threadpool_limits

from sk_pwiser import __version__

MIB, GIB = 2**20, 2**30
PACKAGES = ("torch", "numpy", "scikit-learn", "skorch", "pandas")
RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"


# ---------------------------------------------------------------- the command line


def make_parser(
    description, rounds=None, *, seeds=None, device=True, part=None, **choices
):
    """Return a parser with the options that the benchmarks share.

    A benchmark of speed has rounds, and runs on CUDA, too, if `device` is true; one of
    AUC has seeds. `part` is the part of the rows that is held out by default. Each of
    the `choices` is an option that takes some of these names, by default all.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(device="cpu" if rounds else "auto")
    if rounds and device:
        parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds)
    if seeds:
        parser.add_argument("--seeds", type=int, default=seeds)
        parser.add_argument("--first-seed", type=int, default=0)
    if part:
        parser.add_argument("--part", choices=["test", "validation"], default=part)
    for name, known in choices.items():
        parser.add_argument(f"--{name}", nargs="+", choices=known, default=list(known))
    parser.add_argument("--threads", type=int, help="default: the number set in torch")
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument(
        "--save",
        type=Path,
        nargs="?",
        const=RESULTS,
        metavar="PATH",
        help="write the tables to a file .json, or in a folder (default: docs/results)",
    )
    parser.add_argument(
        "--add", action="store_true", help="keep the tables that the file already has"
    )
    return parser


def count(text):
    """Read a number of rows, such as 1e6."""
    return int(float(text))


def literal(text):
    """Read a Python literal, or return a word as it is."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def literal_pairs(texts):
    """Read NAME=VALUE pairs; values are Python literals or words."""
    pairs = (text.partition("=") for text in texts)
    return {name: literal(value) for name, _, value in pairs}


def seeds_of(arguments):
    return range(arguments.first_seed, arguments.first_seed + arguments.seeds)


def begin(name, parser, **quick):
    """Return the arguments, as from `parse`, and the report of that name.

    The report is saved at the end of the program.
    """
    arguments = parse(parser, **quick)
    report = Report(name, arguments)
    atexit.register(report.save)
    return arguments, report


def parse(parser, **quick):
    """Parse the command line, and set the number of threads; exit without the device.

    `quick` has the values, in a smoke run, of arguments that are not given.
    """
    arguments = parser.parse_args()
    for key, value in quick.items():
        if arguments.quick and getattr(arguments, key) == parser.get_default(key):
            setattr(arguments, key, value)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda, but torch finds no CUDA here.")
    if arguments.threads is None:
        arguments.threads = torch.get_num_threads()
    limit_threads(arguments.threads)
    return arguments


def limit_threads(threads):
    """Set the number of threads of torch, numpy's matrix products and OpenMP."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def data_folder():
    """Return the folder of the data sets; exit if SK_PWISER_DATA is not set."""
    path = os.environ.get("SK_PWISER_DATA")
    if not path:
        raise SystemExit("Set SK_PWISER_DATA to the folder of the data sets.")
    return path


def describe(arguments):
    """Return the device, its load and the versions of the packages."""
    is_cuda = arguments.device == "cuda" or (
        arguments.device == "auto" and torch.cuda.is_available()
    )
    return {
        "device": torch.cuda.get_device_name() if is_cuda else cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": arguments.threads,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sk_pwiser": __version__,
        **{package: version(package) for package in PACKAGES},
    }


def cpu_name():
    """Return the name of the processor, or its architecture if it is unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1) if found else platform.machine()


def require(name, package, command='pip install ".[benchmark]"'):
    """Import a module of an optional package, or raise with the command."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{package} is not installed: {command}") from error


# ---------------------------------------------------------------- time


def synchronize(device):
    """Wait until the device has finished its work."""
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def interleave(runs, rounds, device="cpu", warm_ups=1):
    """Return the seconds of runs, {name: {part: per round}}; "all" is the whole run.

    The runs are functions by name, and alternate within a round, in random order. They
    return None, or a dict of the seconds of parts of the run.
    """
    times = {name: [] for name in runs}
    for turn in range(rounds + warm_ups):
        for name in random.Random(turn).sample(list(runs), len(runs)):
            synchronize(device)
            started = time.perf_counter()
            parts = runs[name]() or {}
            synchronize(device)
            elapsed = {"all": time.perf_counter() - started, **parts}
            if turn >= warm_ups:
                times[name].append(elapsed)
    return {
        name: {part: np.array([row[part] for row in rows]) for part in rows[0]}
        for name, rows in times.items()
    }


def processor_time(function, *arguments, **params):
    """Return the processor's seconds of a call, and its result."""
    started = time.process_time()
    result = function(*arguments, **params)
    return time.process_time() - started, result


class EpochClock(Callback):
    """Record the seconds of each epoch on the processor, whatever else runs there."""

    def on_train_begin(self, net, **kwargs):
        self.seconds = []

    def on_epoch_begin(self, net, **kwargs):
        self.started = time.process_time()

    def on_epoch_end(self, net, **kwargs):
        self.seconds.append(time.process_time() - self.started)


def repeated(run, times):
    """Return a function that runs several times."""

    def runs():
        for _ in range(times):
            run()

    return runs


# ---------------------------------------------------------------- memory


def in_fresh_process(function, *arguments, threads):
    """Call a function in a new process with a given number of threads.

    It raises if the process is killed, for example because memory ran out.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        1, mp_context=context, initializer=limit_threads, initargs=(threads,)
    ) as pool:
        return pool.submit(function, *arguments).result()


def in_turns(function, cases, arguments):
    """Call a function in new processes; return its results, {label: one per round}.

    `cases` are its arguments by label. Every other round has them in reverse.
    """
    found = {label: [] for label in cases}
    for turn in range(arguments.rounds):
        for label in [*cases][:: 1 if turn % 2 else -1]:
            run = in_fresh_process(function, *cases[label], threads=arguments.threads)
            found[label].append(run)
    return found


class PeakMemory:
    """Measure the peak of memory in a `with` block, above the memory held before it.

    On CUDA the peak is torch's own count. On a CPU it is the peak of resident memory,
    which Linux can reset before the block. On other systems it is the peak of the whole
    process: run the block in a new process in which nothing else needs much memory.
    """

    def __init__(self, device="cpu"):
        self.is_cuda = str(device).startswith("cuda")

    def __enter__(self):
        if self.is_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            _release_free_memory()
            with contextlib.suppress(OSError):  # not Linux, or no permission
                Path("/proc/self/clear_refs").write_text("5")
            self.before = peak_bytes()
        return self

    def __exit__(self, *exception):
        peak = torch.cuda.max_memory_allocated() if self.is_cuda else peak_bytes()
        self.n_bytes = peak - self.before


def _release_free_memory():
    """Return free memory to the system, if glibc is used.

    Otherwise a block could reuse memory of earlier blocks, which would hide its peak.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak_bytes():
    """Return the peak of resident memory of this process."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) * 1024
    except (OSError, AttributeError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


# ---------------------------------------------------------------- figures


def aucs(Y, p):
    """Return the AUC of each task."""
    return [roc_auc_score(*pair) for pair in zip(np.asarray(Y).T, p.T, strict=True)]


def expected_auc(y, p, weights=1.0):
    """Return the ROC AUC, NaN for one class; `y` are labels or their probabilities.

    Given probabilities, it is that of each row with both labels, weighted by them.
    """
    labels = np.repeat([1, 0], len(y))
    both = np.concatenate([weights * y, weights * (1 - y)])
    present = both > 0
    if len(np.unique(labels[present])) < 2:
        return np.nan
    p = np.tile(p, 2)[present]
    return roc_auc_score(labels[present], p, sample_weight=both[present])


def expected_log_loss(y, p):
    """Return the mean cross-entropy; `y` are labels or their probabilities."""
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return -np.mean(y * np.log(p) + (1 - y) * np.log1p(-p))


def mean_log_loss(Y, p):
    """Return the log loss, averaged over the tasks."""
    pairs = zip(np.asarray(Y).T, p.T, strict=True)
    return np.mean([log_loss(y, q, labels=[0, 1]) for y, q in pairs])


def cvr_of(p):
    """Return P(last task | first task), as `predict_cvr` does."""
    return np.minimum(p[:, -1] / np.maximum(p[:, 0], 1e-12), 1)


def figures_of(Y, p):
    """Return the AUC of each task, the AUC of the CVR, and the log loss."""
    Y = np.asarray(Y)
    clicked = Y[:, 0] == 1
    cvr_auc = roc_auc_score(Y[clicked, -1], cvr_of(p)[clicked])
    return [*aucs(Y, p), cvr_auc, mean_log_loss(Y, p)]


def spread(values, digits=4, sign=""):
    """Return the mean, followed by the standard deviation; "-" for NaN."""
    values = np.asarray(values, dtype=float)
    if np.isnan(values).any():
        return "-"
    deviation = f" ({values.std(ddof=1):.{digits}f})" if len(values) > 1 else ""
    return f"{values.mean():{sign}.{digits}f}{deviation}"


def rates_of(Y, digits=1):
    """Return the share of events of each task, as a text."""
    return ", ".join(f"{task} {rate:.{digits}%}" for task, rate in Y.mean().items())


def in_thousandths(differences):
    """Return a mean difference, followed by its standard error, in thousandths."""
    differences = 1000 * np.asarray(differences)
    n = len(differences)
    error = differences.std(ddof=1) / np.sqrt(n) if n > 1 else 0.0
    return f"{differences.mean():+.1f} ({error:.1f})"


def with_changes(values, base):
    """Return two cells per column: `spread`, and its change `in_thousandths`.

    The rows of the values, and of those that they are compared with, are seeds.
    """
    changes = np.subtract(values, base)
    pairs = zip(np.transpose(values), changes.T, strict=True)
    return [cell for v, change in pairs for cell in (spread(v), in_thousandths(change))]


def quartiles(ratios, digits=2):
    """Return the median, followed by the quartiles."""
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


class Target(NamedTuple):
    """The target of a figure: an upper or a lower bound."""

    value: float
    is_lower: bool

    def verdict(self, figure):
        is_met = figure >= self.value if self.is_lower else figure <= self.value
        bound = "at least" if self.is_lower else "at most"
        return f"{bound} {self.value:g}: {'met' if is_met else 'missed'}"


at_least, at_most = partial(Target, is_lower=True), partial(Target, is_lower=False)


# ---------------------------------------------------------------- tables


class Report:
    """The tables of a benchmark, printed line by line, and kept for a JSON file.

    The file is a list of parts: the command and the machine ("source"), texts, and
    tables with a caption, the titles of the columns and the rows. A row is a list of
    cells, or a text across the table. `name` is that of the file of the results. It is
    also written whenever another part begins, so that a long run keeps its tables.
    """

    def __init__(self, name, arguments):
        path = arguments.save
        is_file = path is not None and path.suffix == ".json"
        self.path = path if path is None or is_file else path / f"{name}.json"
        self.earlier = []
        if arguments.add and path is not None and self.path.exists():
            self.earlier = json.loads(self.path.read_text(encoding="utf-8"))
        folder_of_runs = getattr(arguments, "runs", None)
        unsaid = ("--save", str(path), "--add", "--runs", str(folder_of_runs))
        given = [text for text in sys.argv[1:] if text not in unsaid]
        script = Path(sys.argv[0]).name
        about = describe(arguments)
        source = [
            f"$ python benchmarks/{script} {shlex.join(given)}".rstrip(),
            ", ".join(f"{key} {value}" for key, value in about.items()),
        ]
        print("\n".join(source))
        self.parts, self.part = [{"source": source}], None
        if arguments.quick:
            self.text("a smoke run: its figures are not meaningful", "")

    def text(self, *lines):
        """Print lines: of a text, of the next table's caption, or across a table.

        An empty line ends a text or a table.
        """
        for line in lines:
            print(line, flush=True)
            if not line:
                self.part = None
            elif self.part is None:
                self._begin({"text": [line]})
            else:
                self.part["rows" if "rows" in self.part else "text"].append(line)

    def _begin(self, part):
        if any("rows" in earlier for earlier in self.parts):
            self.save()
        self.part = part
        self.parts.append(part)

    def table(self, columns, label=""):
        """Start a table below its caption; the rows have a label and the cells."""
        columns, caption = list(columns), []
        if self.part is not None and "text" in self.part:
            caption = self.parts.pop()["text"]
        self._begin({"caption": caption, "columns": [label, *columns], "rows": []})
        self.widths = [max(18, len(title) + 2) for title in columns]
        if any(columns):
            self._print(label, columns)

    def row(self, label, cells):
        """Print a row of the table."""
        cells = list(cells)
        self.part["rows"].append([label, *cells])
        self._print(label, cells)

    def _print(self, label, cells):
        pairs = zip(cells, self.widths, strict=True)
        cells = "".join(f"{cell:>{width}}" for cell, width in pairs)
        print(f"{label:<40}{cells}".rstrip(), flush=True)

    def section(self, heading, over=""):
        """Start a table of ratios."""
        self.text("", heading)
        self.table(["", over, ""])

    def line(self, what, ratios=None, *, absolute="", digits=2, target=None):
        """Print an absolute value with its unit, and ratios, one per round, to others.

        `target` is the `Target` of the median ratio.
        """
        cell = "" if ratios is None else quartiles(ratios, digits)
        verdict = target.verdict(np.median(ratios)) if target else ""
        self.row(what, [absolute, cell, verdict])

    def save(self):
        """Write the file, if requested; with `--add`, after the tables that it had."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        parts = [without_empty_columns(part) for part in self.parts]
        self.path.write_text(as_json(self.earlier + parts), encoding="utf-8")


def without_empty_columns(part):
    """Return a table without columns that have neither a title nor a cell."""
    if "rows" not in part:
        return part
    rows = [row for row in part["rows"] if not isinstance(row, str)]
    is_used = [any(cells) for cells in zip(part["columns"], *rows, strict=True)]

    def used(cells):
        return cells if isinstance(cells, str) else list(compress(cells, is_used))

    rows = [used(row) for row in part["rows"]]
    return part | {"columns": used(part["columns"]), "rows": rows}


def as_json(parts):
    """Return parts as JSON with one line per row, so that changes can be read."""
    text = json.dumps(parts, ensure_ascii=False, indent=1)
    # Lists of texts, which no brace interrupts, become one line.
    return re.sub(r"\[\n[^\[\]{}]*?\n *\]", on_one_line, text) + "\n"


def on_one_line(match):
    return json.dumps(json.loads(match[0]), ensure_ascii=False)
