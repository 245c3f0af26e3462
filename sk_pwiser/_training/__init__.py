"""Tensors become a fitted network: batches, criterion, net, optimiser and the loop."""

from skorch.callbacks import Freezer

from sk_pwiser._training._batches import (
    Batch,
    BatchIterator,
    Impressions,
    gather_bags,
)
from sk_pwiser._training._callbacks import (
    CallbackSupportMixin,
    KeepOnInterrupt,
    fit_task,
    runs_callbacks,
)
from sk_pwiser._training._checkpoints import (
    Checkpoints,
    Start,
    compared,
    find_checkpoint,
)
from sk_pwiser._training._components import check_components
from sk_pwiser._training._figures import KnownProbabilities
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._optimizers import sparse_tables
from sk_pwiser._training._schema import (
    ColumnInput,
    EncodedData,
    GivenRows,
    bag_inputs,
    column_inputs,
    encode_plain,
    read_table,
)
from sk_pwiser._training._settings import PARAMETER_CONSTRAINTS, Settings
from sk_pwiser._training._state import (
    STATE_CLASSES,
    TrainingResult,
    check_same_model,
    from_state,
    take_back,
    to_state,
)
