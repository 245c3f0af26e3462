"""Weights of the tasks' losses, learned as their uncertainty."""

import torch
from torch import Tensor, nn

from sk_pwiser.weighting._base import TaskWeighting


class Uncertainty(TaskWeighting):
    r"""Weights learned as the homoscedastic uncertainty of each task.

    .. math::
        L = \sum_k \left( e^{-s_k} L_k + \tfrac{1}{2} s_k \right)

    with :math:`L_k` the loss of task k and :math:`s_k = \log \sigma_k^2` its
    log-variance. The log-variances start at 0 and are learned by the optimiser
    together with the network's parameters. For a constant loss, the optimum is
    :math:`s_k = \log(2 L_k)`, which is a weight of :math:`1 / (2 L_k)`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Notes
    -----
    This is the paper's form for classification losses, which the paper itself calls
    an approximation. The log-variances are not bounded, so that weights above 1 are
    possible; the optimal weight is above 1 if the loss is below 1/2. The losses of
    rare events are far below 1/2, so their weights rise during the whole training, at
    a speed that is limited by the learning rate. The weights are learned with the
    optimiser and the learning rate of the network, without weight decay.

    This implementation differs from the paper in batches in which the loss of a task
    is exactly 0 because the batch has no rows for it: the log-variance of the task is
    then unchanged.

    References
    ----------
    Kendall, Gal and Cipolla (2018), "Multi-task learning using uncertainty to weigh
    losses for scene geometry and semantics", CVPR. :arxiv:`1705.07115`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import Uncertainty
    >>> weighting = Uncertainty(2)
    >>> losses = torch.tensor([0.5, 0.05])
    >>> optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    >>> for _ in range(100):
    ...     optimizer.zero_grad()
    ...     weighting(losses).backward()
    ...     optimizer.step()
    >>> weighting.log_variances.detach().neg().exp()  # 1 / (2 * 0.5), 1 / (2 * 0.05)
    tensor([ 1.0000, 10.0000])
    """

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.log_variances = nn.Parameter(torch.zeros(n_tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum plus the log-variance terms, of shape `()`."""
        s = self.log_variances
        # Without a loss, s / 2 alone would push the log-variance down.
        log_terms = torch.where(losses.detach() != 0, s / 2, 0.0)
        return ((-s).exp() * losses + log_terms).sum()
