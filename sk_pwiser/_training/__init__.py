"""Tensors become a fitted network: batches, criterion, net, optimiser and the loop."""

from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._fit import TrainingResult, fit
from sk_pwiser._training._fit_from import fit_from
from sk_pwiser._training._optimizer import OPTIMIZERS

__all__ = ["OPTIMIZERS", "Impressions", "TrainingResult", "fit", "fit_from"]
