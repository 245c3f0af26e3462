"""The result of a training."""

from dataclasses import dataclass

from sk_pwiser._training._coherence import Rises
from sk_pwiser._training._data import Schema
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import Generators


@dataclass(frozen=True)
class TrainingResult:
    """A fitted network, with everything that predictions and later fits use.

    Parameters
    ----------
    net : MultiTaskNet
        The trained net.
    schema : Schema
        The encoding of the table, and the tasks.
    generators : Generators
        The random generators of training, which a continued fit continues to use.
    settings : Settings
        The estimator's parameters at this fit.
    single_pass : bool
        Whether this was `partial_fit`.
    best_epoch : int
        The epoch whose weights the network has.
    n_rows : tuple of int
        Numbers of training and of validation rows.
    rises : Rises or None
        Neighbouring tasks of which the later one is likelier in many rows.
    """

    net: MultiTaskNet
    schema: Schema
    generators: Generators
    settings: Settings
    single_pass: bool
    best_epoch: int
    n_rows: tuple[int, int]
    rises: Rises | None = None
