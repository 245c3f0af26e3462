"""CAGrad: the step near the mean gradient with the largest gain of the worst task."""

import math
from operator import mul

import torch
from torch import Tensor

from sk_pwiser._utils import check_integer, check_number
from sk_pwiser.weighting._gradient import GradientWeighting

# Relative to the tasks' gradients, a shorter mean gradient is rounding error.
VANISHED = 1e-6


class CAGrad(GradientWeighting):
    r"""CAGrad: conflict-averse gradient descent.

    Of all steps d in a ball around the mean gradient :math:`g_0`, the method takes the
    step that maximises the smallest decrease of any task's loss:

    .. math::
        \max_d \min_k g_k^\top d
        \quad \text{subject to} \quad
        \lVert d - g_0 \rVert \le c \lVert g_0 \rVert

    The solution is :math:`d = g_0 + c \lVert g_0 \rVert\, g_w / \lVert g_w \rVert`
    with :math:`g_w = \sum_k w_k g_k`, where the weights :math:`w \ge 0` with
    :math:`\sum_k w_k = 1` minimise
    :math:`g_w^\top g_0 + c \lVert g_0 \rVert \lVert g_w \rVert`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    c : float, default=0.4
        Radius of the ball, relative to the length of :math:`g_0`, in [0, 1). With 0,
        the step is the plain sum of the gradients.
    rescale : {0, 1, 2}, default=1
        Divisor of d, which brings its length closer to that of :math:`g_0`: 1 for
        `rescale=0`, :math:`1 + c^2` for `rescale=1`, and :math:`1 + c` for `rescale=2`.

    Notes
    -----
    The weights are exact for two tasks. For more tasks, weight is moved between two
    tasks at a time, until the objective is proved to be within 1e-9 of its minimum, in
    units of :math:`\lVert g_0 \rVert` times the root mean square length of the
    gradients. If :math:`g_w = 0` at the minimum, no step decreases all losses, and d
    is :math:`g_0`.

    This implementation differs from the paper in the scale of the step: d is
    multiplied by the number of tasks, as in the authors' code, because the other
    parameters take the gradient of the sum of the losses, not of their mean.

    References
    ----------
    Liu, Liu, Jin, Stone and Liu (2021), "Conflict-averse gradient descent for
    multi-task learning", NeurIPS. :arxiv:`2110.14048`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import CAGrad
    >>> gradients = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    >>> CAGrad(2, c=0.0).combine([gradients])
    [tensor([3., 1.])]
    >>> CAGrad(2, c=0.4, rescale=0).combine([gradients])
    [tensor([3.0000, 2.2649])]
    """

    def __init__(self, n_tasks: int, *, c: float = 0.4, rescale: int = 1) -> None:
        super().__init__(n_tasks)
        self.c = check_number("c", c, at_least=0, below=1)
        self.rescale = check_integer("rescale", rescale, at_least=0)
        divisors = [1.0, 1 + self.c**2, 1 + self.c]
        if self.rescale >= len(divisors):
            raise ValueError(f"rescale must be 0, 1 or 2; got {rescale!r}.")
        self.divisor = divisors[self.rescale]

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of the gradients in the step, of shape `(n_tasks,)`."""
        weights = torch.ones_like(gram[0])
        # No step changes the loss of a task whose gradient is 0.
        is_active = gram.diagonal() > 0
        weights[is_active] = self._weigh_active(gram[is_active][:, is_active])
        return weights

    def _weigh_active(self, gram: Tensor) -> Tensor:
        """Return the weights of tasks whose gradients are not 0."""
        weights = torch.ones_like(gram[0])
        gram = gram / gram.diagonal().mean()
        inner = gram.mean(dim=0)
        length = inner.mean().clamp(min=0).sqrt()
        if self.c and length > VANISHED:
            w = dual_weights(gram, inner / length, self.c)
            length_w = (w @ gram @ w).clamp(min=0).sqrt()
            if length_w > VANISHED:
                weights += len(gram) * self.c * length / length_w * w
        return weights / self.divisor


def dual_weights(
    gram: Tensor, slopes: Tensor, c: float, *, tol: float = 1e-9, max_iter: int = 10_000
) -> Tensor:
    """Minimise `slopes @ w + c * sqrt(w @ gram @ w)` over the simplex.

    Each iteration moves the optimal weight from the task with the largest derivative to
    the one with the smallest, until the objective is proved to be within `tol` of its
    minimum. Inputs are of magnitude 1. For few tasks, Python floats are faster than
    tensors.
    """
    rows, q = gram.tolist(), slopes.tolist()
    tasks = range(len(q))
    w = [1 / len(q)] * len(q)
    products = gram.mean(dim=0).tolist()  # gram @ w
    for _ in range(max_iter):
        squared = sum(map(mul, w, products))
        if squared <= VANISHED**2:
            break  # the root is not differentiable at its minimum of 0
        norm = math.sqrt(squared)
        derivatives = [q[k] + c * products[k] / norm for k in tasks]
        target = min(tasks, key=derivatives.__getitem__)
        if sum(map(mul, w, derivatives)) - derivatives[target] <= tol:
            break
        source = max((k for k in tasks if w[k] > 0), key=derivatives.__getitem__)
        move = _best_move(
            q[target] - q[source],
            c,
            squared,
            products[target] - products[source],
            rows[target][target] - 2 * rows[target][source] + rows[source][source],
        )
        move = min(move, w[source])
        if move <= 0:
            break  # the improvement is below the rounding error
        w[target] += move
        w[source] = 0.0 if move == w[source] else w[source] - move
        products = [
            products[k] + move * (rows[k][target] - rows[k][source]) for k in tasks
        ]
    return gram.new_tensor(w)


def _best_move(slope: float, c: float, a: float, b: float, curvature: float) -> float:
    """Minimise `slope * x + c * sqrt(a + 2 * b * x + curvature * x ** 2)` over x >= 0.

    The radicand equals `curvature * ((x - middle) ** 2 + height ** 2)`.
    """
    if curvature <= 0:
        return math.inf if slope < 0 else 0.0  # equal gradients
    middle = -b / curvature
    height = math.sqrt(max(a * curvature - b * b, 0.0)) / curvature
    ratio = -slope / (c * math.sqrt(curvature))
    if abs(ratio) >= 1:
        return math.inf if slope < 0 else 0.0
    return max(middle + height * ratio / math.sqrt(1 - ratio**2), 0.0)
