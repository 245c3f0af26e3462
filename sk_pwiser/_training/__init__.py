"""Arrays become a fitted network: batches, criterion, the skorch net and its loop."""

from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._fit import Trained, train
from sk_pwiser._training._net import OPTIMIZERS

__all__ = ["OPTIMIZERS", "Impressions", "Trained", "train"]
