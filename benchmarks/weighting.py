"""The cost of each weighting of the tasks in a training step.

    python benchmarks/weighting.py                # all weightings, both networks
    python benchmarks/weighting.py --device cuda

A step consists of the forward pass, the losses, the backward pass of the weighting and
Adam, for two tasks, on a batch of a generated table with category and numeric columns;
networks have their default sizes. Each round has one step per weighting, in random
order. The figure is the median over the rounds of the ratio to "equal" within a round,
followed by the quartiles. Every weighting has its own network with the same initial
weights. All steps see the same batch: the figures are the cost of a step, not of a fit.
"""

import importlib.util

import numpy as np
import torch
from _harness import begin, interleave, make_parser, quartiles
from _tables import N_NUMERIC

from sk_pwiser._training._criterion import MultiTaskCriterion
from sk_pwiser.losses import BCE
from sk_pwiser.networks import NETWORKS, NetworkSpec
from sk_pwiser.weighting import WEIGHTINGS

# 16 category columns, from few values to many.
CARDINALITIES = [100_000, 20_000, 5_000, 2_000, 1_000, 500, 200, 100, *[20] * 8]
TASKS, RATES = ["click", "conversion"], [0.2, 0.02]
TABLE = NetworkSpec(CARDINALITIES, N_NUMERIC, 16, RATES, category_dropout=0.05)
PARAMETERS = {"fixed": {"weights": [1.0, 2.0]}}


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
        criterion(output, y, None, None, module.parameters())
        optimizer.step()

    return step


def main():
    parser = make_parser(__doc__, rounds=50)
    parser.set_defaults(threads=1)
    arguments, report = begin("weighting_cost", parser, rounds=2)
    batch_size = 256 if arguments.quick else 2048
    names = ["equal", *WEIGHTINGS]
    if importlib.util.find_spec("torchjd") is None:
        names.remove("torchjd")
    batch = make_batch(batch_size, arguments.device)
    report.text("", f"batches of {batch_size:,}, {arguments.rounds} rounds")
    report.table(["weighting", "ms", "times equal"], label="network")
    for network in ("shared_bottom", "mmoe"):
        steps = {
            name: make_step(name, network, batch, arguments.device) for name in names
        }
        times = interleave(steps, arguments.rounds, arguments.device, warm_ups=2)
        for name, parts in times.items():
            ratios = parts["all"] / times["equal"]["all"]
            ratio = quartiles(ratios) if name != "equal" else "1"
            milliseconds = 1e3 * np.median(parts["all"])
            report.row(network, [name, f"{milliseconds:.2f}", ratio])


if __name__ == "__main__":
    main()
