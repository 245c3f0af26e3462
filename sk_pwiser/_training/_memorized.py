"""A warning about a training that has memorized labels by the target statistics."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sk_pwiser._rows._encoded_rows import Batch, TrainingRows, bags_of
from sk_pwiser._training._rises import LEAST_COMPARED
from sk_pwiser._utils._warnings import warn_user

if TYPE_CHECKING:
    from sk_pwiser._training._net import MultiTaskNet


# The loss of rows as in predictions must exceed that of rows as in training by so many
# standard errors, ...
MEMORIZED_ERRORS = 3.0

# ... and by this share of it: noise does neither.
MEMORIZED_SHARE = 0.02


def warn_if_memorized(net: "MultiTaskNet", rows: TrainingRows, schema: Any) -> None:
    """Warn if training has learnt labels by what the statistics of rows leave out.

    An embedding can learn the number of events of its value. The statistics of a row,
    which leave out its block, then tell its label. Those of predictions leave out
    nothing: with a sound network, the loss of training rows is lower by these.
    """
    # Few rows say little; other logits may have another level than the labels.
    has_level = net.criterion_.loss.averages_rows
    has_level &= net.settings.negative_sampling_rate == 1
    if len(rows) < LEAST_COMPARED or not has_level:
        return
    inputs, y = next(iter(net.get_iterator(rows.spaced(net.n_checked))))
    host = {name: tensor.cpu() for name, tensor in inputs.items()}
    codes = host["codes"].numpy()
    numeric = inputs["numeric"].clone()
    rates = schema.statistics.transform(codes, schema.elements(bags_of(host)))
    numeric[:, -rates.shape[1] :] = torch.from_numpy(rates)
    weights = inputs.get("sample_weight", torch.ones_like(y)).view(len(y), -1)

    def losses(batch: Batch) -> Tensor:
        logits = net.evaluation_step(batch)
        return F.binary_cross_entropy_with_logits(logits, y, weights, reduction="none")

    in_training = losses((inputs, y))
    in_predictions = losses((inputs | {"numeric": numeric}, y))
    rise = (in_predictions - in_training).mean(dim=1)
    noise = MEMORIZED_ERRORS * rise.std() / len(y) ** 0.5
    if rise.mean() > max(noise, MEMORIZED_SHARE * in_training.mean()):
        warn_user(
            f"{len(net.history)} epochs without early stopping have memorized labels: "
            f"training rows have the log loss {in_training.mean():.3g}, but "
            f"{in_predictions.mean():.3g} with the target statistics of predictions. "
            "Set early_stopping=True."
        )
