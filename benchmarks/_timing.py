"""Shared code of the benchmarks of speed: timing, peak memory, tables and JSON files.

The runs of a comparison alternate within a round, in a random order for each round. A
figure is the median over the rounds of the ratio within a round, followed by the
quartiles, so that other load on the machine affects both sides equally.
"""

import argparse
import ast
import contextlib
import ctypes
import gc
import json
import multiprocessing
import os
import platform
import random
import re
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from sk_pwiser import __version__

MIB = 2**20
PACKAGES = ("torch", "numpy", "scikit-learn", "skorch", "pandas")


class Target(NamedTuple):
    """The target of a figure."""

    sign: str  # "at least" or "at most"
    value: float

    def is_met(self, figure):
        if self.sign == "at least":
            return bool(figure >= self.value)
        return bool(figure <= self.value)

    def __str__(self):
        return f"{self.sign} {self.value:g}"


def at_least(value):
    return Target("at least", value)


def at_most(value):
    return Target("at most", value)


# ---------------------------------------------------------------- the command line


def make_parser(description, rounds):
    """Return a parser with the options of all benchmarks of speed."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, help="default: those of torch")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--quick", action="store_true", help="a smoke run")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the figures")
    return parser


def start(arguments):
    """Exit if the device is missing; set the number of threads."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda, but torch finds no CUDA here.")
    if arguments.threads is None:
        arguments.threads = torch.get_num_threads()
    limit_threads(arguments.threads)


def limit_threads(threads):
    """Set the number of threads of torch, numpy's matrix products and OpenMP."""
    torch.set_num_threads(threads)
    threadpool_limits(threads)


def describe(arguments):
    """Return the device, load and versions, for the table and the file."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    cuda = arguments.device == "cuda"
    device = torch.cuda.get_device_name() if cuda else cpu_name()
    return {
        "device": device,
        "cpu_count": os.cpu_count(),
        "threads": arguments.threads,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sk_pwiser": __version__,
        **versions,
    }


def cpu_name():
    """Return the name of the processor, or its architecture if it is unknown."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found.group(1) if found else platform.machine()


# ---------------------------------------------------------------- time


def synchronize(device):
    """Wait until the device has finished its work."""
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def interleave(runs, rounds, device="cpu", warm_ups=1):
    """Time runs that alternate within a round, in random order.

    Parameters
    ----------
    runs : dict of str to callable
        Functions that run once. They return None, or a dict of the seconds of parts of
        the run.
    rounds : int
        Number of rounds that are measured.
    device : str, default="cpu"
        Device to synchronise with before and after a run.
    warm_ups : int, default=1
        Number of rounds before those.

    Returns
    -------
    dict of str to dict of str to ndarray of shape (rounds,)
        The seconds of each run by part; "all" is the whole run.
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


class PeakMemory:
    """Measure the peak of memory in a `with` block, above the memory held before it.

    On CUDA this is torch's own count. On a CPU it is the peak of resident memory, which
    Linux can reset before the block. On other systems it is the peak of the whole
    process; run the block in a new process and let it hold most of the work.
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
            _reset_peak()
            self.before = _peak()
        return self

    def __exit__(self, *exception):
        peak = torch.cuda.max_memory_allocated() if self.is_cuda else _peak()
        self.n_bytes = peak - self.before


def _release_free_memory():
    """Return free memory to the system, if glibc is used.

    Otherwise a block could reuse memory of earlier blocks, and its peak would be
    hidden.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_peak():
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return  # not Linux, or no permission: the peak is that of the process


def _peak():
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) * 1024
    except (OSError, AttributeError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


# ---------------------------------------------------------------- results


class Report:
    """The table of a benchmark, printed line by line, and its JSON file.

    Parameters
    ----------
    name : str
        Name of the benchmark.
    arguments : Namespace
        Arguments of the command line.
    """

    def __init__(self, name, arguments):
        self.arguments = arguments
        self.content = {
            "benchmark": name,
            "about": describe(arguments),
            "arguments": {
                key: str(value) if isinstance(value, Path) else value
                for key, value in vars(arguments).items()
            },
            "figures": [],
        }
        self.heading = ""
        about = self.content["about"]
        print(", ".join(f"{key} {value}" for key, value in about.items()))
        if arguments.quick:
            print("a smoke run: its figures are not meaningful")

    def section(self, heading, over=""):
        """Start a section of the table."""
        self.heading = heading
        print(f"\n{heading}")
        print(f"  {'':<44}{'':>18}{over:>28}", flush=True)

    def line(self, what, ratios=None, *, absolute="", digits=2, target=None):
        """Print one figure.

        Parameters
        ----------
        what : str
            Label of the figure.
        ratios : array-like of shape (rounds,), default=None
            Ratios to the reference that the heading names, one per round.
        absolute : str, default=""
            The absolute value with its unit.
        digits : int, default=2
            Number of digits.
        target : Target, default=None
            Target of the median.
        """
        figure = {"section": self.heading, "what": what, "absolute": absolute}
        cell, verdict = "", ""
        if ratios is not None:
            low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
            cell = f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"
            figure |= {"median": middle, "quartiles": [low, high]}
            figure["rounds"] = np.asarray(ratios, dtype=float).tolist()
            if target is not None:
                met = target.is_met(middle)
                verdict = f"  {target}: {'met' if met else 'missed'}"
                figure |= {"target": str(target), "met": met}
        self.content["figures"].append(figure)
        print(f"  {what:<44}{absolute:>18}{cell:>28}{verdict}", flush=True)

    def note(self, text):
        """Print a remark, such as the reason for a missing row."""
        self.content["figures"].append({"section": self.heading, "note": text})
        print(f"  {text}", flush=True)

    def save(self):
        """Write the JSON file, if one was requested."""
        path = self.arguments.json
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.content, indent=1) + "\n")


def literal_pairs(texts):
    """Read NAME=VALUE pairs; values are Python literals or words."""
    pairs = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            pairs[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pairs[name] = value
    return pairs
