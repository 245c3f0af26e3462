"""Weights that keep the norms of the tasks' gradients in proportion."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._gradient import GradientWeighting

# A gradient that is shorter than this share of the longest one has vanished.
VANISHED = 1e-8


class GradNorm(GradientWeighting):
    r"""GradNorm: weights learnt so that slow tasks get longer gradients.

    The weights go down the gradient of

    .. math::
        \sum_k \left| w_k \lVert g_k \rVert - \bar G\, r_k^\alpha \right|, \qquad
        r_k = \frac{L_k(t) / L_k(0)}{\operatorname{mean}_j L_j(t) / L_j(0)}

    with :math:`w_k` the weight of task k, :math:`g_k` the gradient of its loss
    :math:`L_k` by the shared entries, :math:`\bar G` the mean of the
    :math:`w_j \lVert g_j \rVert` over the tasks, and :math:`r_k` the relative inverse
    training rate. The targets :math:`\bar G\, r_k^\alpha` are held constant. All
    weights begin at 1 and stay above 0, with `n_tasks` as their sum. A step is made
    with the weights that the steps before it left.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    alpha : float, default=1.5
        How much longer the gradients of slow tasks are to be, >= 0. At 0 all are to be
        equally long.
    lr : float, default=0.025
        Learning rate of the weights, > 0.

    Raises
    ------
    ValueError, TypeError
        If alpha or lr is no number in its range.

    Notes
    -----
    Departures from the paper:

    - The weights act on the shared entries alone. Entries that one task uses, such as
      its tower, take that task's plain gradient, as with every
      :class:`GradientWeighting`; in the paper the weight multiplies the whole loss.
    - The norms are over all shared entries, not over those of the last shared layer.
    - The targets are divided by the mean of the :math:`r_j^\alpha`, without which they
      could not all be met by weights of a given sum.
    - The descent is on the logarithms of the weights, with a learning rate of their
      own, on the sum above divided by :math:`\bar G`, and no step goes beyond a
      weight's target. So the weights stay above 0, whatever the scale of the losses.
    - A task without a signal in the batch, that is with a loss that is not above 0 or
      a gradient that has vanished beside the longest one, keeps its weight and plays
      no part in the means.

    :math:`L_k(0)` is the first loss above 0 of the task, in one batch: larger batches
    make it less of an accident.

    References
    ----------
    Chen, Badrinarayanan, Lee and Rabinovich (2018), "GradNorm: gradient normalization
    for adaptive loss balancing in deep multitask networks", ICML.
    :arxiv:`1711.02257`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import GradNorm
    >>> weighting = GradNorm(2)
    >>> shared = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    >>> for _ in range(200):
    ...     losses = torch.stack([shared.sum(), 3 * shared.sum()])
    ...     weighting.backward(losses, None, [shared])
    >>> weighting.weights
    tensor([1.5000, 0.5000])
    """

    weights: Tensor
    initial_losses: Tensor
    losses: Tensor

    def __init__(self, n_tasks: int, *, alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(n_tasks)
        self.alpha = check_number("alpha", alpha, at_least=0.0)
        self.lr = check_number("lr", lr, above=0.0)
        self.register_buffer("weights", torch.ones(n_tasks))
        # 0 where a task had no signal yet.
        self.register_buffer("initial_losses", torch.zeros(n_tasks))
        # Those of the step that is being made, which is no state to go on from.
        self.register_buffer("losses", torch.zeros(n_tasks), persistent=False)

    def backward(
        self,
        losses: Tensor,
        penalty: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> None:
        """Combine the gradients of the tasks and leave them in the parameters."""
        self.losses.copy_(losses.detach())
        is_first = (self.initial_losses == 0) & (self.losses > 0)
        self.initial_losses.copy_(
            torch.where(is_first, self.losses, self.initial_losses)
        )
        super().backward(losses, penalty, parameters)

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of the step, of shape `(n_tasks,)`; learn the next."""
        weights = self.weights.to(gram)
        norms = gram.diagonal().sqrt()
        progress = self.losses.to(gram) / self.initial_losses.to(gram)
        has_signal = (self.losses > 0).to(gram.device)
        takes_part = has_signal & (norms > VANISHED * norms.max())
        if takes_part.any():
            self.weights[takes_part.to(self.weights.device)] = self._moved(
                weights[takes_part], norms[takes_part], progress[takes_part]
            ).to(self.weights)
        return weights

    def _moved(self, weights: Tensor, norms: Tensor, progress: Tensor) -> Tensor:
        """Return the weights of the tasks that take part, after a step."""
        lengths = weights * norms
        # In proportion to progress ** alpha, and with the sum of the lengths.
        targets = lengths.sum() * (self.alpha * progress.log()).softmax(dim=0)
        # The slope of |length - target| / mean by log w is the length over the mean.
        most = self.lr * lengths / lengths.mean()
        step = (targets / lengths).log().clamp(-most, most)
        moved = weights * step.exp()
        return moved * weights.sum() / moved.sum()
