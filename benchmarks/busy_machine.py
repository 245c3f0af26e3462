"""Time of a fit beside programs that keep some or all of the cores busy.

    python benchmarks/busy_machine.py                 # 1 busy loop, and one per core
    python benchmarks/busy_machine.py --loops 1 --rounds 5

A busy loop is a process that computes without end. The fit is that of the default
estimator with as many threads of torch as cores; "fixed" is the same fit with that
number of threads throughout (`sk_pwiser.num_threads`). The ratio is the time of the
fit beside the loops over that of the fit alone, in the same round. "share" is the
reciprocal of the share of the cores that is left: with two cores and one loop half of
the machine is free, and twice the time would be proportionate. The target is twice the
share. Run it on a machine without other load.
"""

import contextlib
import multiprocessing
import os
import time

import numpy as np
import torch
from _tables import impressions
from _timing import Report, at_most, make_parser, start

from sk_pwiser import MultiTaskCTRCVRClassifier, num_threads


def spin():
    while True:
        pass


@contextlib.contextmanager
def busy_loops(n):
    """Run some busy loops in processes of their own."""
    context = multiprocessing.get_context("spawn")
    loops = [context.Process(target=spin, daemon=True) for _ in range(n)]
    for loop in loops:
        loop.start()
    time.sleep(1.0 if n else 0.0)
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.join()


def seconds_of_fit(X, Y, n_threads=None):
    """Return the seconds of a fit, with a number of threads or with automatic ones."""
    model = MultiTaskCTRCVRClassifier(
        max_epochs=3, early_stopping=False, random_state=0, device="cpu"
    )
    fixed = contextlib.nullcontext() if n_threads is None else num_threads(n_threads)
    started = time.perf_counter()
    with fixed:
        model.fit(X, Y)
    return time.perf_counter() - started


def main():
    parser = make_parser(__doc__, rounds=3)
    n_cores = len(os.sched_getaffinity(0))
    parser.add_argument("--loops", type=int, nargs="+", default=[1, n_cores])
    parser.add_argument("--rows", type=int, default=50_000)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.rounds = 5_000, 1
    start(arguments)
    torch.set_num_threads(n_cores)
    report = Report("busy_machine", arguments)
    X, Y = impressions(arguments.rows)
    seconds_of_fit(X[:2_000], Y[:2_000])
    kinds = {"automatic": None, "fixed": n_cores}
    alone, beside = (
        [],
        {(loops, kind): [] for loops in arguments.loops for kind in kinds},
    )
    for _ in range(arguments.rounds):
        alone.append({kind: seconds_of_fit(X, Y, n) for kind, n in kinds.items()})
        for loops in arguments.loops:
            with busy_loops(loops):
                for kind, n in kinds.items():
                    beside[loops, kind].append(seconds_of_fit(X, Y, n))
    report.section(f"{arguments.rows:,} rows, {n_cores} cores", "over the fit alone")
    base = {kind: np.array([row[kind] for row in alone]) for kind in kinds}
    report.line("alone, automatic", base["automatic"] / base["fixed"])
    for (loops, kind), seconds in beside.items():
        # With n loops and one more program, each of n + 1 has a part of the cores.
        share = 1 / max(1 - loops / n_cores, 1 / (loops + 1))
        report.line(
            f"beside {loops} busy loops, {kind}",
            np.array(seconds) / base[kind],
            absolute=f"share {share:.1f}",
            target=at_most(2 * share) if kind == "automatic" else None,
        )
    report.save()


if __name__ == "__main__":
    main()
