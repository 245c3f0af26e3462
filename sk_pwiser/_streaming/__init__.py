"""Rows of files that may be larger than memory, in parts."""

from sk_pwiser._streaming._chunks import FileRows, named_place
from sk_pwiser._streaming._learn import TableLearner
from sk_pwiser._streaming._predict_files import (
    iter_logits,
    probabilities,
    write_predictions,
)
from sk_pwiser._streaming._store import (
    FileStore,
    RowStore,
    StreamedImpressions,
    encode_eval_rows,
    load_rows,
)
