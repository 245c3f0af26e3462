"""The base class of the weightings, and those that combine losses."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sk_pwiser._utils import check_choice, check_number, is_iterable


class TaskWeighting(nn.Module):
    """Base class of the weightings, which combine one loss per task.

    A subclass takes the number of tasks and its own keyword parameters, and defines
    `forward`. The class can then be passed as `weighting` to
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`. The weightings of this package raise
    TypeError or ValueError for parameters of a wrong type or out of range.

    Parameters and persistent buffers are the state of a weighting: they are stored
    with the fitted estimator, and `partial_fit` continues from them. Settings of the
    user must not be stored in them.

    With one task there is nothing to combine, and `forward` is not called.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Attributes
    ----------
    needs_task_gradients : bool
        Whether the weighting combines the tasks' gradients instead of their losses. A
        step then needs one backward pass per task. A class attribute; an object has
        False if there is only one task.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import TaskWeighting
    >>> class Worst(TaskWeighting):
    ...     def forward(self, losses):
    ...         return losses.max()
    >>> Worst(2)(torch.tensor([0.5, 0.25]))
    tensor(0.5000)
    """

    needs_task_gradients: bool = False

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        self.n_tasks = n_tasks
        self.needs_task_gradients = self.needs_task_gradients and n_tasks > 1
        # In place, as graphs require.
        self._sums = nn.Buffer(torch.zeros(n_tasks), persistent=False)
        self._n_steps = nn.Buffer(torch.zeros(1), persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Combine the losses of the tasks.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss per task.

        Returns
        -------
        Tensor of shape ()
            The loss to minimise.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward.")

    def backward(
        self, losses: Tensor, penalty: Tensor | None, parameters: Iterable[nn.Parameter]
    ) -> None:
        """Compute the gradients of a step and store them in the parameters.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss per task, with its graph.
        penalty : Tensor of shape () or None
            Sum of the penalties, which belong to no task.
        parameters : iterable of Parameter
            The network's parameters.
        """
        if losses.requires_grad:
            # The weight of a loss is the derivative of the total with respect to it.
            losses.register_hook(self.record)  # type: ignore[no-untyped-call]
        total: Tensor = self(losses) if self.n_tasks > 1 else losses.sum()
        is_scalar = isinstance(total, Tensor) and total.dim() == 0
        if not is_scalar or total.requires_grad < losses.requires_grad:
            raise ValueError(
                f"weighting {type(self).__name__} must return a Tensor of shape () from"
                f" forward, through which gradients reach the losses; got {total!r}."
            )
        if penalty is not None:
            total = total + penalty
        total.backward()  # type: ignore[no-untyped-call]

    def report(self, losses: Tensor) -> Tensor:
        """Return the sum of the losses, for the history and for early stopping.

        Weights that change during training would make epochs incomparable, so they
        are ignored here.

        Parameters
        ----------
        losses : Tensor of shape (n_tasks,)
            One loss per task.

        Returns
        -------
        Tensor of shape ()
            Sum of the losses.
        """
        return losses.sum()

    def record(self, weights: Tensor) -> None:
        """Add the weights of a step to the mean of the epoch.

        Parameters
        ----------
        weights : Tensor of shape (n_tasks,)
            Factor of each task's loss or gradient in the step.
        """
        # Weightings of gradients compute their weights on the CPU. The host does not
        # wait for the copy to another device.
        on_device = self._sums.device.type != "cpu"
        self._sums.add_(weights.detach().to(self._sums, non_blocking=on_device))
        self._n_steps.add_(1)

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them.

        Methods whose weights change between epochs override this method.

        Returns
        -------
        list of float
            One weight per task, or an empty list if there was no step.
        """
        weights, n_steps = self._sums / self._n_steps, float(self._n_steps)
        self._sums.zero_()
        self._n_steps.zero_()
        return weights.tolist() if n_steps else []


class Equal(TaskWeighting):
    """The sum of the tasks' losses.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import Equal
    >>> Equal(2)(torch.tensor([0.5, 0.25]))
    tensor(0.7500)
    """

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        # Settings, and no part of the state: `partial_fit` may change them.
        self.weights = nn.Buffer(torch.ones(n_tasks), persistent=False)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses, of shape `()`."""
        return (self.weights * losses).sum()

    def backward(
        self, losses: Tensor, penalty: Tensor | None, parameters: Iterable[nn.Parameter]
    ) -> None:
        """Compute the gradients of a step from the weights, without a total loss."""
        if type(self).forward is not Equal.forward:
            # A subclass with its own `forward` may compute any total.
            super().backward(losses, penalty, parameters)
            return
        terms: list[tuple[Tensor, Tensor | None]] = [(losses, self.weights)]
        if penalty is not None:
            terms.append((penalty, None))
        # As in a sum, a constant term has no gradient.
        terms = [term for term in terms if term[0].requires_grad] or terms
        torch.autograd.backward([term for term, _ in terms], [w for _, w in terms])

    def end_epoch(self) -> list[float]:
        """Return the weights."""
        if type(self).forward is Equal.forward:
            return list(self.weights.tolist())
        return super().end_epoch()  # of a subclass with its own `forward`


class Fixed(Equal):
    """A weighted sum of the tasks' losses, with weights given by the user.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    weights : sequence of float of length n_tasks
        Weights >= 0, at least one of them > 0. They are not normalised.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import Fixed
    >>> Fixed(2, weights=[1.0, 4.0])(torch.tensor([0.5, 0.25]))
    tensor(1.5000)
    """

    def __init__(self, n_tasks: int, *, weights: Sequence[float]) -> None:
        is_sequence = is_iterable(weights) and not isinstance(weights, Mapping)
        values = [
            check_number(f"weights[{k}]", value, at_least=0)
            for k, value in enumerate(weights if is_sequence else ())
        ]
        if len(values) != n_tasks or not any(values):
            raise ValueError(
                f"weights must be a sequence of {n_tasks} numbers, one per task, and "
                f"not only 0; got {weights!r}."
            )
        super().__init__(n_tasks)
        if n_tasks > 1:  # the weight of a single task does not count
            self.weights.copy_(torch.tensor(values))

    def report(self, losses: Tensor) -> Tensor:
        """Return the loss that is minimised: the weighted sum, of shape `()`."""
        return (self.weights * losses).sum()


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


class DynamicWeightAverage(TaskWeighting):
    r"""Dynamic weight average: tasks whose loss falls slowly get larger weights.

    .. math::
        L = \sum_k \lambda_k L_k, \qquad
        \lambda_k = \frac{K \exp(r_k / T)}{\sum_j \exp(r_j / T)}, \qquad
        r_k = \frac{\bar L_k(e - 1)}{\bar L_k(e - 2)}

    in epoch e, where :math:`L_k` is the loss of task k in the batch, :math:`\bar L_k`
    its mean over the batches of an epoch, K the number of tasks and T the temperature.
    All weights are 1 in the first two epochs.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    temperature : float, default=2.0
        Temperature T of the softmax, > 0. The weights are more uniform for higher
        values.

    Notes
    -----
    The weights depend on the rates of the losses, not on their scale: a task whose
    loss is a hundred times as large as the other losses still dominates the sum. The
    weighting "ema" with `rate="dwa"` also removes the scale.

    This implementation differs from the paper in batches in which the loss of a task
    is exactly 0 because the batch has no rows for it: they do not enter the mean of
    the task. A task without a mean has rate 1. Each call of `partial_fit` counts as
    one epoch.

    References
    ----------
    Liu, Johns and Davison (2019), "End-to-end multi-task learning with attention",
    CVPR. :arxiv:`1803.10704`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import DynamicWeightAverage
    >>> weighting = DynamicWeightAverage(2)
    >>> for losses in ([1.0, 1.0], [0.5, 1.0], [0.5, 1.0]):
    ...     total = weighting(torch.tensor(losses))
    ...     weights = weighting.end_epoch()
    >>> total  # 0.5 * 0.8756 + 1.0 * 1.1244
    tensor(1.5622)
    """

    def __init__(self, n_tasks: int, *, temperature: float = 2.0) -> None:
        super().__init__(n_tasks)
        self.temperature = check_number("temperature", temperature, above=0.0)
        self.rates = TrainingRates(n_tasks)

    def forward(self, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses, of shape `()`."""
        if self.training:
            self.rates.observe(losses)
        weights = softmax_weights(self.rates(), self.temperature)
        return (weights.to(losses.dtype) * losses).sum()

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them; update the rates."""
        self.rates.end_epoch()
        return super().end_epoch()


class TrainingRates(nn.Module):
    """Ratios of the tasks' mean losses in the last two epochs.

    A loss that is not above 0 comes from a batch without rows of the task, and is left
    out.
    """

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        # In float32, since not every device has float64.
        self.mean = nn.Buffer(torch.zeros(n_tasks))
        self.n_losses = nn.Buffer(torch.zeros(n_tasks, dtype=torch.int64))
        # The last two epochs, the older one first; 0 if there is no mean.
        self.means = nn.Buffer(torch.zeros(2, n_tasks))

    def observe(self, losses: Tensor) -> None:
        """Add the losses of a step, of shape `(n_tasks,)`, to the epoch's means."""
        losses = losses.detach().to(self.mean)
        is_positive = losses > 0
        self.n_losses.add_(is_positive)
        change = (losses - self.mean) / self.n_losses.clamp(min=1)
        self.mean.add_(torch.where(is_positive, change, 0.0))

    def end_epoch(self) -> None:
        """Store the mean losses of the epoch, unless it had no step."""
        if not self.n_losses.any():
            return
        self.means.copy_(torch.stack([self.means[1], self.mean]))
        self.mean.zero_()
        self.n_losses.zero_()

    def forward(self) -> Tensor:
        """Return the rates, float32 of shape `(n_tasks,)`; unknown rates are 1."""
        earlier, later = self.means
        is_known = (self.means > 0).all(dim=0)
        return torch.where(is_known, later / torch.where(is_known, earlier, 1.0), 1.0)


def softmax_weights(rates: Tensor, temperature: float) -> Tensor:
    """Return weights with sum `n_tasks`, which are larger for slower tasks."""
    return len(rates) * (rates / temperature).softmax(dim=0)


RATES = (None, "dwa", "plain")


class ExponentialMovingAverage(TaskWeighting):
    r"""Each loss divided by its exponential moving average.

    .. math::
        L = \sum_k \lambda_k \frac{L_k(t)}{E_k(t)}, \qquad
        E_k(t) = \frac{(1 - \beta) \sum_{s < t} \beta^{t - 1 - s} L_k(s)}
        {1 - \beta^{t - 1}}

    at step t, where :math:`L_k` is the loss of task k in the batch and :math:`E_k` its
    average over the earlier batches, through which no gradient flows. In the first
    step :math:`E_k` is the loss itself. All tasks have the same influence from the
    first step, regardless of the scale of their losses.

    Parameters
    ----------
    n_tasks : int
        Number of tasks.
    decay : float, default=0.9
        Decay :math:`\beta` of the average, in [0, 1). With 0, each loss is divided by
        the loss of the previous batch.
    rate : {None, "dwa", "plain"}, default=None
        Additional factor :math:`\lambda_k` of each task, from its training rate
        :math:`r_k`, the ratio of its mean losses in the last two epochs:

        - None: :math:`\lambda_k = 1`;
        - "dwa": :math:`\lambda_k = K \exp(r_k / T) / \sum_j \exp(r_j / T)`, where K is
          the number of tasks, as in the weighting "dwa";
        - "plain": :math:`\lambda_k = r_k / \operatorname{mean}_j r_j`.

        The factors are 1 in the first two epochs.
    temperature : float, default=2.0
        Temperature T for `rate="dwa"`, > 0.

    Notes
    -----
    Losses are expected to be > 0. A loss that is not, such as that of a batch without
    rows for the task, does not change the average. The averages are updated in
    training mode only.

    A task with few positive labels then has as much influence as the others. With the
    defaults of the estimator and 50 conversions at a rate of 0.1 %, or 200 at 1 %, the
    ROC AUC of clicks and conversions is lower than with equal weights
    (:doc:`/user_guide/low_rates`).

    The average excludes the current batch. If it included it, a batch with a positive
    row of a rare task would reduce its own weight, and the task would be predicted too
    low: at a rate of 0.1 %, batches of 512 rows and a decay of 0.9, by 17 %.

    The paper combines the averages with training rates in two ways, called Rated EMA
    and Dynamic Weighted EMA. Their formulas were not available: `rate="plain"` and
    `rate="dwa"` are definitions by the names. The bias correction of the average and
    the exclusion of the current loss are choices of this implementation.

    References
    ----------
    Lakkapragada, Sleiman, Surabhi and Wall (2022), "Mitigating negative transfer in
    multi-task learning with exponential moving average loss weighting strategies",
    AAAI 2023 student abstract. :arxiv:`2211.12999`

    Liu, Johns and Davison (2019), "End-to-end multi-task learning with attention",
    CVPR. :arxiv:`1803.10704`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.weighting import ExponentialMovingAverage
    >>> weighting = ExponentialMovingAverage(2, decay=0.5)
    >>> weighting(torch.tensor([100.0, 0.5]))
    tensor(2.)
    >>> weighting(torch.tensor([25.0, 0.5]))  # 25 / 100 + 0.5 / 0.5
    tensor(1.2500)
    >>> weighting(torch.tensor([25.0, 0.5]))  # 25 / 50 + 0.5 / 0.5
    tensor(1.5000)
    """

    def __init__(
        self,
        n_tasks: int,
        *,
        decay: float = 0.9,
        rate: str | None = None,
        temperature: float = 2.0,
    ) -> None:
        super().__init__(n_tasks)
        self.decay = check_number("decay", decay, at_least=0.0, below=1.0)
        self.rate = check_choice("rate", rate, RATES)
        self.temperature = check_number("temperature", temperature, above=0.0)
        self.rates = None if rate is None else TrainingRates(n_tasks)
        # The bias-corrected average, and the sum of the powers of the decay in it: the
        # newest loss enters with the share 1 / mass, which is exactly 1 at first.
        self.average = nn.Buffer(torch.zeros(n_tasks))
        self.mass = nn.Buffer(torch.zeros(n_tasks))

    def forward(self, losses: Tensor) -> Tensor:
        """Return the sum of the scaled losses, of shape `()`."""
        is_known = self.mass > 0
        average: Tensor = self.average
        if self.training:
            observed = losses.detach().float()
            is_positive = observed > 0
            # The averages before this batch, except for the first loss of a task.
            average = torch.where(is_known, average, observed)
            is_known = is_known | is_positive
            mass = 1 + self.decay * self.mass
            moved = torch.lerp(self.average, observed, 1 / mass)
            self.average.copy_(torch.where(is_positive, moved, self.average))
            self.mass.copy_(torch.where(is_positive, mass, self.mass))
            if self.rates is not None:
                self.rates.observe(observed)
        # A small constant in the denominator would make the weights depend on the
        # scale of the losses. Instead, the weight is 0 before the first loss above 0.
        weights = is_known / torch.where(is_known, average, 1.0)
        if self.rates is not None:
            rates = self.rates()
            if self.rate == "dwa":
                weights = weights * softmax_weights(rates, self.temperature)
            else:
                weights = weights * (rates / rates.mean())
        return (weights.to(losses.dtype) * losses).sum()

    def end_epoch(self) -> list[float]:
        """Return the epoch's mean weights and reset them; update the rates."""
        if self.rates is not None:
            self.rates.end_epoch()
        return super().end_epoch()
