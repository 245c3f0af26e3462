"""The criterion: a loss and a weighting form the value that training minimises."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from sk_pwiser._utils import (
    at_least_float32,
    chain_parents,
    conditional_labels,
    labels_of_parents,
)
from sk_pwiser.losses import MultiTaskLoss, funnel_monotonicity_penalty
from sk_pwiser.networks import Labels, MultiTaskNetwork, NetworkOutput
from sk_pwiser.weighting import TaskWeighting

# In updates, the prior of a task counts like this number of its events: that all rows
# with the event of its parent have the same probability.
PRIOR_EVENTS = 30.0


class MultiTaskCriterion(nn.Module):
    """The weighted losses of all tasks and auxiliary heads, plus the penalties."""

    # Whether a task with few events so far leans towards its parent. The first steps of
    # Adam are as long for three conversions as for three hundred clicks; an epoch of a
    # fit corrects them, and an update has only one pass.
    leans_on_parents = False
    n_rows: Tensor
    n_events: Tensor
    sums: Tensor
    _has_parent: Tensor

    def __init__(
        self,
        loss: MultiTaskLoss,
        weighting: TaskWeighting,
        monotonicity_weight: float = 0.0,
        parents: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.parents = parents or chain_parents(len(loss.task_names))
        self.loss = loss
        self.weighting = weighting
        self.monotonicity_weight = monotonicity_weight
        self.weight_names = [f"weight_{task}" for task in loss.task_names]
        # All rows so far: their number, the number of events per task, and the sums of
        # the weights of its events and of those of its parent. On the device, as graphs
        # require.
        n_tasks = len(loss.task_names)
        self.register_buffer("n_rows", torch.zeros(()))
        self.register_buffer("n_events", torch.zeros(n_tasks))
        self.register_buffer("sums", torch.zeros(2, n_tasks))
        has_parent = torch.tensor(self.parents) >= 0
        self.register_buffer("_has_parent", has_parent, persistent=False)

    def set_base_losses(self, network: MultiTaskNetwork) -> None:
        """Pass the losses of predictions that equal the base rates to the weighting."""
        if self.loss.averages_rows:
            logits = network.base_logits.unsqueeze(0)
            losses = self.loss.row_losses(logits, logits.sigmoid())
            self.weighting.set_base_losses(losses[0])

    def forward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the reported loss of a batch, a scalar."""
        losses, _, _, penalty = self._terms(output, y, sample_weight, groups)
        return self._report(losses, penalty)

    def backward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> Tensor:
        """Set the gradients of a batch in the parameters; return the reported loss."""
        losses, weights, extra, penalty = self._terms(output, y, sample_weight, groups)
        has_gradient = penalty is not None and penalty.requires_grad
        if not losses.requires_grad and (
            self.weighting.uses_task_gradients or not has_gradient
        ):
            raise ValueError(
                f"The losses of network and loss {type(self.loss).__name__} must "
                "depend on parameters that are trained; they depend on none, since "
                "all are frozen, or the logits or losses are detached."
            )
        self.weighting.set_sample_weight(weights)
        if extra is not None:
            self.weighting.set_extra_losses(extra.detach())
        self.weighting.backward(losses, penalty, parameters)
        return self._report(losses.detach(), penalty)

    def _terms(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Return the losses, row weights, extra losses of the tasks, and penalty.

        The losses have the shape `(n_tasks,)`. The last two are None without any.
        """
        _check_output(output, y.shape)
        heads, weights, targets = output.logits, sample_weight, y
        if output.sampled_logits is not None:
            heads = output.sampled_logits
        if output.conditional_logits is not None:
            heads = output.conditional_logits
            # Divided by the size of the batch, the losses of the rows in which the
            # previous task happened add up to the log-likelihood.
            happened = labels_of_parents(y, self.parents)
            known = 1.0 if weights is None else weights.view(len(y), -1)
            weights = happened * known
            targets = conditional_labels(y, self.parents)
        losses = self._losses(at_least_float32(heads), targets, weights, groups)
        for aux in output.aux_logits:
            extra = self._losses(at_least_float32(aux), targets, weights, groups)
            losses = losses + output.aux_weight * extra
        if self.training and self.leans_on_parents:
            losses = losses + self._prior_losses(heads, y, targets, weights)
        self.loss.observe(y, weights)
        labels = Labels(y, sample_weight, self.loss.row_losses)
        added: Tensor | None = None
        penalties = []
        for name, term in output.extra_losses.items():
            value = term(labels) if callable(term) else term
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"extra_losses[{name!r}] must be a Tensor; got {value}."
                )
            if value.shape == losses.shape:
                value = at_least_float32(value)
                added = value if added is None else added + value
            elif value.dim() == 0:
                penalties.append(at_least_float32(value))
            else:
                raise ValueError(
                    f"extra_losses[{name!r}] must have the shape () of a penalty or "
                    f"the shape {tuple(losses.shape)} of the tasks' losses; got "
                    f"{tuple(value.shape)}."
                )
        if self.monotonicity_weight:
            logits = at_least_float32(output.logits)
            rises = funnel_monotonicity_penalty(logits, sample_weight, self.parents)
            penalties.append(self.monotonicity_weight * rises)
        if added is not None:
            losses = losses + added
        penalty = torch.stack(penalties).sum() if penalties else None
        return losses, weights, added, penalty

    @torch.no_grad()
    def count_rows(self, y: Tensor, weights: Tensor | None) -> None:
        """Count the events of rows that an update learns from."""
        known = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
        events, of_parents = y * known, labels_of_parents(y, self.parents) * known
        self.n_rows.add_(len(y))
        self.n_events.add_((events > 0).sum(dim=0).to(self.sums.device))
        sums = torch.stack([events.sum(dim=0), of_parents.sum(dim=0)])
        self.sums.add_(sums.to(self.sums.device))  # rows may not fit on the device

    @torch.no_grad()
    def count_fit(self, rates: Sequence[float], n_rows: int) -> None:
        """Count the events of a fit, by the rates of its rows."""
        n_events = n_rows * self.sums.new_tensor([rates])
        of_parents = labels_of_parents(n_events, self.parents)
        self.n_rows.add_(n_rows)
        self.n_events.add_(n_events[0])
        self.sums.add_(torch.cat([n_events, of_parents]))

    def largest_rates(self) -> list[float]:
        """Return the largest rate of each task that the rows so far allow.

        No event in n rows is compatible with a rate of 3 / n.
        """
        rates: list[float] = ((self.n_events + 3.0) / (self.n_rows + 3.0)).tolist()
        return rates

    def _prior_losses(
        self, heads: Tensor, y: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        """Return what the losses gain if the labels are shrunk towards the prior.

        The shrunk labels have the mean of the labels, so that the mean prediction does
        not change. A task without a parent keeps its labels.
        """
        events, of_parents = self.sums
        # Without an event of the parent, no label is shrunk.
        rates = (events / of_parents.clamp(min=1e-9)).clamp(max=1.0)
        shares = self._has_parent * PRIOR_EVENTS / (PRIOR_EVENTS + self.n_events)
        expected = rates * labels_of_parents(y, self.parents)
        heads, shrunk = at_least_float32(heads), targets + shares * (expected - targets)
        of_rows = self.loss.row_losses(heads, shrunk)
        of_rows = of_rows - self.loss.row_losses(heads, targets)
        if weights is not None:
            of_rows = of_rows * weights.view(len(y), -1)
        return of_rows.mean(dim=0)

    def _losses(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
    ) -> Tensor:
        # Copies: a loss may change them in place, and other terms read them as well.
        weight = None if sample_weight is None else sample_weight.clone()
        losses: Tensor = self.loss(logits, y.clone(), weight, groups)
        if not isinstance(losses, Tensor) or losses.shape != y.shape[1:]:
            is_tensor = isinstance(losses, Tensor)
            found = f"the shape {tuple(losses.shape)}" if is_tensor else repr(losses)
            raise ValueError(
                f"loss {type(self.loss).__name__} must return one loss per task, a "
                f"Tensor of shape {tuple(y.shape[1:])}; got {found}."
            )
        return losses

    def _report(self, losses: Tensor, penalty: Tensor | None) -> Tensor:
        reported = self.weighting.report(losses)
        return reported if penalty is None else reported + penalty.detach()

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the epoch's figures of loss and weighting, and reset them."""
        record = self.loss.pop_epoch_record()
        if not isinstance(record, dict):
            raise TypeError(
                f"loss {type(self.loss).__name__} must return a dict from "
                f"pop_epoch_record; got {record!r}."
            )
        weights = self.weighting.end_epoch() if self.training else []
        return record | dict(zip(self.weight_names, weights, strict=False))


def _check_output(output: NetworkOutput, shape: torch.Size) -> None:
    """Raise if a network has returned another type or shape than it must."""
    if not isinstance(output.aux_logits, list | tuple):
        raise TypeError(
            "network must return aux_logits as a list or tuple of Tensors; got "
            f"{type(output.aux_logits).__name__}."
        )
    if not isinstance(output.extra_losses, Mapping):
        raise TypeError(
            "network must return extra_losses as a dict of names to Tensors or "
            f"callables; got {type(output.extra_losses).__name__}."
        )
    for name, logits in (
        ("logits", output.logits),
        *(("aux_logits", aux) for aux in output.aux_logits),
        ("conditional_logits", output.conditional_logits),
        ("sampled_logits", output.sampled_logits),
    ):
        if logits is not None and logits.shape != shape:
            raise ValueError(
                f"network must return {name} of shape (batch, n_tasks), here "
                f"{tuple(shape)}; got {tuple(logits.shape)}."
            )
