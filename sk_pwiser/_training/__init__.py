"""Tensors become a fitted network: batches, criterion, net, optimiser and the loop."""

from skorch.callbacks import Freezer

from sk_pwiser._training._batch_samplers import BatchIterator
from sk_pwiser._training._callbacks import KeepOnInterrupt
from sk_pwiser._training._checkpoint import find_checkpoint
from sk_pwiser._training._checkpoint_writer import Checkpoints
from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._fit import fit
from sk_pwiser._training._fit_dataset import fit_dataset
from sk_pwiser._training._fit_from import fit_from
from sk_pwiser._training._input_mixup import InputMixup
from sk_pwiser._training._job import Job, prepare_job, run_job
from sk_pwiser._training._lazy_adam import sparse_tables
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._optimizer import OPTIMIZERS
from sk_pwiser._training._optuna_pruning import OptunaPruning
from sk_pwiser._training._result import TrainingResult
from sk_pwiser._training._settings import Settings
from sk_pwiser._training._state import STATE_CLASSES, from_state, to_state
from sk_pwiser._training._streamed import StreamedImpressions

__all__ = [
    "OPTIMIZERS",
    "STATE_CLASSES",
    "BatchIterator",
    "Checkpoints",
    "Freezer",
    "Impressions",
    "InputMixup",
    "Job",
    "KeepOnInterrupt",
    "MultiTaskNet",
    "OptunaPruning",
    "Settings",
    "StreamedImpressions",
    "TrainingResult",
    "find_checkpoint",
    "fit",
    "fit_dataset",
    "fit_from",
    "from_state",
    "prepare_job",
    "run_job",
    "sparse_tables",
    "to_state",
]
