"""One loss joined with one weighting: what training minimises."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sk_pwiser.losses import MultiTaskLoss, entire_space_loss, funnel_calibrator
from sk_pwiser.networks import NetworkOutput
from sk_pwiser.weighting import TaskWeighting


class MultiTaskCriterion(nn.Module):
    """The weighted loss of all heads, plus penalties.

    Losses are computed in float32 under mixed precision.

    Parameters
    ----------
    loss : MultiTaskLoss
        Gives one loss a task; auxiliary heads take it as well.
    weighting : TaskWeighting
        Combines the tasks' losses, or their gradients.
    calibrator_weight : float, default=0.0
        Weight of the calibrator.
    task_space : {"entire", "conditional"}, default="entire"
        Whether a task learns from all rows, or from those where the task before it
        happened.
    """

    def __init__(
        self,
        loss: MultiTaskLoss,
        weighting: TaskWeighting,
        calibrator_weight: float = 0.0,
        task_space: str = "entire",
    ) -> None:
        super().__init__()
        self.is_conditional = task_space == "conditional"
        self.loss = loss
        self.weighting = weighting
        self.calibrator_weight = calibrator_weight
        self.weight_names = [f"weight_{task}" for task in loss.task_names]

    def forward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch as it is reported, a scalar."""
        losses, penalty = self._terms(output, y, sample_weight, groups)
        return self._report(losses, penalty)

    def backward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
        parameters: Iterable[nn.Parameter],
    ) -> Tensor:
        """Leave the gradients of a batch in the parameters; return what is reported."""
        losses, penalty = self._terms(output, y, sample_weight, groups)
        self.weighting.backward(losses, penalty, parameters)
        return self._report(losses.detach(), penalty)

    def _terms(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the losses, of shape `(n_tasks,)`, and the sum of the penalties."""
        _check_output(output, y.shape)
        logits = heads = output.logits.float()
        if self.is_conditional and output.conditional_logits is not None:
            heads = output.conditional_logits.float()
        losses = self._losses(heads, y, sample_weight, groups)
        for aux in output.aux_logits:
            extra = self._losses(aux.float(), y, sample_weight, groups, is_main=False)
            losses = losses + output.aux_weight * extra
        if output.correction is not None and output.conditional_logits is not None:
            propensity, imputed, weight = output.correction
            corrected = entire_space_loss(
                output.conditional_logits[:, 1:].float(),
                y,
                propensity.float(),
                None if imputed is None else imputed.float(),
                sample_weight,
            )
            losses = losses + weight * nn.functional.pad(corrected, (1, 0))
        penalties = [penalty.float() for penalty in output.penalties.values()]
        if self.calibrator_weight:
            calibrator = funnel_calibrator(logits, sample_weight)
            penalties.append(self.calibrator_weight * calibrator)
        total = None
        for penalty in penalties:
            total = penalty if total is None else total + penalty
        return losses, total

    def _losses(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
        is_main: bool = True,
    ) -> Tensor:
        """Return the loss of each task over the rows that it learns from."""
        if not self.is_conditional:
            self.loss.counted = None if is_main else ()
            return self._loss(logits, y, sample_weight, groups)
        parts = []
        for task in range(y.shape[1]):
            self.loss.counted = [task] if is_main else ()
            if task == 0:
                parts.append(self._loss(logits, y, sample_weight, groups)[0])
                continue
            rows = y[:, task - 1].nonzero().squeeze(1)
            if len(rows) == 0:
                parts.append(torch.zeros_like(parts[0]))
                continue
            args = (None if a is None else a[rows] for a in (sample_weight, groups))
            part = self._loss(logits[rows], y[rows], *args)[task]
            # A mean over all rows: the losses add up to the funnel's log-likelihood.
            parts.append(part * (len(rows) / len(y)))
        return torch.stack(parts)

    def _loss(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None,
        groups: Tensor | None,
    ) -> Tensor:
        """Return the loss of each task over some rows."""
        losses: Tensor = self.loss(logits, y, sample_weight, groups)
        if not isinstance(losses, Tensor) or losses.shape != y.shape[1:]:
            raise ValueError(
                f"loss {type(self.loss).__name__} must return one loss a task, a "
                f"Tensor of shape {tuple(y.shape[1:])}; got {losses!r}."
            )
        return losses

    def _report(self, losses: Tensor, penalty: Tensor | None) -> Tensor:
        reported = self.weighting.report(losses)
        return reported if penalty is None else reported + penalty.detach()

    def pop_epoch_record(self) -> dict[str, float]:
        """Return what loss and weighting have to tell of the epoch that ends."""
        record = self.loss.pop_epoch_record()
        weights = self.weighting.end_epoch() if self.training else []
        return record | dict(zip(self.weight_names, weights, strict=False))


def _check_output(output: NetworkOutput, shape: torch.Size) -> None:
    """Raise where a network, a user's own say, returns what cannot be trained."""
    if not hasattr(output, "logits"):
        raise TypeError(
            "network must return a NetworkOutput from forward; got "
            f"{type(output).__name__}."
        )
    for name, logits in (
        ("logits", output.logits),
        *(("aux_logits", aux) for aux in output.aux_logits),
    ):
        if logits.shape != shape:
            raise ValueError(
                f"network must return {name} of shape (batch, n_tasks), {tuple(shape)} "
                f"here; got {tuple(logits.shape)}."
            )
