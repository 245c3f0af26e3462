"""CAGrad: the step near the mean gradient that helps the worst-off task most."""

import math
from operator import mul

import torch
from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._gradient import GradientWeighting

# Shorter than this, beside the gradients, a mean of gradients has no direction.
VANISHED = 1e-6


class CAGrad(GradientWeighting):
    r"""CAGrad: conflict-averse gradient descent.

    Among the steps d in a ball around the mean gradient :math:`g_0`, it takes the one
    that lowers the worst-off task's loss most:

    .. math::
        \max_d \min_k g_k^\top d
        \quad \text{where} \quad \lVert d - g_0 \rVert \le c \lVert g_0 \rVert

    which is :math:`d = g_0 + c \lVert g_0 \rVert\, g_w / \lVert g_w \rVert`, with
    :math:`g_w = \sum_k w_k g_k` of the weights :math:`w \ge 0`, :math:`\sum_k w_k = 1`,
    that minimise :math:`g_w^\top g_0 + c \lVert g_0 \rVert \lVert g_w \rVert`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    c : float, default=0.4
        Radius of the ball by the length of :math:`g_0`, in [0, 1). 0 is the plain sum.
    rescale : {0, 1, 2}, default=1
        What d is divided by, for a length like that of :math:`g_0`: 1 for 0,
        :math:`1 + c^2` for 1, and :math:`1 + c` for 2.

    Raises
    ------
    ValueError, TypeError
        If c is no number in its range or rescale none of the three.

    Notes
    -----
    The weights are exact for two tasks. For more they come from exact moves between
    two tasks at a time, until the objective is known to be within 1e-9 of its minimum,
    in units of :math:`\lVert g_0 \rVert` times the gradients' root mean square length.
    Where that minimum has :math:`g_w = 0`, no step helps all tasks, and d is
    :math:`g_0`.

    Departures: d is multiplied by the number of tasks, since the other parameters
    take the gradient of the sum of the losses, not of their mean; the authors' code
    does so too. It solves for w by a general optimiser, to its tolerance, with
    constants of 1e-8 inside the roots, which matter where gradients are small.

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
        divisors = {0: 1.0, 1: 1 + self.c**2, 2: 1 + self.c}
        if rescale not in divisors:
            raise ValueError(f"rescale must be 0, 1 or 2; got {rescale!r}.")
        self.rescale = rescale
        self.divisor = divisors[rescale]

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of the gradients in the step, of shape `(n_tasks,)`."""
        weights = torch.ones_like(gram[0])
        # A task without a gradient has nothing to lose.
        plays = gram.diagonal() > 0
        weights[plays] = self._weigh(gram[plays][:, plays])
        return weights

    def _weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of tasks that all have gradients."""
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

    Weight moves from the task with the largest derivative to that with the smallest,
    as much as is best, until the derivatives show that no weights are better by more
    than `tol`. For two tasks the first move is exact. Plain numbers: with a handful of
    tasks, these are many times as quick as tensors.

    Parameters
    ----------
    gram : float64 Tensor of shape (n_tasks, n_tasks)
        Positive semi-definite, with entries of about 1.
    slopes : float64 Tensor of shape (n_tasks,)
        Of about 1 as well.
    c : float
        Weight of the root, > 0.
    tol : float, default=1e-9
        How far above the minimum the outcome may be.
    max_iter : int, default=10000
        Largest number of moves.

    Returns
    -------
    float64 Tensor of shape (n_tasks,)
        Weights >= 0 with a sum of 1.
    """
    rows, q = gram.tolist(), slopes.tolist()
    tasks = range(len(q))
    w = [1 / len(q)] * len(q)
    products = gram.mean(dim=0).tolist()  # gram @ w
    for _ in range(max_iter):
        squared = sum(map(mul, w, products))
        if squared <= VANISHED**2:
            break  # a corner of the root, with a minimum of 0 nearby
        norm = math.sqrt(squared)
        derivatives = [q[k] + c * products[k] / norm for k in tasks]
        to = min(tasks, key=derivatives.__getitem__)
        if sum(map(mul, w, derivatives)) - derivatives[to] <= tol:
            break
        of = max((k for k in tasks if w[k] > 0), key=derivatives.__getitem__)
        move = _best_move(
            q[to] - q[of],
            c,
            squared,
            products[to] - products[of],
            rows[to][to] - 2 * rows[to][of] + rows[of][of],
        )
        move = min(move, w[of])
        if move <= 0:
            break  # less than the rounding error
        w[to] += move
        w[of] = 0.0 if move == w[of] else w[of] - move
        products = [products[k] + move * (rows[k][to] - rows[k][of]) for k in tasks]
    return gram.new_tensor(w)


def _best_move(slope: float, c: float, a: float, b: float, curvature: float) -> float:
    """Minimise `slope * x + c * sqrt(a + 2 * b * x + curvature * x ** 2)` over x >= 0.

    The root is that of `curvature * ((x - middle) ** 2 + height ** 2)`.
    """
    if curvature <= 0:
        return math.inf if slope < 0 else 0.0  # equal gradients
    middle = -b / curvature
    height = math.sqrt(max(a * curvature - b * b, 0.0)) / curvature
    ratio = -slope / (c * math.sqrt(curvature))
    if abs(ratio) >= 1:
        return math.inf if slope < 0 else 0.0
    return max(middle + height * ratio / math.sqrt(1 - ratio**2), 0.0)
