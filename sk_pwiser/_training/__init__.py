"""Tensors become a fitted network: batches, criterion, net, optimiser and the loop."""

from skorch.callbacks import Freezer

from sk_pwiser._training._callbacks import KeepOnInterrupt
from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._fit import fit
from sk_pwiser._training._fit_dataset import fit_dataset
from sk_pwiser._training._fit_from import fit_from
from sk_pwiser._training._input_mixup import InputMixup
from sk_pwiser._training._optimizer import OPTIMIZERS
from sk_pwiser._training._optuna_pruning import OptunaPruning
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._state import STATE_CLASSES, from_state, to_state

__all__ = [
    "OPTIMIZERS",
    "STATE_CLASSES",
    "Freezer",
    "Impressions",
    "InputMixup",
    "KeepOnInterrupt",
    "OptunaPruning",
    "TrainingResult",
    "fit",
    "fit_dataset",
    "fit_from",
    "from_state",
    "to_state",
]
