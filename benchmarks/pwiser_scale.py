"""Time and memory of PWiseR's pairwise term, and its share of a training step.

    python benchmarks/pwiser_scale.py             # everything, n = 10^3 .. 10^7
    python benchmarks/pwiser_scale.py --quick     # a smoke run
    python benchmarks/pwiser_scale.py --parts step --threads 2
    python benchmarks/pwiser_scale.py --device cuda --output cuda

Part `scale`: n scores in float32; 2 % of the rows converted and 18 % were clicked only.
One run is `pwiser_loss` from scores and labels, forward and backward. It is compared
with one `torch.sort` of the same scores and, up to `--pairs` pairs, with the same term
computed through matrices of all pairs.

- Time: the runs of a round are in random order, and the figure is the median over the
  rounds of the ratio within a round, followed by the quartiles, so that other load on
  the machine affects both sides equally. One thread by default, since sorting a vector
  uses one.
- Memory: each run has a new process. The peak of resident memory is read after the
  imports, the inputs and a small run for lazy imports, and again after the run. The
  difference is the peak of the memory that the run allocated, to within about 1 MiB. On
  CUDA it is torch's own peak of allocated memory.
- Error: the larger relative error of value and gradient (in the maximum norm) in
  float64, compared with all pairs, which are visited in parts; beyond `--pairs` pairs
  only as many converted rows as fit, and all lower rows.

Part `step`: forward, loss, backward and optimiser step of `shared_bottom` in its
default size on a table like KuaiRand's, with BCE and with PWiseR, interleaved.
"""

import argparse
import math
import multiprocessing
import platform
import random
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE, PWiseR, pwiser_loss
from sk_pwiser.networks import NetworkSpec, SharedBottom
from sk_pwiser.weighting import Equal

DOCS = Path(__file__).resolve().parents[1] / "docs"
SURROGATES = {
    "hinge": F.relu,
    "squared_hinge": lambda u: F.relu(u).square(),
    "logistic": lambda u: F.softplus(u, threshold=40),
}
MIB = 2**20
SMALL = 50_000  # up to here resident memory is too coarse to measure a run
# A table like that of KuaiRand, with the default embeddings of the estimator.
CARDINALITIES = [16_000, 4_500, 4_300, 4_100, 1_200, 400, 100, 50, *[12] * 30]
TABLE = NetworkSpec(CARDINALITIES, 3, 16, base_rates=[0.2, 0.02], category_dropout=0.05)
LOSSES = {
    "bce": (BCE, {}),
    "pwiser": (PWiseR, {}),
    "pwiser, squared hinge": (PWiseR, {"surrogate": "squared_hinge"}),
    "pwiser, logistic": (PWiseR, {"surrogate": "logistic"}),
    "pwiser, all heads": (PWiseR, {"tasks": "all"}),
}


def impressions(n, device):
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
        return lambda: torch.sort(values)
    loss = pwiser_loss if method == "pwiser" else all_pairs

    def run():
        scores.grad = None
        loss(scores, y, surrogate=surrogate).backward()

    return run


def in_fresh_process(function, *arguments):
    """Call a function in a new process; raise if it is killed."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def seconds(run, device):
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure_times(n, rounds, pairs, threads, device):
    """Return the seconds of each case, one per round."""
    torch.set_num_threads(threads)
    scores, y = impressions(n, device)
    higher, *lower = map(len, split(y))
    methods = ["pwiser", "all pairs"][: 1 + (higher * sum(lower) <= pairs)]
    cases = [("sort", None), *((m, s) for m in methods for s in SURROGATES)]
    runs = {case: make_run(case, scores, y) for case in cases}
    times = {case: [] for case in cases}
    for turn in range(rounds + 1):
        for case in random.Random(turn).sample(cases, len(cases)):
            if case[0] == "all pairs" and n > SMALL and turn > 3:
                continue  # all pairs take most of the time
            elapsed = seconds(runs[case], device)
            if turn:  # the first round is the warm-up
                times[case].append(elapsed)
    return {case: np.array(values) for case, values in times.items()}


def measure_memory(case, n, threads, device):
    """Return the peak of memory of one run above its inputs, in bytes."""
    torch.set_num_threads(threads)
    make_run(case, *impressions(10_000, device))()
    inputs = impressions(n, device)  # kept, so that their memory is not reused
    run = make_run(case, *inputs)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    before = peak_rss()
    run()
    return peak_rss() - before


def peak_rss():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_errors(n, pairs, threads, device):
    """Return the larger relative error of value and gradient, for each surrogate."""
    torch.set_num_threads(threads)
    scores, y = impressions(n, device)
    higher, *lower = split(y)
    higher = higher[: max(1, pairs // sum(map(len, lower)))]
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


def scale_report(arguments, results):
    """Yield the lines of the table, and append their figures to `results`."""
    yield about(arguments)
    yield SCALE_HEADER
    pairs, common = arguments.pairs, (arguments.threads, arguments.device)
    for n in arguments.sizes:
        # About the same time for all sizes, within limits.
        rounds = max(3, min(arguments.repeats * 10**6 // n, 3 * arguments.repeats))
        times = in_fresh_process(measure_times, n, rounds, pairs, *common)
        memory = {
            case: in_fresh_process(measure_memory, case, n, *common)
            for case in times
            if n > SMALL or case[0] == "all pairs"
        }
        errors = in_fresh_process(measure_errors, n, pairs, *common)
        results.append((n, times, memory))
        yield from scale_lines(n, times, memory, errors)


def with_quartiles(ratios, digits=2):
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


SCALE_HEADER = (
    f"{'n':>10}  {'':<14}{'ms':>9}{'sorts':>20}{'MiB':>6}"
    f"{'all pairs: times':>24}{'MiB':>7}{'error':>7}"
)


def scale_lines(n, times, memory, errors):
    """Yield the lines of the table for one size."""
    sort = times["sort", None]
    mib = {case: f"{n_bytes / MIB:,.0f}" for case, n_bytes in memory.items()}
    rows = {"torch.sort": ("sort", None), **{s: ("pwiser", s) for s in SURROGATES}}
    for name, case in rows.items():
        own, slow = times[case], times.get(("all pairs", name))
        ratio = with_quartiles(own / sort) if case[1] else "1"
        line = f"{n:>10,}  {name:<14}{1e3 * np.median(own):>9.2f}{ratio:>20}"
        line += f"{mib.get(case, '-'):>6}"
        if case[1]:
            ratio = "-" if slow is None else with_quartiles(slow / own[: len(slow)], 1)
            line += f"{ratio:>24}{mib.get(('all pairs', name), '-'):>7}"
            line += f"{errors[name]:>7.0e}"
        yield line


def draw(results, path):
    """Save the picture of time and memory against n."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        message = 'the picture needs matplotlib: pip install "sk_pwiser[plot]"'
        raise ImportError(message) from error
    figure = Figure(figsize=(9, 4.5), layout="constrained")
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def draw_lines(ax, results, value, smallest):
    """Draw one line per case, and extrapolate that of all pairs."""
    lines = {("sort", None): ("torch.sort", "--o", "grey")}
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
    if points and n[-1] < largest:  # the last line is that of all pairs
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
    y = impressions(batch_size, device)[1]

    def step():
        optimizer.zero_grad(set_to_none=True)
        criterion(network(codes, numeric), y).backward()
        optimizer.step()

    return step


def step_report(arguments):
    """Yield the lines of the table."""
    torch.set_num_threads(arguments.threads)
    yield about(arguments)
    yield f"{'batch':>10}  {'loss':<24}{'ms':>10}{'% above bce':>24}"
    for batch_size in arguments.batch_sizes:
        rounds = math.ceil(arguments.repeats * min(6, 65_536 / batch_size))
        times = measure_steps(batch_size, rounds, arguments.device)
        for name, values in times.items():
            added = with_quartiles(100 * (values / times["bce"] - 1), 1)
            cell = "" if name == "bce" else added
            milliseconds = 1e3 * np.median(values)
            yield f"{batch_size:>10,}  {name:<24}{milliseconds:>10.2f}{cell:>24}"


def measure_steps(batch_size, rounds, device):
    """Return the seconds of a step with each loss, one per round."""
    steps = {
        name: make_step(*loss, batch_size, device) for name, loss in LOSSES.items()
    }
    times = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name in random.Random(turn).sample(list(steps), len(steps)):
            elapsed = seconds(steps[name], device)
            if turn > 1:  # the first two rounds are the warm-up
                times[name].append(elapsed)
    return {name: np.array(values) for name, values in times.items()}


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ["scale", "step"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    sizes = [1e3, 1e4, 1e5, 1e6, 1e7]
    parser.add_argument("--sizes", nargs="+", type=float, default=sizes)
    parser.add_argument(
        "--batch-sizes", nargs="+", type=int, default=[512, 2048, 65_536]
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=15,
        help="rounds at n = 10^6, fewer beyond",
    )
    parser.add_argument(
        "--pairs", type=float, default=2e8, help="largest number of pairs to visit"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument(
        "--output",
        type=Path,
        help="folder; default: docs/, none with --quick",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.batch_sizes = [1e3, 1e4], [512]
        arguments.repeats = 2
    elif arguments.output is None:
        arguments.output = DOCS
    arguments.sizes = sorted(int(n) for n in arguments.sizes)
    arguments.pairs = int(arguments.pairs)
    return arguments


def about(arguments):
    device = f"CPU, {arguments.threads} thread(s)"
    if arguments.device == "cuda":
        device = torch.cuda.get_device_name()
    return f"Python {platform.python_version()}, torch {torch.__version__}, {device}"


def write(arguments, name, lines):
    """Print the lines; then save them, if there is an output folder."""
    kept = []
    for line in lines:
        print(line, flush=True)
        kept.append(line.rstrip())
    if arguments.output is not None:
        path = arguments.output / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(kept) + "\n")


def main():
    arguments = parse()
    if "scale" in arguments.parts:
        results = []
        write(arguments, "pwiser_scale.txt", scale_report(arguments, results))
        if arguments.output is not None:
            draw(results, arguments.output / "images" / "pwiser_scale.png")
    if "step" in arguments.parts:
        write(arguments, "pwiser_step.txt", step_report(arguments))


if __name__ == "__main__":
    main()
