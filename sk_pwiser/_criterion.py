"""One loss joined with one weighting: what training minimises."""

from collections.abc import Iterable

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
    """

    def __init__(
        self,
        loss: MultiTaskLoss,
        weighting: TaskWeighting,
        calibrator_weight: float = 0.0,
    ) -> None:
        super().__init__()
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
        logits = output.logits.float()
        losses: Tensor = self.loss(logits, y, sample_weight, groups)
        for aux in output.aux_logits:
            extra = self.loss(aux.float(), y, sample_weight, groups)
            losses = losses + output.aux_weight * extra
        if output.correction is not None:
            known, propensity, imputed, weight = output.correction
            corrected = entire_space_loss(known, y, propensity, imputed, sample_weight)
            losses = losses + weight * nn.functional.pad(corrected, (1, 0))
        penalties = [penalty.float() for penalty in output.penalties.values()]
        if self.calibrator_weight:
            calibrator = funnel_calibrator(logits, sample_weight)
            penalties.append(self.calibrator_weight * calibrator)
        total = None
        for penalty in penalties:
            total = penalty if total is None else total + penalty
        return losses, total

    def _report(self, losses: Tensor, penalty: Tensor | None) -> Tensor:
        reported = self.weighting.report(losses)
        return reported if penalty is None else reported + penalty.detach()

    def pop_epoch_record(self) -> dict[str, float]:
        """Return what loss and weighting have to tell of the epoch that ends."""
        record = self.loss.pop_epoch_record()
        weights = self.weighting.end_epoch() if self.training else []
        return record | dict(zip(self.weight_names, weights, strict=False))
