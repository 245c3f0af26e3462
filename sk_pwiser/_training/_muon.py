"""Muon for the hidden matrices of a network, Adam for everything else."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# Matrices with fewer rows or columns are output layers, gates and projections of
# numbers, or networks so narrow that there is little to orthogonalise.
SMALLEST_SIDE = 8
# The iteration of Jordan et al. (2024): after five steps, singular values are between
# 0.7 and 1.2.
COEFFICIENTS = 3.4445, -4.7750, 2.0315
N_ITERATIONS = 5
# Root mean square of the entries of a step of Adam, relative to its rate (Liu et al.,
# 2025): with it, both have the same rate.
STEP_OF_ADAM = 0.2
SMALLEST_NORM = 1e-7


class Muon(torch.optim.Adam):
    """Adam whose steps on hidden matrices are orthogonal matrices.

    A step of Muon is the momentum of the gradients with all singular values near 1. It
    is meant for the matrices between hidden layers; embeddings, biases and output
    layers have the steps of Adam. Stacked matrices are orthogonalised one by one.

    Parameters
    ----------
    params : iterable
        The parameters, or groups of them.
    lr : float, default=1e-3
        Learning rate. That of Adam serves: the steps on matrices have the size of its
        steps.
    betas, eps, weight_decay, fused, capturable
        As in :class:`torch.optim.Adam`. The penalty of the weight decay is added to the
        gradient, also of matrices.
    momentum : float, default=0.95
        Momentum of the gradients of matrices.
    orthogonal : bool, default=True
        Whether the matrices of a group have the steps of Muon.

    References
    ----------
    K. Jordan et al. Muon: An optimizer for hidden layers in neural networks. 2024,
    https://kellerjordan.github.io/posts/muon/.

    J. Liu et al. Muon is scalable for LLM training. 2025, arXiv:2502.16982.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        orthogonal: bool = True,
        *,
        fused: bool | None = None,
        capturable: bool = False,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1); got {momentum!r}.")
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            fused=fused,
            capturable=capturable,
        )
        matrix_arguments = {"momentum": momentum, "orthogonal": orthogonal}
        self.defaults.update(matrix_arguments)
        for group in self.param_groups:
            for name, value in matrix_arguments.items():
                group.setdefault(name, value)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform one step of the optimiser."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if _has_orthogonal_steps(parameter, group):
                    self._step_matrix(parameter, group)
                    matrices.append((parameter, parameter.grad))
                    parameter.grad = None  # Adam leaves it out
        super().step()
        for parameter, gradient in matrices:
            parameter.grad = gradient
        return loss

    def _step_matrix(self, matrix: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        gradient = matrix.grad
        assert gradient is not None
        if not state:
            # Adam reads the number of steps of every parameter when a state is loaded.
            counts_there = group["capturable"] or group["fused"]
            device = matrix.device if counts_there else None
            state["step"] = torch.zeros((), dtype=torch.float32, device=device)
            state["momentum_buffer"] = torch.zeros_like(matrix)
        state["step"] += 1
        if group["weight_decay"]:
            gradient = gradient.add(matrix, alpha=group["weight_decay"])
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(buffer, group["momentum"])  # Nesterov's
        size = STEP_OF_ADAM * max(matrix.shape[-2:]) ** 0.5
        matrix.sub_(orthogonalized(ahead) * (size * group["lr"]))


def _has_orthogonal_steps(parameter: Tensor, group: dict[str, Any]) -> bool:
    gradient = parameter.grad
    if gradient is None or gradient.is_sparse or not group["orthogonal"]:
        return False
    return parameter.dim() in (2, 3) and min(parameter.shape[-2:]) >= SMALLEST_SIDE


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return matrices of the same singular vectors with singular values near 1.

    The shape is `(n_rows, n_columns)` or `(n_matrices, n_rows, n_columns)`.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)
    a, b, c = COEFFICIENTS
    for _ in range(N_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if is_tall else x
