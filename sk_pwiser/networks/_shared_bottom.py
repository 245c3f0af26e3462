"""SharedBottom: one bottom for all tasks."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import MLP, TaskTowers, check_units
from sk_pwiser.networks._spec import NetworkSpec


class SharedBottom(MultiTaskNetwork):
    """One shared bottom and one tower per task.

    .. math:: z_k = t_k(b(x))

    with x the input of embeddings and numeric values, b the bottom, t_k the tower of
    task k and z_k its logit.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    bottom_units : sequence of int, default=(128, 64)
        Widths of the bottom's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    References
    ----------
    R. Caruana (1997). Multitask Learning. Machine Learning 28, 41-75.
    :doi:`10.1023/A:1007379606734`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, SharedBottom
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> network = SharedBottom(spec, bottom_units=(16,))
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(network(codes, numeric).logits.shape)
    (1, 2)
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        bottom_units: Sequence[int] = (128, 64),
        tower_units: Sequence[int] = (32,),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        units = check_units("bottom_units", bottom_units)
        self.bottom = MLP(self.width, units, dropout)
        self.towers = TaskTowers(
            self.bottom.n_out, tower_units, self.base_logits, dropout
        )

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        return NetworkOutput(self.towers(self.bottom(self.input_layer(codes, numeric))))
