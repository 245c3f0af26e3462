"""The cross-entropy for devices other than a CPU, against torch's own."""

import torch
from torch.nn import functional as F

from sk_pwiser.losses._bce import _CrossEntropy


def test_cross_entropy_by_few_kernels():
    generator = torch.Generator().manual_seed(0)
    logits = 10 * torch.randn(50, 2, generator=generator, dtype=torch.float64)
    logits[:2] = torch.tensor([[1000.0, -1000.0], [20.0, 40.0]])
    targets = torch.rand(50, 2, generator=generator, dtype=torch.float64)
    targets[:25] = targets[:25].round()
    inputs = logits.requires_grad_(), targets.requires_grad_()
    found = _CrossEntropy.apply(*inputs)
    expected = F.binary_cross_entropy_with_logits(*inputs, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    slopes = (torch.autograd.grad(x.sum(), inputs) for x in (found, expected))
    torch.testing.assert_close(*slopes)
    parts = logits.detach()[25:30].requires_grad_(), targets.detach()[25:30]
    assert torch.autograd.gradgradcheck(_CrossEntropy.apply, parts)
