"""ESMM: the funnel as a chain of conditional heads."""

from collections.abc import Sequence

from torch import Tensor

from sk_pwiser._utils._precision import at_least_float32
from sk_pwiser.networks._base import MultiTaskNetwork, NetworkOutput
from sk_pwiser.networks._layers import TaskTowers
from sk_pwiser.networks._spec import NetworkSpec
from sk_pwiser.networks._task_space import chain_logits


class ESMM(MultiTaskNetwork):
    r"""Entire space multi-task model: the funnel as a chain of conditional heads.

    .. math:: P(Y_k = 1 \mid x) = \prod_{j \le k} \sigma(c_j), \quad c_j = t_j(x)

    with x the input of shared embeddings and numeric values and t_j the tower of
    conditional head j: for two tasks CTCVR = CTR x CVR. All heads are trained on all
    impressions, the CVR head through the product. The product is computed in log space.
    The probability of a later task never exceeds that of an earlier task.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    tower_units : sequence of int, default=(128, 64, 32)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in training.

    Notes
    -----
    `predict_cvr` is the product of the heads after the first, which is the CVR head for
    two tasks. This implementation differs from the paper in that it takes any number of
    tasks, also in a tree, and numeric values beside embeddings.

    References
    ----------
    Ma et al. (2018). Entire Space Multi-Task Model: An Effective Approach for
    Estimating Post-Click Conversion Rate. SIGIR. :arxiv:`1804.07931`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import ESMM, NetworkSpec
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> click, conversion = ESMM(spec)(codes, numeric).logits[0]
    >>> bool(conversion < click)
    True
    """

    def __init__(
        self,
        spec: NetworkSpec,
        *,
        tower_units: Sequence[int] = (128, 64, 32),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(spec)
        biases = self.conditional_base_logits
        self.towers = TaskTowers(self.width, tower_units, biases, dropout)

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch, of shape `(batch, n_tasks)`."""
        heads = at_least_float32(self.towers(self.input_layer(codes, numeric)))
        logits = chain_logits(heads, self.spec.parents)
        return NetworkOutput(logits, conditional_logits=heads)
