"""The base class of the losses that combine cross-entropy with a ranking loss."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser._utils._checks import check_number
from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.losses._bce import BCE


class _BCEWithRanking(BCE):
    """Base class of the losses `s * BCE + (1 - s) * ranking`, with s = bce_share."""

    averages_rows = False

    def __init__(self, task_names: Sequence[str], *, bce_share: float = 0.5) -> None:
        super().__init__(task_names)
        self.bce_share = check_number("bce_share", bce_share, at_least=0, at_most=1)

    def forward(
        self,
        logits: Tensor,
        y: Tensor,
        sample_weight: Tensor | None = None,
        groups: Tensor | None = None,
    ) -> Tensor:
        """Compute the combined loss of each task, of shape `(n_tasks,)`."""
        logits = at_least_float32(logits)
        y = y.to(logits.dtype)
        calibration = super().forward(logits, y, sample_weight)
        if self.bce_share == 1:
            return calibration
        ranking = self._ranking_losses(logits, y, sample_weight, groups)
        return self.bce_share * calibration + (1 - self.bce_share) * ranking

    def _ranking_losses(
        self, logits: Tensor, y: Tensor, weight: Tensor | None, groups: Tensor | None
    ) -> Tensor:
        """Compute the ranking loss of each task, of shape `(n_tasks,)`."""
        raise NotImplementedError
