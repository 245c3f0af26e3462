"""PCGrad: gradients without their components in conflict with other tasks."""

import torch
from torch import Tensor

from sk_pwiser._utils import generator_on
from sk_pwiser.weighting._gradient import GradientWeighting


class PCGrad(GradientWeighting):
    r"""PCGrad: projecting conflicting gradients.

    Starting from :math:`\tilde g_k = g_k`, each task's gradient is projected onto the
    normal plane of the gradient of every other task with which it conflicts. The
    other tasks j are visited in random order:

    .. math::
        \tilde g_k \leftarrow \tilde g_k - \frac{\min(\tilde g_k^\top g_j, 0)}
        {\lVert g_j \rVert^2}\, g_j

    The step is :math:`\sum_k \tilde g_k`. Without conflicts it is the plain sum of the
    gradients.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Notes
    -----
    The projections are computed from the inner products of the gradients. The random
    order, which has an effect with three or more tasks, depends on the `random_state`
    of the estimator.

    References
    ----------
    Yu, Kumar, Gupta, Levine, Hausman and Finn (2020), "Gradient surgery for multi-task
    learning", NeurIPS. :arxiv:`2001.06782`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import PCGrad
    >>> PCGrad(2).combine([torch.tensor([[1.0, 0.0], [-1.0, 1.0]])])
    [tensor([0.5000, 1.5000])]
    """

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of the original gradients in the step, `(n_tasks,)`."""
        generator = generator_on(torch.device("cpu"))
        # Row k contains the coefficients of task k's projected gradient.
        rows = torch.eye(self.n_tasks, dtype=gram.dtype)
        for k, row in enumerate(rows):
            for j in torch.randperm(self.n_tasks, generator=generator).tolist():
                product = row @ gram[j]
                if j != k and product < 0:
                    row[j] -= product / gram[j, j]
        return rows.sum(dim=0)
