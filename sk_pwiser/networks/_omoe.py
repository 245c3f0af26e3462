"""OMoE: shared experts and one gate."""

from sk_pwiser.networks._mmoe import MMoE


class OMoE(MMoE):
    r"""One-gate mixture of experts: shared experts, mixed by one gate for all tasks.

    .. math:: z_k = t_k(\sum_j g(x)_j e_j(x)), \quad g(x) = softmax(W x + c)

    with x the input of embeddings and numeric values, e_j expert j, g the gate, t_k
    the tower and z_k the logit of task k.

    Parameters
    ----------
    spec : NetworkSpec
        The table, the tasks and the shared options.
    n_experts : int, default=4
        Total number of experts, which all tasks share.
    expert_units : sequence of int, default=(128, 64)
        Widths of each expert's layers.
    tower_units : sequence of int, default=(32,)
        Widths of each tower's hidden layers.
    dropout : float, default=0.0
        Share of activations that are dropped in experts and towers in training.

    Notes
    -----
    This implementation differs from the paper in the gate, which has a bias and starts
    uniform.

    References
    ----------
    Ma et al. (2018). Modeling Task Relationships in Multi-task Learning with Multi-gate
    Mixture-of-Experts. KDD. :doi:`10.1145/3219819.3220007`

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import NetworkSpec, OMoE
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(OMoE(spec, n_experts=3)(codes, numeric).logits.shape)
    (1, 2)
    """

    has_gate_per_task = False
