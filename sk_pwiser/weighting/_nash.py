"""Nash-MTL: the bargaining solution over the tasks' gradients."""

import torch
from torch import Tensor

from sk_pwiser._utils._checks import check_integer, check_number
from sk_pwiser.weighting._base import GradientWeighting

# Lower bound of 1 + cosine of two gradients; a smaller value is rounding error of
# gradients in float32.
NEARLY_OPPOSITE = 1e-6
# Larger weights of unit vectors only occur below this bound.
TOO_LARGE = NEARLY_OPPOSITE**-0.5


class Nash(GradientWeighting):
    r"""Nash-MTL: the bargaining solution over the tasks' gradients.

    The gain of task k from a step d is :math:`g_k^\top d`. Among all steps of bounded
    length, the product of the gains is largest for :math:`d = \sum_k \alpha_k g_k` with

    .. math:: G G^\top \alpha = 1 / \alpha, \qquad \alpha > 0,

    where the rows of G are the gradients :math:`g_k` of the shared parameters and
    :math:`1 / \alpha` is taken elementwise. The step does not depend on the scale of
    the losses. :math:`\lVert d \rVert^2` is the number of tasks, and the gain of task k
    is :math:`1 / \alpha_k > 0`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    max_norm : float or None, default=1.0
        Largest length of the combined gradient of the shared parameters; a longer
        gradient is scaled down. With None, the length is the square root of the
        number of tasks.
    tol : float, default=1e-8
        Tolerance for the largest entry of :math:`|\alpha \circ G G^\top \alpha - 1|`.
    max_iter : int, default=100
        Largest number of Newton steps.

    Notes
    -----
    :math:`\alpha` is the unique minimiser of :math:`\frac{1}{2} \alpha^\top G G^\top
    \alpha - \sum_k \log \alpha_k`, which is computed by damped Newton steps on the
    cosines between the gradients. For two tasks with cosine c it is
    :math:`\alpha_k = 1 / (\lVert g_k \rVert \sqrt{1 + c})`.

    There is no solution if a convex combination of the gradients is 0, for example if
    two gradients are opposite. The cosines are then bounded away from this case by
    1e-6. A task whose gradient is 0 is ignored, and its weight is 0.

    The length of the step does not decrease near an optimum. Use an optimiser such as
    Adam, or a decreasing learning rate.

    The authors' code solves a sequence of convex programs to a tolerance of 1e-3, takes
    steps whose length depends on the scale of the gradients, multiplies the gradients
    of parameters of one task by the weights as well, and may reuse weights for several
    steps.

    References
    ----------
    Navon, Shamsian, Achituve, Maron, Kawaguchi, Chechik and Fetaya (2022), "Multi-task
    learning as a bargaining game", ICML. :arxiv:`2202.01017`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import Nash
    >>> weighting = Nash(2, max_norm=None)
    >>> weighting.combine([torch.tensor([[1.0, 0.0], [0.0, 500.0]])])
    [tensor([1., 1.])]
    """

    def __init__(
        self,
        n_tasks: int,
        *,
        max_norm: float | None = 1.0,
        tol: float = 1e-8,
        max_iter: int = 100,
    ) -> None:
        super().__init__(n_tasks)
        self.max_norm = max_norm
        if max_norm is not None:
            self.max_norm = check_number("max_norm", max_norm, above=0)
        self.tol = check_number("tol", tol, above=0)
        self.max_iter = check_integer("max_iter", max_iter, at_least=1)

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the bargaining weights, of shape `(n_tasks,)`."""
        norms = gram.diagonal().sqrt()
        active = norms > 0
        cosines = (gram / norms / norms.unsqueeze(1))[active][:, active]
        weights = torch.zeros_like(norms)
        weights[active] = self._bargain(cosines) / norms[active]
        if self.max_norm is not None:
            length = (weights @ gram @ weights).clamp(min=0).sqrt()
            weights = weights * (self.max_norm / length).clamp(max=1)
        return weights

    def _bargain(self, cosines: Tensor) -> Tensor:
        """Return the weights of unit vectors with the given cosines."""
        if len(cosines) == 2:
            return (1 + cosines[0, 1]).clamp(min=NEARLY_OPPOSITE).rsqrt().expand(2)
        weights = nash_weights(cosines, self.tol, self.max_iter)
        if weights.max() > TOO_LARGE:
            shift = NEARLY_OPPOSITE - torch.linalg.eigvalsh(cosines)[0].clamp(max=0)
            identity = torch.eye(len(cosines), dtype=cosines.dtype)
            cosines = (cosines + shift * identity) / (1 + shift)
            weights = nash_weights(cosines, self.tol, self.max_iter)
        return weights


def nash_weights(gram: Tensor, tol: float, max_iter: int) -> Tensor:
    """Solve `gram @ weights = 1 / weights` by a damped Newton method.

    The minimised function is self-concordant: steps damped by 1 / (1 + decrement) keep
    the weights positive and converge from any start. Without a solution, the iteration
    is stopped at large weights.
    """
    n_tasks = len(gram)
    identity = torch.eye(n_tasks, dtype=gram.dtype)
    # The optimal multiple of equal weights, which is the solution if all rows of the
    # matrix have the same sum.
    total = gram.sum().clamp(min=0.1 * NEARLY_OPPOSITE * n_tasks)
    weights = (n_tasks / total).sqrt().expand(n_tasks)
    for _ in range(max_iter):
        residual = weights * (gram @ weights) - 1
        if residual.abs().max() <= tol or weights.max() > 10 * TOO_LARGE:
            break
        # Variables are scaled by the weights, so that the smallest eigenvalue of the
        # Hessian is at least 1.
        hessian = weights * gram * weights.unsqueeze(1) + identity
        step = torch.linalg.solve(hessian, -residual)
        decrement = (-residual @ step).clamp(min=0).sqrt()
        length = 1.0 if decrement < 0.25 else 1 / (1 + decrement)
        weights = weights * (1 + length * step)
    return weights
