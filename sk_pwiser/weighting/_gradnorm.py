"""GradNorm: weights that balance the norms of the tasks' gradients."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sk_pwiser._utils import check_number
from sk_pwiser.weighting._gradient import GradientWeighting

# A gradient counts as vanished below this length, relative to the longest one.
VANISHED = 1e-8


class GradNorm(GradientWeighting):
    r"""GradNorm: weights learned such that slow tasks get longer gradients.

    The weights are learned by gradient descent on

    .. math::
        \sum_k \left| w_k \lVert g_k \rVert - \bar G\, r_k^\alpha \right|, \qquad
        r_k = \frac{L_k(t) / L_k(0)}{\operatorname{mean}_j L_j(t) / L_j(0)}

    where :math:`w_k` is the weight of task k, :math:`g_k` the gradient of its loss
    :math:`L_k` with respect to the shared parameters, :math:`\bar G` the mean of
    :math:`w_j \lVert g_j \rVert` over the tasks, and :math:`r_k` the relative inverse
    training rate. The targets :math:`\bar G\, r_k^\alpha` are treated as constants.
    All weights start at 1 and remain positive, and their sum is `n_tasks`. A step uses
    the weights before their update in that step.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    alpha : float, default=1.5
        Exponent of the training rates, >= 0. The larger it is, the longer are the
        gradients of slow tasks. With 0 all gradients are brought to the same length.
    lr : float, default=0.025
        Learning rate of the weights, > 0.

    Notes
    -----
    This implementation differs from the paper in these points:

    - The weights multiply the gradients of the shared parameters only. Parameters of
      one task, such as its tower, take the plain gradient of that task, as with all
      subclasses of :class:`GradientWeighting`. In the paper the weight multiplies the
      whole loss.
    - The norms are computed over all shared parameters, not over the last shared
      layer.
    - The targets are divided by the mean of :math:`r_j^\alpha`. Otherwise weights with
      a fixed sum could not reach all of them.
    - The descent is on the logarithms of the weights, with its own learning rate `lr`
      and with the sum above divided by :math:`\bar G`, and no step moves a weight
      beyond its target. The weights therefore remain positive for losses of any scale.
    - If the loss of a task is not above 0, or its gradient is negligible compared to
      the longest one, the weight of the task is unchanged in this step, and the task
      does not enter the means.
    - The initial loss :math:`L_k(0)` is the expected loss at the base rate of the task,
      for cross-entropy the entropy of the rate, instead of the loss of the first batch,
      which depends on whether the batch has a positive row. If the weighting is used
      alone, or with a loss that is not a mean over rows, such as "jrc" and
      "combined_pair", it is the mean of the losses above 0 in the first epoch, before
      the end of which it is the mean so far.
    - In the training rates, :math:`L_k(t)` is a mean over the weights: the loss of the
      batch divided by the mean weight of its rows for the task. Otherwise missing
      labels, small weights of a task and, in conditional task space, few rows with the
      task that it presupposes would count as progress.
    - Extra losses that a network adds, such as the corrections of ESCM2, have no
      expected value at the base rates. They are left out of :math:`L_k(t)` in the
      training rates, and are part of the gradients.

    References
    ----------
    Chen et al. (2018), "GradNorm: gradient normalization for adaptive loss balancing in
    deep multitask networks", ICML. :arxiv:`1711.02257`

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
    n_initial: Tensor
    losses: Tensor
    extra_losses: Tensor
    mean_weights: Tensor

    def __init__(self, n_tasks: int, *, alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(n_tasks)
        self.alpha = check_number("alpha", alpha, at_least=0.0)
        self.lr = check_number("lr", lr, above=0.0)
        self.register_buffer("weights", torch.ones(n_tasks))
        # 0 if unknown, until the first loss of the task that is above 0.
        self.register_buffer("initial_losses", torch.zeros(n_tasks))
        # The number of losses in the mean of the epoch; 0 if no loss is added any more.
        count = torch.zeros(n_tasks, dtype=torch.int64)
        self.register_buffer("n_initial", count, persistent=False)
        # Values of the current step, which later steps do not need.
        self.register_buffer("losses", torch.zeros(n_tasks), persistent=False)
        self.register_buffer("extra_losses", torch.zeros(n_tasks), persistent=False)
        self.register_buffer("mean_weights", torch.ones(n_tasks), persistent=False)

    def set_base_losses(self, losses: Tensor) -> None:
        """Take the expected losses at the base rates, `(n_tasks,)`, as initial ones."""
        self.initial_losses.copy_(losses)

    def set_sample_weight(self, sample_weight: Tensor | None) -> None:
        """Take the mean weights of the tasks, by which the rates divide the losses."""
        if sample_weight is None or sample_weight.dim() == 1:  # equal for all tasks
            self.mean_weights.fill_(1.0)
        else:
            self.mean_weights.copy_(sample_weight.mean(dim=0))

    def set_extra_losses(self, losses: Tensor) -> None:
        """Take the extra losses of a step, `(n_tasks,)`, which the rates leave out."""
        self.extra_losses.copy_(losses)

    def backward(
        self,
        losses: Tensor,
        penalty: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> None:
        """Combine the tasks' gradients and store the result in the parameters."""
        known = (losses.detach() - self.extra_losses) / self.mean_weights
        self.losses.copy_(torch.where(self.mean_weights > 0, known, 0.0))
        is_open = (self.initial_losses == 0) | (self.n_initial > 0)
        is_added = is_open & (self.losses > 0)
        self.n_initial += is_added
        change = (self.losses - self.initial_losses) / self.n_initial.clamp(min=1)
        self.initial_losses += torch.where(is_added, change, 0.0)
        super().backward(losses, penalty, parameters)

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them; end means of first losses."""
        self.n_initial.zero_()
        return super().end_epoch()

    def weigh(self, gram: Tensor) -> Tensor:
        """Return the weights of the step, of shape `(n_tasks,)`, then update them."""
        # One copy from the device.
        known = torch.stack([self.weights, self.losses, self.initial_losses])
        weights, losses, initial_losses = known.to(gram).unbind()
        norms = gram.diagonal().sqrt()
        progress = losses / initial_losses
        is_active = (losses > 0) & (norms > VANISHED * norms.max())
        if is_active.any():
            updated = weights.clone()
            updated[is_active] = self._update(
                weights[is_active], norms[is_active], progress[is_active]
            )
            self.weights.copy_(updated)
        return weights

    def _update(self, weights: Tensor, norms: Tensor, progress: Tensor) -> Tensor:
        """Return the weights of the active tasks after one step of the descent."""
        lengths = weights * norms
        # The targets are proportional to progress ** alpha and sum to the same total.
        targets = lengths.sum() * (self.alpha * progress.log()).softmax(dim=0)
        # The derivative of |length - target| / mean with respect to log w is
        # length / mean, up to its sign.
        limit = self.lr * lengths / lengths.mean()
        step = (targets / lengths).log().clamp(-limit, limit)
        updated = weights * step.exp()
        return updated * weights.sum() / updated.sum()
