"""The cost of each weighting of the tasks in a training step.

    python benchmarks/weighting.py                # all weightings, both networks
    python benchmarks/weighting.py --quick        # a smoke run
    python benchmarks/weighting.py --device cuda --output cuda

A step consists of the forward pass, the losses, the backward pass of the weighting and
Adam, for two tasks, on a batch of a generated table with category and numeric columns;
networks have their default sizes. Each round has one step per weighting, in random
order. The figure is the median over the rounds of the ratio to "equal" within a round,
followed by the quartiles, so that other load on the machine affects both sides equally.
Every weighting has its own network with the same initial weights.
"""

import argparse
import importlib.util
import platform
import random
import time
from pathlib import Path

import numpy as np
import torch

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE
from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import WEIGHTINGS

# 16 category columns, from few values to many, and 63 numeric ones.
CARDINALITIES = [100_000, 20_000, 5_000, 2_000, 1_000, 500, 200, 100, *[20] * 8]
N_NUMERIC = 63
TASKS = ["click", "conversion"]
RATES = [0.2, 0.02]
TABLE = NetworkSpec(CARDINALITIES, N_NUMERIC, 16, RATES, category_dropout=0.05)

PARAMETERS = {"fixed": {"weights": [1.0, 2.0]}}


def available():
    """Return the weightings whose packages are installed."""
    has_torchjd = importlib.util.find_spec("torchjd") is not None
    return [name for name in WEIGHTINGS if name != "torchjd" or has_torchjd]


def make_batch(n, device):
    """Return codes, numeric inputs and labels."""
    generator = torch.Generator().manual_seed(0)
    codes = [torch.randint(c, (n,), generator=generator) for c in CARDINALITIES]
    numeric = torch.randn(n, N_NUMERIC, generator=generator)
    y = (torch.rand(n, 2, generator=generator) < torch.tensor(RATES)).float()
    y[:, 1] *= y[:, 0]
    return torch.stack(codes, dim=1).to(device), numeric.to(device), y.to(device)


def make_step(weighting, network, batch, device):
    """Return a function that makes one training step."""
    torch.manual_seed(0)
    module = NETWORKS[network](TABLE).to(device)
    combined = WEIGHTINGS[weighting](len(TASKS), **PARAMETERS.get(weighting, {}))
    criterion = MultiTaskCriterion(BCE(TASKS), combined).to(device)
    learnt = [*module.parameters(), *criterion.parameters()]
    optimizer = torch.optim.Adam(learnt, lr=1e-3)
    codes, numeric, y = batch

    def step():
        optimizer.zero_grad(set_to_none=True)
        output = module(codes, numeric)
        criterion.backward(output, y, None, None, module.parameters())
        optimizer.step()

    return step


def seconds(run, device):
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(weightings, network, arguments):
    """Return the seconds of a step with each weighting, one per round."""
    batch = make_batch(arguments.batch_size, arguments.device)
    steps = {w: make_step(w, network, batch, arguments.device) for w in weightings}
    times = {name: [] for name in steps}
    for turn in range(arguments.repeats + 2):
        for name in random.Random(turn).sample(list(steps), len(steps)):
            elapsed = seconds(steps[name], arguments.device)
            if turn > 1:  # the first two rounds are the warm-up
                times[name].append(elapsed)
    return {name: np.array(values) for name, values in times.items()}


def report(arguments):
    """Yield the lines of the table."""
    torch.set_num_threads(arguments.threads)
    yield about(arguments)
    yield f"{'network':<15}{'weighting':<13}{'ms':>9}{'times equal':>22}"
    weightings = list(dict.fromkeys(["equal", *arguments.weightings]))
    for network in arguments.networks:
        times = measure(weightings, network, arguments)
        for name, values in times.items():
            low, middle, high = np.quantile(values / times["equal"], [0.25, 0.5, 0.75])
            ratio = f"{middle:.2f} ({low:.2f}-{high:.2f})" if name != "equal" else "1"
            milliseconds = 1e3 * np.median(values)
            yield f"{network:<15}{name:<13}{milliseconds:>9.2f}{ratio:>22}"


def about(arguments):
    device = f"CPU, {arguments.threads} thread(s)"
    if arguments.device == "cuda":
        device = torch.cuda.get_device_name()
    return (
        f"Python {platform.python_version()}, torch {torch.__version__}, {device}, "
        f"batches of {arguments.batch_size:,}, {arguments.repeats} rounds"
    )


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = available()
    parser.add_argument("--weightings", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--networks",
        nargs="+",
        choices=list(NETWORKS),
        default=["shared_bottom", "mmoe"],
    )
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=50, help="number of rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--output", type=Path, help="folder in which to save the table")
    parser.add_argument("--quick", action="store_true", help="small batch, few rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.batch_size, arguments.repeats = 256, 2
    return arguments


def main():
    arguments = parse()
    lines = []
    for line in report(arguments):
        print(line, flush=True)
        lines.append(line)
    if arguments.output is not None:
        path = arguments.output / "results" / "weighting.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
