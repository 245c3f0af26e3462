"""The criterion: weighted losses of all tasks, and penalties."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser._tasks import _conditional_labels, _tree
from sk_pwiser._training._levels._clock import Clock
from sk_pwiser._training._levels._drift import Drift
from sk_pwiser._training._value_terms import ValueTerms
from sk_pwiser._utils import _precision
from sk_pwiser.losses import MultiTaskLoss, funnel_monotonicity_penalty
from sk_pwiser.networks import Labels, NetworkOutput
from sk_pwiser.weighting import TaskWeighting

# In updates, the prior of a task counts like this number of its events: that all rows
# with the event of its parent have the same probability.
LEAN_EVENTS = 30.0


class MultiTaskCriterion(nn.Module):
    """The weighted losses of all tasks and auxiliary heads, plus the penalties."""

    # Whether a task with few events so far leans towards its parent. The first steps of
    # Adam are as long for three conversions as for three hundred clicks; an epoch of a
    # fit corrects them, and an update has only one pass.
    leans_on_parents = False

    def __init__(
        self,
        loss: MultiTaskLoss,
        weighting: TaskWeighting,
        monotonicity_weight: float = 0.0,
        parents: Sequence[int] | None = None,
        value_terms: ValueTerms | None = None,
    ) -> None:
        super().__init__()
        self.parents = parents or _tree.chain_parents(len(loss.task_names))
        self.loss = loss
        self.weighting = weighting
        self.monotonicity_weight = monotonicity_weight
        self.value_terms = value_terms
        value_names = () if value_terms is None else value_terms.names
        self.weight_names = [
            f"weight_{task}" for task in (*loss.task_names, *value_names)
        ]
        # All rows so far: their number, the number of events per task, and the sums of
        # the weights of its events and of those of its parent. On the device, as graphs
        # require.
        n_tasks = len(loss.task_names)
        self.n_rows = nn.Buffer(torch.zeros(()))
        self.n_events = nn.Buffer(torch.zeros(n_tasks))
        self.sums = nn.Buffer(torch.zeros(2, n_tasks))
        # How far the levels of the tasks wander, and the time between updates.
        self.event_drift = Drift(n_tasks)
        self.clock = Clock()
        self._has_parent = nn.Buffer(torch.tensor(self.parents) >= 0, persistent=False)

    def forward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
        amounts: Tensor | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> Tensor:
        """Return the reported loss of a batch; set the gradients of `parameters`.

        The reported loss is that of the events: amounts of a few rows decide on the
        losses of values, which are recorded beside it.
        """
        losses, penalty = self._terms(output, y, sample_weight, groups)
        n_events = len(losses)
        if self.value_terms is not None:
            value_losses = self.value_terms(output, y, sample_weight, amounts)
            losses = torch.cat([losses, value_losses])
        if parameters is not None:
            has_gradient = penalty is not None and penalty.requires_grad
            if not losses.requires_grad and (
                self.weighting.needs_task_gradients or not has_gradient
            ):
                raise ValueError(
                    f"The losses of network and loss {type(self.loss).__name__} must "
                    "depend on parameters that are trained; they depend on none, since "
                    "all are frozen, or the logits or losses are detached."
                )
            self.weighting.backward(losses, penalty, parameters)
            losses = losses.detach()
        if self.value_terms is not None:
            self.value_terms.record(losses[n_events:].detach(), len(y))
            losses = torch.cat([losses[:n_events], torch.zeros_like(losses[n_events:])])
        reported = self.weighting.report(losses)
        return reported if penalty is None else reported + penalty.detach()

    def _terms(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the losses of the tasks, of shape `(n_tasks,)`, and any penalty."""
        _check_output(output, y.shape)
        heads = output.logits
        weights = sample_weight
        targets = y
        if output.sampled_logits is not None:
            heads = output.sampled_logits
        if output.conditional_logits is not None:
            heads = output.conditional_logits
            # Divided by the size of the batch, the losses of the rows in which the
            # previous task happened add up to the log-likelihood.
            happened = _conditional_labels.labels_of_parents(y, self.parents)
            row_weights = 1.0 if weights is None else weights.view(len(y), -1)
            weights = happened * row_weights
            targets = _conditional_labels.conditional_labels(y, self.parents)
        all_heads = [*map(_precision.at_least_float32, (heads, *output.aux_logits))]
        head_losses = []
        for logits in all_heads:
            # Copies: a loss may change them, and other terms read them as well.
            weight = None if weights is None else weights.clone()
            losses: Tensor = self.loss(logits, targets.clone(), weight, groups)
            shape = tuple(losses.shape) if isinstance(losses, Tensor) else repr(losses)
            if shape != tuple(y.shape[1:]):
                raise ValueError(
                    f"loss {type(self.loss).__name__} must return one loss per task, a "
                    f"Tensor of shape {tuple(y.shape[1:])}; got {shape}."
                )
            head_losses.append(losses)
        losses = head_losses[0]
        for aux_losses in head_losses[1:]:
            losses = losses + output.aux_weight * aux_losses
        if self.training and self.leans_on_parents:
            has_parent_label = _conditional_labels.has_label_of_parent(
                sample_weight, self.parents
            )
            losses = losses + self._prior_losses(
                all_heads[0], y, targets, weights, has_parent_label=has_parent_label
            )
        self.loss.observe(y, weights)
        labels = Labels(y, sample_weight, self.loss.row_losses)
        extras: list[Tensor] = []
        penalties: list[Tensor] = []
        for name, term in output.extra_losses.items():
            value = term(labels) if callable(term) else term
            shape = tuple(value.shape) if isinstance(value, Tensor) else repr(value)
            if shape not in ((), tuple(losses.shape)):
                raise ValueError(
                    f"extra_losses[{name!r}] must be a Tensor: of shape () as penalty"
                    f" or {tuple(losses.shape)} as losses of the tasks; got {shape}."
                )
            terms = extras if shape else penalties
            terms.append(_precision.at_least_float32(value))
        if self.monotonicity_weight:
            logits = _precision.at_least_float32(output.logits)
            rises = funnel_monotonicity_penalty(logits, sample_weight, self.parents)
            penalties.append(self.monotonicity_weight * rises)
        if extras:
            losses = losses + torch.stack(extras).sum(dim=0)
        penalty = torch.stack(penalties).sum() if penalties else None
        return losses, penalty

    @torch.no_grad()
    def count_rows(
        self, y: Tensor, weights: Tensor | None, rows_per_weight: float | None = None
    ) -> None:
        """Count the events of rows that an update learns from.

        If weights are counts, one of 1 stands for `rows_per_weight` rows.
        """
        row_weights = torch.ones_like(y)
        if weights is not None:
            row_weights = weights.view(len(y), -1)
        events = y * row_weights
        happened = _conditional_labels.labels_of_parents(y, self.parents)
        parent_events = happened * row_weights
        if rows_per_weight is None:
            self.n_rows.add_(len(y))
            n_events = (events > 0).sum(dim=0)
        else:
            n_counted = rows_per_weight * row_weights.amax(dim=1).sum()
            self.n_rows.add_(n_counted.to(self.sums.device))
            n_events = rows_per_weight * events.sum(dim=0)
        self.n_events.add_(n_events.to(self.sums.device))
        # Events of rows that lack the label of the parent are no share of its events.
        has_parent_label = _conditional_labels.has_label_of_parent(
            weights, self.parents
        )
        events = events * has_parent_label
        sums = torch.stack([events.sum(dim=0), parent_events.sum(dim=0)])
        self.sums.add_(sums.to(self.sums.device))  # rows may not fit on the device

    @torch.no_grad()
    def count_fit(
        self, event_shares: Sequence[Any], n_rows: int, n_counted: float | None = None
    ) -> None:
        """Count the rows of a fit by the shares of `EncodedData`.

        If weights are counts, the rows stand for `n_counted`.
        """
        counts = n_rows * self.sums.new_tensor(event_shares)
        self.n_rows.add_(n_rows if n_counted is None else n_counted)
        self.n_events.add_(counts[0])
        self.sums.add_(counts[1:])

    def possible_rates(self, given_parents: bool = False) -> Tensor:
        """Return the smallest and the largest rates that the rows so far allow.

        No event in n rows is compatible with a rate of 3 / n. With `given_parents`,
        they are those among the rows in which the parent happened.
        """
        events, parent_events = self.sums
        margin = self._weight_of_three_rows()
        rates: Tensor = torch.stack([events, events + margin]) / (
            parent_events + margin
        )
        return rates if given_parents else self._over_impressions(rates)

    def rates_so_far(self) -> list[float]:
        """Return the rates of all rows so far, with half a row more of each label."""
        events, parent_events = self.sums
        row = self._weight_of_three_rows() / 3.0
        rates = (events + row / 2) / (parent_events + row)
        # Labels may break the funnel.
        rates = rates.clamp(max=1 - 1e-6)
        rates_so_far: list[float] = self._over_impressions(rates.unsqueeze(0))[
            0
        ].tolist()
        return rates_so_far

    def _weight_of_three_rows(self) -> Tensor:
        """Return the weight of three rows in which the parent of a task happened."""
        _, parent_events = self.sums
        n = [self.n_events[p] if p >= 0 else self.n_rows for p in self.parents]
        weight: Tensor = 3.0 * parent_events / torch.stack(n).clamp(min=1.0)
        return weight.clamp(min=1e-9)

    def _over_impressions(self, rates: Tensor) -> Tensor:
        """Multiply conditional rates `(n, n_tasks)` by those of the parents."""
        for k, parent in enumerate(self.parents):
            rates[:, k] *= rates[:, parent] if parent >= 0 else 1.0
        return rates

    def _prior_losses(
        self,
        heads: Tensor,
        y: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        *,
        has_parent_label: Tensor | float,
    ) -> Tensor:
        """Return what the losses gain if the labels are shrunk towards the prior.

        The shrunk labels have the mean of the labels, so that the mean prediction does
        not change. A task without a parent keeps its labels, and so does a row that
        lacks the label of the parent.
        """
        events, parent_events = self.sums
        # Without an event of the parent, no label is shrunk.
        rates = (events / parent_events.clamp(min=1e-9)).clamp(max=1.0)
        shares = self._has_parent * LEAN_EVENTS / (LEAN_EVENTS + self.n_events)
        shares = shares * has_parent_label
        expected = rates * _conditional_labels.labels_of_parents(y, self.parents)
        shrunk = targets + shares * (expected - targets)
        row_losses = self.loss.row_losses(heads, shrunk)
        row_losses = row_losses - self.loss.row_losses(heads, targets)
        if weights is not None:
            row_losses = row_losses * weights.view(len(y), -1)
        return row_losses.mean(dim=0)

    def pop_epoch_record(self) -> dict[str, float]:
        """Return the epoch's figures of loss and weighting, and reset them."""
        weights = self.weighting.end_epoch() if self.training else []
        task_weights = dict(zip(self.weight_names, weights, strict=False))
        value_losses: dict[str, float] = {}
        if self.value_terms is not None:
            value_losses = self.value_terms.pop_epoch_record()
        return {**self.loss.pop_epoch_record(), **task_weights, **value_losses}


def _check_output(output: NetworkOutput, shape: torch.Size) -> None:
    """Raise if a network has returned another type or shape than it must."""
    for name, kinds, form in (
        ("aux_logits", list | tuple, "a list or tuple of Tensors"),
        ("extra_losses", Mapping, "a dict of names to Tensors or callables"),
    ):
        value = getattr(output, name)
        if not isinstance(value, kinds):
            raise TypeError(
                f"network must return {name} as {form}; got {type(value).__name__}."
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
