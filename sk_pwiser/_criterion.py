"""One loss joined with one weighting: what training minimises."""

from torch import Tensor, nn

from sk_pwiser.losses import MultiTaskLoss
from sk_pwiser.networks import NetworkOutput
from sk_pwiser.weighting import TaskWeighting


class MultiTaskCriterion(nn.Module):
    """The weighted loss of all heads, plus the network's penalties.

    Parameters
    ----------
    loss : MultiTaskLoss
        Gives one loss a task; auxiliary heads take it as well.
    weighting : TaskWeighting
        Combines the tasks' losses.
    """

    def __init__(self, loss: MultiTaskLoss, weighting: TaskWeighting) -> None:
        super().__init__()
        self.loss = loss
        self.weighting = weighting

    def forward(
        self,
        output: NetworkOutput,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a batch, a scalar, in float32 under mixed precision."""
        losses = self.loss(output.logits.float(), y, sample_weight, groups)
        for logits in output.aux_logits:
            losses = losses + self.loss(logits.float(), y, sample_weight, groups)
        total: Tensor = self.weighting(losses)
        for penalty in output.penalties.values():
            total = total + penalty.float()
        return total

    def pop_epoch_record(self) -> dict[str, float]:
        """Return what the loss has to tell of the epoch that ends."""
        return self.loss.pop_epoch_record()
