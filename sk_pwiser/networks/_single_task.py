"""SingleTask: one network per task."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import TaskTowers, check_units
from sk_pwiser.networks._spec import NetworkSpec


class SingleTask(MultiTaskNetwork):
    """One independent network per task: the baseline without sharing.

    .. math:: z_k = t_k(b_k(x_k))

    with x_k the input from the task's own embeddings, b_k its bottom, t_k its tower
    and z_k its logit. The tasks share only the optimiser and early stopping.

    Weight decay competes with gradients that are proportional to the rate of a task:
    the default would leave a constant prediction of a task with a rate of 0.4 %. All
    parameters of a task with a base rate below 5 % therefore have the weight decay
    times the rate divided by 5 %. Above 95 %, the rate of the label 0 counts instead.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    bottom_units : sequence of int, default=(128, 64)
        Widths of the first layers of each task's network.
    tower_units : sequence of int, default=(32,)
        Widths of the layers that follow.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, SingleTask
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(SingleTask(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

    task_parameters = (
        "towers.{task}.*",
        "input_layer.embeddings.{task}.*",
        "input_layer.bags.embeddings.{task}.*",
        "input_layer.bags.attention.{task}.*",
        "input_layer.bins.{task}.*",
        "input_layer.gates.{task}.*",
        "input_layer.interactions.{task}.*",
    )

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        bottom_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec, n_tables=spec.n_tasks)
        bottom = check_units("bottom_units", bottom_units)
        # A separate bottom and tower per task are one perceptron.
        units = bottom + check_units("tower_units", tower_units)
        self.towers = TaskTowers(self.width, units, self.base_logits, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        return NetworkOutput(self.towers(self.input_layer(codes, numeric)))
