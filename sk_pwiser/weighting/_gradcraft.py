"""GradCraft: gradients of like length that no longer conflict."""

import torch
from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._gradient import GradientWeighting


class GradCraft(GradientWeighting):
    r"""GradCraft: gradients of like length, projected off all conflicts at once.

    First the lengths are drawn together, by moving means :math:`m_k \leftarrow \beta
    m_k + (1 - \beta) \lVert g_k \rVert`:

    .. math:: g_k \leftarrow r \frac{\max_j m_j}{m_k} g_k + (1 - r) g_k

    Then every task k whose gradient has negative inner products with those of the
    tasks in a set J gets the combination of theirs added that leaves

    .. math::
        \tilde g_k^\top g_j = \epsilon \lVert g_k \rVert \lVert g_j \rVert
        \quad \text{for all } j \in J.

    The step is :math:`\sum_k \tilde g_k`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    relax : float, default=0.5
        The r above, in [0, 1]: 0 leaves the lengths as they are, 1 makes the moving
        lengths equal.
    decay : float, default=0.9
        The decay :math:`\beta` of the moving lengths, in [0, 1).
    epsilon : float, default=1e-8
        The cosine that conflicting gradients are left with, in [0, 1].

    Raises
    ------
    ValueError, TypeError
        If a parameter is no number in its range.

    Notes
    -----
    PCGrad projects on one task after another, and a later projection may bring an
    earlier conflict back; here all conflicts of a task are solved together, by least
    squares where the gradients of J are not independent.

    The authors search for r in [0, 1] and for :math:`\epsilon` in 1e-10 to 1e-8.

    Departures: lengths and conflicts are those over the shared entries, where the
    authors' code takes all parameters; and it averages over the tasks where this sums,
    as with equal weights. A task whose gradient has always been 0 is left out.

    References
    ----------
    Bai, Zhang, Li, Yu, Liu, Feng and He (2024), "GradCraft: elevating multi-task
    recommendations through holistic gradient crafting", KDD. :arxiv:`2407.19682`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import GradCraft
    >>> weighting = GradCraft(2, relax=1.0, epsilon=0.0)
    >>> weighting.combine([torch.tensor([[2.0, 0.0], [0.0, 1.0]])])
    [tensor([2., 2.])]
    """

    lengths: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        relax: float = 0.5,
        decay: float = 0.9,
        epsilon: float = 1e-8,
    ) -> None:
        super().__init__(n_tasks)
        self.relax = check_number("relax", relax, at_least=0, at_most=1)
        self.decay = check_number("decay", decay, at_least=0, below=1)
        self.epsilon = check_number("epsilon", epsilon, at_least=0, at_most=1)
        # They start at 0, which ratios do not see.
        self.register_buffer("lengths", torch.zeros(n_tasks))

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of the original gradients in the step, `(n_tasks,)`."""
        lengths = self.decay * self.lengths.to(gram)
        lengths = lengths + (1 - self.decay) * gram.diagonal().sqrt()
        self.lengths.copy_(lengths)
        ratios = torch.where(lengths > 0, lengths.max() / lengths, 1.0)
        scales = self.relax * ratios + (1 - self.relax)
        return scales * without_conflicts(gram * scales.outer(scales), self.epsilon)


def without_conflicts(gram: Tensor, epsilon: float) -> Tensor:
    """Return the weights of the gradients in the sum of the projected ones.

    Parameters
    ----------
    gram : float64 Tensor of shape (n_tasks, n_tasks)
        Inner products of the gradients.
    epsilon : float
        Cosine that conflicting gradients are left with.

    Returns
    -------
    float64 Tensor of shape (n_tasks,)
        1 where there are no conflicts.
    """
    norms = gram.diagonal().sqrt()
    weights = torch.ones_like(norms)
    for k, products in enumerate(gram):
        conflicting = products < 0
        if not conflicting.any():
            continue
        among = gram[conflicting][:, conflicting]
        wanted = epsilon * norms[k] * norms[conflicting] - products[conflicting]
        # "gelsd" takes the shortest solution where the matrix is singular.
        solution = torch.linalg.lstsq(among, wanted.unsqueeze(1), driver="gelsd")
        weights[conflicting] += solution.solution.squeeze(1)
    return weights
