"""Losses of different scales: two quadratic ones, descent on them, and scaled BCE."""

import torch

from sk_pwiser.losses import BCE

CURVATURES = torch.tensor(
    [[[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.3], [-0.3, 3.0]]], dtype=torch.float64
)
OPTIMA = torch.tensor([[1.0, 0.0], [-1.0, 0.5]], dtype=torch.float64)


def losses_at(theta):
    gaps = theta - OPTIMA
    return torch.einsum("ki,kij,kj->k", gaps, CURVATURES, gaps) / 2


def descend(weighting, scales=(1.0, 1.0), n_steps=300, lr=0.1, decay=0.0):
    """Return the path of gradient descent, one row per step."""
    theta = torch.nn.Parameter(torch.tensor([0.6, 1.9], dtype=torch.float64))
    path = [theta.detach().clone()]
    for i in range(n_steps):
        losses = losses_at(theta) * torch.tensor(scales, dtype=torch.float64)
        weighting.backward(losses, None, [theta])
        with torch.no_grad():
            theta -= lr / (1 + decay * i) * theta.grad
        path.append(theta.detach().clone())
    return torch.stack(path)


class Scaled(BCE):
    """Cross-entropy with a factor on the loss of the second task."""

    def __init__(self, task_names, scale=1.0):
        super().__init__(task_names)
        factors = torch.ones(len(self.task_names))
        factors[1] = scale
        self.register_buffer("scale", factors)

    def forward(self, logits, y, sample_weight=None, groups=None):
        return self.scale * super().forward(logits, y, sample_weight, groups)
