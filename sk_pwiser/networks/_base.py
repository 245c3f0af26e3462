"""What every network is given and what it gives back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sk_pwiser.networks._input import InputLayer

# Where a task nearly always follows the one before, its conditional head starts here.
HIGHEST_CONDITIONAL_RATE = 0.99


@dataclass(frozen=True)
class NetworkSpec:
    """The table a network reads and the tasks that it learns.

    Parameters
    ----------
    cardinalities : sequence of int
        Number of codes of each category column, the codes for missing and unseen
        values included. Empty without category columns.
    n_numeric : int
        Number of numeric inputs.
    embedding_dim : int
        Width of a category value's embedding.
    base_rates : sequence of float
        Mean of each task's labels, a probability; its length is the number of tasks.
        Networks start their output biases there, so that training starts calibrated.
    unseen_code : int, default=1
        Code of a category value that is not known, in every column.
    unseen_rate : float, default=0.0
        Share of category values that training replaces by `unseen_code`.
    numeric_bins : sequence of int, default=()
        Number of bins of each numeric input, or 0. An input with bins is a position
        among their edges, in [0, bins], and becomes one component a bin. Empty where
        none has bins.
    interaction : {"cross", "fm"} or None, default=None
        Products of columns in the dense input: one cross layer of DCN-v2 ("cross"), or
        the second-order term of a factorisation machine ("fm").
    task_space : {"entire", "conditional"}, default="entire"
        Whether the columns of a network's logits are read as P(Y_k = 1 | impression)
        or as P(Y_k = 1 | Y_{k-1} = 1, impression). Networks need this for their
        initial biases alone, which `base_logits` gives.

    References
    ----------
    Gorishniy, Rubachev and Babenko (2022). "On Embeddings for Numerical Features in
    Tabular Deep Learning." NeurIPS. :arxiv:`2203.05556`

    Wang, Shivanna, Cheng, Jain, Lin, Hong and Chi (2021). "DCN V2: Improved Deep &
    Cross Network." WWW. :arxiv:`2008.13535`

    Rendle (2010). "Factorization Machines." ICDM.
    """

    cardinalities: Sequence[int]
    n_numeric: int
    embedding_dim: int
    base_rates: Sequence[float]
    unseen_code: int = 1
    unseen_rate: float = 0.0
    numeric_bins: Sequence[int] = ()
    interaction: str | None = None
    task_space: str = "entire"

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.base_rates)

    def base_logits(self) -> Tensor:
        """Compute the log-odds of the base rates, in the space of the tasks.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Logits, kept finite where a rate is 0 or 1.
        """
        if self.task_space == "conditional":
            return self.conditional_base_logits()
        rates = torch.tensor(list(self.base_rates), dtype=torch.float64)
        return torch.logit(rates, eps=1e-9).float()

    def conditional_base_logits(self) -> Tensor:
        """Compute the log-odds of each task's rate where the task before happened.

        Returns
        -------
        Tensor of shape (n_tasks,)
            Logits, finite also where labels break the funnel or a task has no ones.
        """
        rates = torch.tensor([1.0, *self.base_rates], dtype=torch.float64)
        # Where there are no rows with the task before, nothing is known of this one.
        # A head that starts near 1 would have no gradient to come back by.
        conditional = (rates[1:] / rates[:-1]).nan_to_num(0.5)
        conditional[1:].clamp_(max=HIGHEST_CONDITIONAL_RATE)
        return torch.logit(conditional, eps=1e-9).float()


class Correction(NamedTuple):
    """What conditional heads need to learn from rows that they have no labels of.

    Parameters
    ----------
    propensity : Tensor of shape (batch, n_tasks - 1)
        P(Y_k = 1 | impression), kept off 0; no gradient is taken.
    imputed : Tensor of shape (batch, n_tasks - 1) or None, default=None
        Log-odds of imputed labels of the heads, for the doubly robust form.
    weight : float, default=1.0
        Weight of the corrected loss, which is added to the later task's own.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import Correction
    >>> Correction(propensity=torch.full((3, 1), 0.1)).weight
    1.0
    """

    propensity: Tensor
    imputed: Tensor | None = None
    weight: float = 1.0


class NetworkOutput(NamedTuple):
    """What a network returns for a batch.

    Parameters
    ----------
    logits : Tensor of shape (batch, n_tasks)
        Log-odds of P(Y_k = 1 | impression), one column a task. Predictions are made
        from these alone.
    aux_logits : sequence of Tensor of shape (batch, n_tasks), default=()
        Logits of extra heads, each trained with the tasks' own losses.
    aux_weight : float, default=1.0
        Weight of the extra heads' losses.
    penalties : mapping of str to Tensor of shape (), default={}
        Named terms added to the loss as they are, already weighted.
    conditional_logits : Tensor of shape (batch, n_tasks) or None, default=None
        Log-odds of P(Y_k = 1 | Y_{k-1} = 1, impression), where the network is a chain
        of conditional heads.
    correction : Correction or None, default=None
        Adds the loss of the conditional heads over the entire space, by
        :func:`~sk_pwiser.losses.entire_space_loss`.
    """

    logits: Tensor
    aux_logits: Sequence[Tensor] = ()
    aux_weight: float = 1.0
    penalties: Mapping[str, Tensor] = {}
    conditional_logits: Tensor | None = None
    correction: Correction | None = None


class MultiTaskNetwork(nn.Module):
    """Base class of the networks.

    A subclass takes the specification and its own keyword parameters, builds its
    layers on the `width` outputs of `input_layer`, and defines `forward`. The class
    itself is then a valid `network=` of
    :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.

    Parameters
    ----------
    spec : NetworkSpec
        The table and the tasks.
    n_tables : int, default=1
        Number of independent embedding tables. With more than one, `input_layer`
        returns one input a table, of shape `(n_tables, batch, width)`.

    Attributes
    ----------
    calibrator_weight : float
        Weight of :func:`~sk_pwiser.losses.funnel_calibrator` where the user asks for
        none.
    n_tasks : int
        Number of tasks.
    input_layer : module
        Maps codes and numeric inputs to a dense input of shape `(batch, width)`.
    width : int
        Width of the dense input.

    Examples
    --------
    >>> import torch
    >>> from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput, NetworkSpec
    >>> class Linear(MultiTaskNetwork):
    ...     def __init__(self, spec):
    ...         super().__init__(spec)
    ...         self.head = torch.nn.Linear(self.width, self.n_tasks)
    ...     def forward(self, codes, numeric):
    ...         return NetworkOutput(self.head(self.input_layer(codes, numeric)))
    >>> spec = NetworkSpec([3, 5], n_numeric=2, embedding_dim=4, base_rates=[0.1, 0.01])
    >>> codes, numeric = torch.tensor([[0, 1]]), torch.zeros(1, 2)
    >>> tuple(Linear(spec)(codes, numeric).logits.shape)
    (1, 2)
    """

    calibrator_weight: ClassVar[float] = 0.0

    def __init__(self, spec: NetworkSpec, *, n_tables: int = 1) -> None:
        super().__init__()
        self.n_tasks = spec.n_tasks
        self.input_layer = InputLayer(
            spec.cardinalities,
            spec.n_numeric,
            spec.embedding_dim,
            n_tables=n_tables,
            unseen_code=spec.unseen_code,
            unseen_rate=spec.unseen_rate,
            numeric_bins=spec.numeric_bins,
            interaction=spec.interaction,
        )
        self.width = self.input_layer.width

    def forward(self, codes: Tensor, numeric: Tensor) -> NetworkOutput:
        """Compute the logits of a batch.

        Parameters
        ----------
        codes : int64 Tensor of shape (batch, n_category_columns)
            Codes of the category columns, each below its column's cardinality.
        numeric : float Tensor of shape (batch, n_numeric)
            Numeric inputs: scaled values, and positions where the specification has
            bins.

        Returns
        -------
        NetworkOutput
            Logits `(batch, n_tasks)` and, where the network has them, auxiliary
            logits and penalties.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward.")
