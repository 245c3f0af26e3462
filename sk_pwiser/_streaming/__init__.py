"""Fits and predictions on files that may be larger than memory, in parts."""

from sk_pwiser._streaming._fit_files import Job, fit_dataset, prepare_job, run_job
from sk_pwiser._streaming._predict_files import (
    iter_logits,
    probabilities,
    write_predictions,
)
from sk_pwiser._streaming._store import StreamedImpressions
