"""Tables and labels become arrays: column encodings, labels, row weights, groups."""

from sk_pwiser._table._block_counts import BlockCounts
from sk_pwiser._table._blocks import Blocks, RowOrder, assign_blocks, last_edge
from sk_pwiser._table._categories import (
    LARGE,
    LEAST_DROPOUT,
    UNSEEN,
    CategoryColumn,
    NewValues,
    Vocabulary,
    check_exact,
    factorize,
    kinds_of,
    large_kinds,
)
from sk_pwiser._table._column_kinds import (
    TimeColumn,
    check_encoding_params,
    column_kinds,
    history_column,
    looks_like_codes,
    vector_counts,
    warn_about_constants,
    warn_about_few_values,
    warn_about_random_validation,
)
from sk_pwiser._table._encoder import (
    TableEncoder,
    grow_encoder,
    learn_constant_columns,
    warn_about_new_values,
)
from sk_pwiser._table._frames import (
    as_table,
    check_same_kind,
    collected,
    column_of,
    find_column,
    first_known,
    is_dataframe,
    is_missing,
    is_sparse,
    list_columns,
    probability_frame,
    read_lists,
    read_numbers,
    reads_in_parts,
    refuse_parts,
    refuse_unreadable,
    result_frame,
    to_float,
)
from sk_pwiser._table._labels import (
    MISSING_LABELS,
    SoftTargets,
    Targets,
    check_targets,
    check_unreserved,
    choose_task_names,
    find_missing,
    names_of_columns,
    one_task_labels,
    read_array,
    read_labels,
    read_words,
    zero_one_labels,
)
from sk_pwiser._table._lists import (
    Elements,
    ListAges,
    ListColumn,
    ListWeights,
    SparseColumns,
    combine_bags,
)
from sk_pwiser._table._numbers import (
    FEW_VALUES,
    NUMERIC_ENCODINGS,
    ArrayColumn,
    NumericColumn,
)
from sk_pwiser._table._parts import GroupValues, RowSample
from sk_pwiser._table._target_statistics import (
    ExtendedStatistics,
    TargetStatistics,
    make_target_statistics,
)
from sk_pwiser._table._weights_and_groups import (
    RowSummary,
    WeightScale,
    base_rates,
    check_groups,
    check_match,
    check_weights,
    combine_weights,
    n_rows,
    row_weights,
    scale_weights,
)

# The classes of the objects in a fitted encoding, which files may contain.
STATE_CLASSES = (
    ArrayColumn,
    CategoryColumn,
    ExtendedStatistics,
    ListAges,
    ListColumn,
    ListWeights,
    SoftTargets,
    SparseColumns,
    TableEncoder,
    Targets,
    TargetStatistics,
    TimeColumn,
    Vocabulary,
    *NUMERIC_ENCODINGS.values(),
)
