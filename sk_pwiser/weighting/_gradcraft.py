"""GradCraft: gradients of similar length without conflicts."""

import torch
from torch import Tensor

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._gradient import GradientWeighting

# A gradient is lengthened to at most this multiple of the average that it approaches.
LONGEST = 100.0


class GradCraft(GradientWeighting):
    r"""GradCraft: gradients of similar length, with all conflicts removed jointly.

    First the lengths of the gradients are brought closer together, by their moving
    averages :math:`m_k` over the earlier batches:

    .. math::
        g_k \leftarrow r \frac{\max_j m_j}{m_k} g_k + (1 - r) g_k, \quad\text{then}\quad
        m_k \leftarrow \beta m_k + (1 - \beta) \lVert g_k \rVert

    with the original gradient in the second formula.

    Then, for each task k, let J be the set of tasks whose gradients have a negative
    inner product with :math:`g_k`. A linear combination of the gradients of J is
    added to :math:`g_k`, such that

    .. math::
        \tilde g_k^\top g_j = \epsilon \lVert g_k \rVert \lVert g_j \rVert
        \quad \text{for all } j \in J.

    The step is :math:`\sum_k \tilde g_k`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    relax : float, default=0.5
        The factor r, in [0, 1]. With 0 the lengths are unchanged, with 1 all moving
        averages of the lengths become equal.
    decay : float, default=0.9
        Decay :math:`\beta` of the moving averages, in [0, 1).
    epsilon : float, default=1e-8
        Cosine between conflicting gradients after the projection, in [0, 1].

    Notes
    -----
    PCGrad (Yu et al., 2020, :arxiv:`2001.06782`) projects onto one task after another,
    and a later projection may restore an earlier conflict. GradCraft solves for all
    conflicts of a task jointly, by least squares if the gradients of J are linearly
    dependent.

    The authors search r in [0, 1] and :math:`\epsilon` between 1e-10 and 1e-8.

    This implementation differs from the authors' code in four points: lengths and
    conflicts are computed over the shared parameters instead of all parameters; the
    step is the sum over the tasks instead of their mean, as with equal weights; the
    averages start with the first length and exclude the current batch; and they skip
    batches in which the gradient of the task is 0, such as those without a known label
    or, in conditional task space, without a click. Otherwise a batch with a positive
    row of a rare task, whose gradient is long, would reduce its own weight, and the
    first batch after many without a label would have an arbitrarily large one. A task
    whose gradient was 0 in all steps so far is ignored.

    As in the authors' code, the ratio of the averages has no limit, so that tasks with
    short gradients may have weights of hundreds. A single gradient, however, is
    lengthened to at most 100 times the longest average. In the authors' code the limit
    is :math:`1/(1-\beta)`, as the average includes the gradient; it would shorten the
    gradient of a positive row if fewer than about one in ten batches has such a row.

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
        self.register_buffer("lengths", torch.zeros(n_tasks))

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of the original gradients in the step, `(n_tasks,)`."""
        norms, before = gram.diagonal().sqrt(), self.lengths.to(gram)
        lengths = torch.where(before > 0, before, norms)
        moved = lengths.lerp(norms, 1 - self.decay)
        self.lengths.copy_(torch.where(norms > 0, moved, before))
        lengths = lengths.maximum(norms / LONGEST)
        ratios = torch.where(lengths > 0, lengths.max() / lengths, 1.0)
        scales = self.relax * ratios + (1 - self.relax)
        return scales * without_conflicts(gram * scales.outer(scales), self.epsilon)


def without_conflicts(gram: Tensor, epsilon: float) -> Tensor:
    """Return the weights of the gradients in the sum of the projected gradients."""
    norms = gram.diagonal().sqrt()
    weights = torch.ones_like(norms)
    for k, products in enumerate(gram):
        conflicting = products < 0
        if not conflicting.any():
            continue
        among = gram[conflicting][:, conflicting]
        wanted = epsilon * norms[k] * norms[conflicting] - products[conflicting]
        # "gelsd" returns the shortest solution if the matrix is singular.
        solution = torch.linalg.lstsq(among, wanted.unsqueeze(1), driver="gelsd")
        weights[conflicting] += solution.solution.squeeze(1)
    return weights
