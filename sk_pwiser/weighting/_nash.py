"""Nash-MTL: the weights on which bargaining tasks agree."""

import torch
from torch import Tensor

from sk_pwiser._utils import check_integer, check_number
from sk_pwiser.weighting._gradient import GradientWeighting

# Below this, the lengths of directions in which all losses fall are rounding errors
# of gradients in float32.
NEARLY_OPPOSITE = 1e-6
# Weights of unit vectors beyond this come from such directions.
TOO_LARGE = NEARLY_OPPOSITE**-0.5


class Nash(GradientWeighting):
    r"""Nash-MTL: the bargaining solution over the tasks' gradients.

    Each task gains :math:`g_k^\top d` from a step d. Over steps of bounded length, the
    product of the gains is largest for :math:`d = \sum_k \alpha_k g_k` with

    .. math:: G G^\top \alpha = 1 / \alpha, \qquad \alpha > 0,

    where the rows of G are the gradients :math:`g_k` of the shared parameters and
    :math:`1 / \alpha` is taken entry by entry. The step does not depend on the scale
    of the losses; :math:`\lVert d \rVert^2` is the number of tasks, and task k gains
    :math:`1 / \alpha_k > 0`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    max_norm : float or None, default=1.0
        Largest length of the step's gradient of the shared parameters; a longer one is
        scaled down. None leaves the length at the root of the number of tasks.
    tol : float, default=1e-8
        Largest entry of :math:`|\alpha \circ G G^\top \alpha - 1|` that is taken for
        0.
    max_iter : int, default=100
        Largest number of Newton steps.

    Raises
    ------
    ValueError, TypeError
        If a parameter is no number in its range.

    Notes
    -----
    :math:`\alpha` is the only minimiser of :math:`\frac{1}{2} \alpha^\top G G^\top
    \alpha - \sum_k \log \alpha_k`, found by damped Newton steps on the cosines of the
    gradients; for two tasks of cosine c it is :math:`\alpha_k = 1 / (\lVert g_k \rVert
    \sqrt{1 + c})`.

    Where gradients are opposite, or some mean of them vanishes, there is no solution:
    the cosines are then kept off that by 1e-6. A task without a gradient takes no part
    in the bargaining, and has weight 0.

    The length of the step does not shrink towards an optimum: use an optimiser that
    divides by moving lengths of gradients, such as Adam, or a learning rate that
    decreases.

    Departures: the authors' code solves a sequence of convex programmes to 1e-3, has a
    step of a length that depends on the scale of the gradients before it is cut to
    `max_norm`, and applies the weights to the parameters of single tasks as well,
    which here keep their plain gradients. It also offers to reuse weights for several
    steps to save the gradients of the tasks; these are needed in every step here, to
    tell shared parameters from others.

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
        if max_norm is not None:
            check_number("max_norm", max_norm, above=0)
        self.max_norm = max_norm
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
        """Return the weights of unit vectors with these cosines."""
        if len(cosines) == 2:
            gap = (1 + cosines[0, 1]).clamp(min=NEARLY_OPPOSITE)
            return gap.rsqrt().expand(2)
        weights = nash_weights(cosines, self.tol, self.max_iter)
        if weights.max() > TOO_LARGE:
            shift = NEARLY_OPPOSITE - torch.linalg.eigvalsh(cosines)[0].clamp(max=0)
            identity = torch.eye(len(cosines), dtype=cosines.dtype)
            cosines = (cosines + shift * identity) / (1 + shift)
            weights = nash_weights(cosines, self.tol, self.max_iter)
        return weights


def nash_weights(gram: Tensor, tol: float, max_iter: int) -> Tensor:
    """Solve `gram @ weights = 1 / weights` by a damped Newton method.

    The function that it minimises is self-concordant, for which steps of length
    1 / (1 + decrement) stay positive and lead to the minimum from any start.

    Parameters
    ----------
    gram : float64 Tensor of shape (n_tasks, n_tasks)
        Positive semi-definite.
    tol : float
        Largest entry of `|weights * (gram @ weights) - 1|` at the solution.
    max_iter : int
        Largest number of steps.

    Returns
    -------
    float64 Tensor of shape (n_tasks,)
        Weights above 0; large ones, as far as they were followed, where there is no
        solution.
    """
    n_tasks = len(gram)
    identity = torch.eye(n_tasks, dtype=gram.dtype)
    # The best multiple of equal weights: the solution where all are alike.
    total = gram.sum().clamp(min=0.1 * NEARLY_OPPOSITE * n_tasks)
    weights = (n_tasks / total).sqrt().expand(n_tasks)
    for _ in range(max_iter):
        residual = weights * (gram @ weights) - 1
        if residual.abs().max() <= tol or weights.max() > 10 * TOO_LARGE:
            break
        # In units of the weights: the Hessian is then at least the identity.
        hessian = weights * gram * weights.unsqueeze(1) + identity
        step = torch.linalg.solve(hessian, -residual)
        decrement = (-residual @ step).clamp(min=0).sqrt()
        length = 1.0 if decrement < 0.25 else 1 / (1 + decrement)
        weights = weights * (1 + length * step)
    return weights
