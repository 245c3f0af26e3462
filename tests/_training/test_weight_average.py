"""The average of the weights, against a recursion over its updates."""

import pytest
import torch
from torch import nn

from sk_pwiser._training._optimizers import WeightAverage


@pytest.mark.parametrize("n_steps", [1, 63, 64, 65, 200])
def test_averages_are_updated_in_their_steps(n_steps):
    module = nn.ModuleList([nn.Linear(1, 1, bias=False), nn.Embedding(1, 1)])
    table = module[1].weight
    average = WeightAverage(module, 0.9, [table])
    # Small parameters in each of 64 steps and then in every 8th, tables in every 64th,
    # and both at the end.
    due = {
        module[0].weight: [*range(1, 65), *range(72, 1000, 8)],
        table: range(64, 1000, 64),
    }
    expected = {p: float(p.detach()) for p in due}
    last = dict.fromkeys(due, 0)
    for step in range(1, n_steps + 1):
        with torch.no_grad():
            for parameter in due:
                parameter.fill_(step**0.5)
        average.step()
        for parameter, steps in due.items():
            if step in steps or step == n_steps:
                kept = min(0.9, (1 + step) / (10 + step)) ** (step - last[parameter])
                expected[parameter] = (
                    kept * expected[parameter] + (1 - kept) * step**0.5
                )
                last[parameter] = step
    average.swap(into_module=True)
    for parameter, value in expected.items():
        assert float(parameter.detach()) == pytest.approx(value, rel=1e-5)
