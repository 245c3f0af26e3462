"""Time and memory of PWiseR's pairwise term, and its share of a training step.

    python benchmarks/pwiser_scale.py             # everything, n = 10^3 .. 10^7
    python benchmarks/pwiser_scale.py --parts step --threads 2
    python benchmarks/pwiser_scale.py --device cuda

Part `scale`: n scores in float32; 2 % of the rows converted and 18 % were clicked only.
One run is `pwiser_loss` from scores and labels, forward and backward. It is compared
with one `torch.sort` of the same scores and, up to 2 * 10^8 pairs, with the same term
computed through matrices of all pairs.

- Time: the runs of a round are in random order, and the figure is the median over the
  rounds of the ratio within a round, followed by the quartiles. One thread by default,
  since sorting a vector uses one.
- Memory: each run has a new process, and the peak is measured above the inputs, after a
  small run for lazy imports.
- Error: the larger relative error of value and gradient (in the maximum norm) in
  float64, compared with all pairs, which are visited in parts; beyond 2 * 10^8 pairs
  only as many converted rows as fit, and all lower rows.

Part `step`: forward, loss, backward and optimiser step of `shared_bottom` in its
default size on one batch of a table like KuaiRand's, with BCE and with PWiseR,
interleaved.

With `--save`, part `scale` also saves the picture of its table in docs/images.
"""

import math

import numpy as np
import torch
from _harness import (
    MIB,
    RESULTS,
    PeakMemory,
    Report,
    in_fresh_process,
    interleave,
    make_parser,
    parse,
    quartiles,
)
from torch.nn import functional as F

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.losses import BCE, PWiseR, pwiser_loss
from sk_pwiser.networks import NetworkSpec, SharedBottom
from sk_pwiser.weighting import Equal

SURROGATES = {
    "hinge": F.relu,
    "squared_hinge": lambda u: F.relu(u).square(),
    "logistic": lambda u: F.softplus(u, threshold=40),
}
SORT = ("sort", None)
SIZES, BATCH_SIZES = [10**power for power in range(3, 8)], (512, 2048, 65_536)
N_PAIRS = 2 * 10**8  # the largest number to visit
COLUMNS = ("", "ms", "sorts", "MiB", "all pairs: times", "MiB", "error")
SMALL = 50_000  # up to here resident memory is too coarse to measure a run
# A table like KuaiRand's, with the default embeddings of the estimator.
CARDINALITIES = [16_000, 4_500, 4_300, 4_100, 1_200, 400, 100, 50, *[12] * 30]
TABLE = NetworkSpec(CARDINALITIES, 3, 16, base_rates=[0.2, 0.02], category_dropout=0.05)
LOSSES = {
    "bce": (BCE, {}),
    "pwiser": (PWiseR, {}),
    "pwiser, squared hinge": (PWiseR, {"surrogate": "squared_hinge"}),
    "pwiser, logistic": (PWiseR, {"surrogate": "logistic"}),
    "pwiser, all heads": (PWiseR, {"tasks": "all"}),
}


def scored_rows(n, device):
    """Return scores and labels, made in place so that they determine the peak."""
    generator = torch.Generator().manual_seed(0)
    y = torch.empty(n, 2).uniform_(generator=generator)
    click, conversion = y.unbind(1)
    click.lt_(0.2)
    conversion.lt_(0.1).mul_(click)
    scores = torch.empty(n).normal_(generator=generator)
    scores.add_(click, alpha=0.5).add_(conversion, alpha=0.5)
    return scores.to(device).requires_grad_(), y.to(device)


def split(y):
    """Return the converted rows, the clicked-only rows and the rows without click."""
    depth = y.sum(1)
    return [(depth == d).nonzero().squeeze(1) for d in (2, 1, 0)]


def all_pairs(scores, y, surrogate):
    """Return the term in its usual form: through matrices of all pairs."""
    higher, *lower = (scores[rows] for rows in split(y))
    h = SURROGATES[surrogate]
    return sum(h(1 - (higher[:, None] - part)).mean() for part in lower)


def make_run(case, scores, y):
    """Return a function that runs a case once, forward and backward."""
    method, surrogate = case
    if method == "sort":
        values = scores.detach()
        return lambda: torch.sort(values) and None
    loss = pwiser_loss if method == "pwiser" else all_pairs

    def run():
        scores.grad = None
        loss(scores, y, surrogate=surrogate).backward()

    return run


def measure_times(n, rounds, device):
    """Return the seconds of each case, one per round."""
    scores, y = scored_rows(n, device)
    higher, *lower = map(len, split(y))
    fast = [SORT, *(("pwiser", s) for s in SURROGATES)]
    slow = [("all pairs", s) for s in SURROGATES if higher * sum(lower) <= N_PAIRS]
    runs = {case: make_run(case, scores, y) for case in [*fast, *slow]}
    # All pairs take most of the time: of many rows they run in three rounds.
    first = rounds if n <= SMALL else min(rounds, 3)
    times = interleave(runs, first, device)
    times = {case: parts["all"] for case, parts in times.items()}
    if rounds > first:
        runs = {case: runs[case] for case in fast}
        for case, parts in interleave(runs, rounds - first, device, warm_ups=0).items():
            times[case] = np.concatenate([times[case], parts["all"]])
    return times


def measure_memory(case, n, device):
    """Return the peak of memory of one run above its inputs, in bytes."""
    make_run(case, *scored_rows(10_000, device))()
    run = make_run(case, *scored_rows(n, device))
    with PeakMemory(device) as memory:
        run()
    return memory.n_bytes


def measure_errors(n, device):
    """Return the larger relative error of value and gradient, for each surrogate."""
    scores, y = scored_rows(n, device)
    higher, *lower = split(y)
    higher = higher[: max(1, N_PAIRS // sum(map(len, lower)))]
    rows = torch.cat([higher, *lower])
    scores, y = scores.detach()[rows].double().requires_grad_(), y[rows]
    errors = {}
    for surrogate in SURROGATES:
        value = pwiser_loss(scores, y, surrogate=surrogate)
        (gradient,) = torch.autograd.grad(value, scores)
        expected, slopes = visit_pairs(scores, y, surrogate)
        error = (gradient - slopes).abs().max() / slopes.abs().max()
        errors[surrogate] = max(error.item(), abs(value.item() / expected - 1))
    return errors


def visit_pairs(scores, y, surrogate, at_once=2_000_000):
    """Return the value over all pairs and its gradient, computed in parts."""
    higher, *lower = split(y)
    value, gradient = 0.0, torch.zeros_like(scores)
    for part in lower:
        for rows in higher.split(max(1, at_once // len(part))):
            u = 1 - (scores[rows, None] - scores[part])
            mean = SURROGATES[surrogate](u).sum() / (len(higher) * len(part))
            value += mean.item()
            gradient += torch.autograd.grad(mean, scores)[0]
    return value, gradient


def report_scale(report, arguments):
    """Print the table; return times and memory of each size."""
    results = []
    report.table(COLUMNS, label="n")
    for n in SIZES[: 2 if arguments.quick else None]:
        # About the same time for all sizes, within limits.
        most = 3 * arguments.rounds
        rounds = max(3, min(arguments.rounds * 10**6 // n, most))

        def fresh(function, *values):
            device, threads = arguments.device, arguments.threads
            return in_fresh_process(function, *values, device, threads=threads)

        times = fresh(measure_times, n, rounds)
        memory = {
            case: fresh(measure_memory, case, n)
            for case in times
            if n > SMALL or case[0] == "all pairs"
        }
        errors = fresh(measure_errors, n)
        results.append((n, times, memory))
        print_size(report, n, times, memory, errors)
    return results


def print_size(report, n, times, memory, errors):
    """Print the lines of the table for one size."""
    mib = {case: f"{n_bytes / MIB:,.0f}" for case, n_bytes in memory.items()}
    rows = {"torch.sort": SORT, **{s: ("pwiser", s) for s in SURROGATES}}
    for name, case in rows.items():
        own, slow = times[case], times.get(("all pairs", name))
        ratio = quartiles(own / times[SORT]) if case[1] else "1"
        cells = [name, f"{1e3 * np.median(own):.2f}", ratio, mib.get(case, "-")]
        if case[1]:
            ratio = "-" if slow is None else quartiles(slow / own[: len(slow)], 1)
            cells += [ratio, mib.get(("all pairs", name), "-"), f"{errors[name]:.0e}"]
        report.row(f"{n:,}", cells + [""] * (len(COLUMNS) - len(cells)))


def draw(results, path):
    """Save the picture of time and memory against n."""
    kind = import_extra("matplotlib.figure", "the picture").Figure
    figure = kind(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots(1, 2)
    draw_lines(axes[0], [(n, t) for n, t, _ in results], np.median, 0)
    axes[0].set(title="time, forward and backward", ylabel="seconds")
    draw_lines(axes[1], [(n, m) for n, _, m in results], lambda b: b / MIB, 1)
    axes[1].set(title="peak memory above the inputs", ylabel="MiB")
    for ax in axes:
        ax.set(xscale="log", yscale="log", xlabel="scores n, 2 % of them converted")
        ax.grid(alpha=0.3)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    figure.savefig(path, dpi=120)


def draw_lines(ax, results, value, smallest):
    """Draw one line per case, and extrapolate all pairs."""
    lines = {SORT: ("torch.sort", "--o", "grey")}
    for i, (surrogate, marker) in enumerate(zip(SURROGATES, "os^", strict=True)):
        lines["pwiser", surrogate] = (surrogate, f"-{marker}", f"C{i}")
    lines["all pairs", "hinge"] = ("hinge, all pairs", "-o", "black")
    for case, (label, style, color) in lines.items():
        points = [(n, value(r[case])) for n, r in results if case in r]
        points = [point for point in points if point[1] >= smallest]
        if points:
            n, values = zip(*points, strict=True)
            ax.plot(n, values, style, color=color, mfc="none", label=label)
    largest = results[-1][0]
    if points and n[-1] < largest:  # the last line shows all pairs
        grown = values[-1] * (largest / n[-1]) ** 2
        label = "all pairs, extrapolated"
        ax.plot([n[-1], largest], [values[-1], grown], ":", color="black", label=label)


def make_step(loss, params, batch_size, device):
    """Return a function that makes one training step on one batch."""
    torch.manual_seed(0)
    network = SharedBottom(TABLE).to(device)
    criterion = MultiTaskCriterion(loss(["click", "conversion"], **params), Equal(2))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    codes = torch.stack([torch.randint(c, (batch_size,)) for c in CARDINALITIES], 1)
    codes, numeric = codes.to(device), torch.randn(batch_size, 3).to(device)
    y = scored_rows(batch_size, device)[1]

    def step():
        optimizer.zero_grad(set_to_none=True)
        criterion(network(codes, numeric), y).backward()
        optimizer.step()

    return step


def report_step(report, arguments):
    """Print the table of the training steps."""
    report.table(["loss", "ms", "% above bce"], label="batch")
    device = arguments.device
    for batch_size in BATCH_SIZES[: 1 if arguments.quick else None]:
        rounds = math.ceil(arguments.rounds * min(6, 65_536 / batch_size))
        steps = {
            name: make_step(*loss, batch_size, device) for name, loss in LOSSES.items()
        }
        times = interleave(steps, rounds, device, warm_ups=2)
        bce = times["bce"]["all"]
        for name, parts in times.items():
            added = quartiles(100 * (parts["all"] / bce - 1), 1)
            cells = [name, f"{1e3 * np.median(parts['all']):.2f}"]
            report.row(f"{batch_size:,}", [*cells, "" if name == "bce" else added])


def main():
    parser = make_parser(__doc__, rounds=15, parts=["scale", "step"])
    parser.set_defaults(threads=1)
    arguments = parse(parser, rounds=2)
    if "scale" in arguments.parts:
        report = Report("pwiser_scale", arguments)
        results = report_scale(report, arguments)
        report.save()
        if arguments.save == RESULTS:
            draw(results, RESULTS.parent / "images" / "pwiser_scale.png")
    if "step" in arguments.parts:
        report = Report("pwiser_step", arguments)
        report_step(report, arguments)
        report.save()


if __name__ == "__main__":
    main()
