"""Weights from the uncertainty that each task is left with."""

import torch
from torch import Tensor, nn

from sk_pwiser.weighting._base import TaskWeighting


class Uncertainty(TaskWeighting):
    r"""Weights learnt as each task's homoscedastic uncertainty.

    .. math::
        L = \sum_k \left( e^{-s_k} L_k + \tfrac{1}{2} s_k \right)

    with :math:`L_k` the loss of task k and :math:`s_k = \log \sigma_k^2` its
    log-variance, a parameter that the optimiser learns together with the network's,
    from 0 on. At a loss that stays as it is the best one is
    :math:`s_k = \log(2 L_k)`, a weight of :math:`1 / (2 L_k)`.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Notes
    -----
    This is the paper's form for classification losses, of which it says that it is an
    approximation. The log-variances are free: a weight above 1, which a loss below
    1/2 asks for, is in reach. Losses of rare events are far below that, so their
    weights go on rising, as fast as the learning rate lets them. The weights are
    learnt with the optimiser and learning rate of the network, without weight decay.

    A loss of exactly 0, as of a batch without a signal for the task, leaves its
    log-variance as it is; the paper's losses always have a signal.

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
        """Return the weighted sum and what the variances cost, of shape `()`."""
        s = self.log_variances
        cost = torch.where(losses.detach() != 0, s / 2, 0.0)
        return ((-s).exp() * losses + cost).sum()
