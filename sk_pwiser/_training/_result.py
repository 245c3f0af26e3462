"""All that a fit has learnt, for predictions, later fits and files."""

from dataclasses import dataclass
from typing import Any

from sk_pwiser import _settings
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._rises import Rises
from sk_pwiser._training._schema import Schema
from sk_pwiser._utils._random import Generators


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """All that a fit has learnt, for predictions, later fits and files.

    `fit`, `partial_fit`, checkpoints, files and distributed fits return one such
    object, and the estimator assigns it once, at the end.

    ===================  ==========  ==============  ================
    kept                 warm start  `partial_fit`   resumed training
    ===================  ==========  ==============  ================
    columns, vocabulary  yes         yes, may grow   yes
    columns that had no  learnt      learnt          yes
    information so far
    target statistics    scales and  all, and adds   yes
                         old values  its rows
    network, criterion   yes         yes, in place   yes
    optimiser, schedule  yes         yes, in place   yes
    average of weights   starts at   none            yes
                         the weights
    validation rows      same split  none            same split
    scale of weights,    no          of first call   yes
    whether counts
    history              continues   continues       continues
    random numbers       continue    continue        continue
    ===================  ==========  ==============  ================
    """

    net: MultiTaskNet
    schema: Schema
    generators: Generators
    settings: _settings.Settings
    single_pass: bool  # whether this was `partial_fit`
    best_epoch: int  # whose weights the network has
    n_rows: tuple[int, int]  # training and validation rows
    rises: Rises | None = None
    split_state: dict[str, Any] | None = None  # that drew the validation rows
    weight_scale: float | None = None  # mean of the weights above 0
    scales_counts: bool = False  # whether these weights are counts of rows
    stop_reason: str | None = None  # where and why training ended; None after an update
    split_rows: dict[str, Any] | None = None  # as `find_split` returns them
    used_all: bool = False  # whether this training held out no rows
