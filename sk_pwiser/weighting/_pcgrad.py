"""PCGrad: gradients without the parts that undo another task."""

import torch
from torch import Tensor

from sk_pwiser.weighting._gradient import GradientWeighting


class PCGrad(GradientWeighting):
    r"""PCGrad: projecting conflicting gradients.

    Each task's gradient, :math:`\tilde g_k = g_k` at first, goes through the other
    tasks in random order and loses what works against them:

    .. math::
        \tilde g_k \leftarrow \tilde g_k - \frac{\min(\tilde g_k^\top g_j, 0)}
        {\lVert g_j \rVert^2}\, g_j

    The step is :math:`\sum_k \tilde g_k`. Without conflicts it is the plain sum.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Notes
    -----
    The projections are carried out on the inner products of the gradients. The order
    of the tasks is drawn from torch's own generator, which `fit` seeds by
    `random_state`; it matters from three tasks on.

    Departures: none. What the paper calls shared parameters is found by entry here,
    and other entries keep their plain gradients.

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
        # Row k holds task k's projected gradient as a combination of all gradients.
        rows = torch.eye(self.n_tasks, dtype=gram.dtype)
        for k, row in enumerate(rows):
            for j in torch.randperm(self.n_tasks).tolist():
                product = row @ gram[j]
                if j != k and product < 0:
                    row[j] -= product / gram[j, j]
        return rows.sum(dim=0)
