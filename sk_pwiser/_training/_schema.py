"""The rows of a table, and the schema by which they become tensors."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.utils import Bunch, _safe_indexing

from sk_pwiser._columns import STATE_CLASSES as COLUMN_CLASSES
from sk_pwiser._columns._category import UNSEEN, CategoryColumn
from sk_pwiser._columns._encoder import TableEncoder, grow_encoder, vector_counts
from sk_pwiser._columns._encoding_params import check_encoding_params
from sk_pwiser._columns._frames import as_table, collected, find_column, refuse_parts
from sk_pwiser._columns._list import ListColumn
from sk_pwiser._columns._new_values import LEAST_DROPOUT
from sk_pwiser._columns._number import NumericColumn
from sk_pwiser._columns._target_statistics import (
    ExtendedStatistics,
    TargetStatistics,
    make_target_statistics,
)
from sk_pwiser._model_files import PlainForm
from sk_pwiser._table import STATE_CLASSES as LABEL_CLASSES
from sk_pwiser._table._labels import SoftTargets, Targets, check_tasks
from sk_pwiser._table._weights_and_groups import (
    RowSummary,
    base_rates,
    check_groups,
    check_match,
    combine_weights,
    number_groups,
)
from sk_pwiser._tasks._conditional_labels import conditional_labels, labels_of_parents
from sk_pwiser._training._batches import Impressions, TrainingRows, gather_bags
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils._warnings import warn_user
from sk_pwiser.networks import Bags, BagSpec, NetworkSpec, numeric_widths

if TYPE_CHECKING:
    from sk_pwiser._training._level import LevelRecord

# The default of `embedding_dim`: "auto" makes embeddings narrower, never wider, so that
# the memory of large vocabularies does not depend on it.
LARGEST_AUTOMATIC_DIM = 16


def bag_inputs(bags: Sequence[np.ndarray | None] | None) -> dict[str, np.ndarray]:
    """Return the arrays of bags, the fields of `Bags`, by name, with all weights."""
    found: dict[str, np.ndarray] = {}
    for name, array in zip(Bags._fields, bags or (), strict=False):
        if name == "weights" and array is None:
            array = np.ones(len(found["bag_indices"]), dtype=np.float32)
        if array is not None:
            found[f"bag_{name}"] = array
    if found:
        found["bag_indices"] = found["bag_indices"].astype(np.int64)
    return found


class GivenRows(NamedTuple):
    """A table with labels, weights and groups as the user passes them to `fit`."""

    X: Any
    Y: Any
    sample_weight: Any = None
    groups: Any = None


@dataclass(frozen=True)
class Rows:
    """Rows whose labels, weights and groups were checked, with a table not encoded."""

    X: Any
    targets: Any
    # Not scaled, (n_samples,) or (n_samples, n_tasks), where 0 marks a label that is
    # ignored.
    weights: np.ndarray | None = None
    groups: np.ndarray | None = None  # int64 (n_samples,)
    place: str | None = None  # file and row of a part, for messages

    def __len__(self) -> int:
        return len(self.targets.values)

    def with_weight(self) -> "Rows":
        """Leave out the rows of weight 0."""
        if self.weights is None:
            return self
        is_kept = self.weights.reshape(len(self.weights), -1).any(axis=1)
        if is_kept.all():
            return self
        kept = np.flatnonzero(is_kept)
        return replace(
            self,
            X=_safe_indexing(self.X, kept) if self.place is None else self.X.take(kept),
            targets=self.targets.at(kept),
            weights=self.weights[kept],
            groups=None if self.groups is None else self.groups[kept],
        )


@contextmanager
def named_place(place: str | None) -> Iterator[None]:
    """Add the file and row of a part to the message of an error."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if place is None:
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In {place}: {error}") from error


def task_labels(
    settings: Settings, targets: Targets, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and weights, `(n_samples, n_tasks)`, that give each task's rate.

    Conditional ones are those where the task that it presupposes happened.
    """
    y = targets.values
    task_weights = np.ones_like(y)
    if shared_param(settings, "task_space") == "conditional":
        labels = torch.from_numpy(y)
        task_weights = labels_of_parents(labels, targets.parents).numpy()
        y = conditional_labels(labels, targets.parents).numpy()
    if weights is not None:
        task_weights *= weights.reshape(len(y), -1)
    return y, task_weights


@dataclass(frozen=True)
class Schema:
    """The encoding of the table and the tasks, as predictions and later fits use it."""

    encoder: TableEncoder
    targets: Targets  # classes and names of the tasks, without labels
    base_rates: np.ndarray  # (n_tasks,), where the output biases started
    # Their inputs follow the encoder's numeric inputs.
    statistics: TargetStatistics | None = None
    automatic_dims: tuple[int, ...] = ()  # widths with "auto", by the first fit
    widest_bag: int = 0  # the same of bags
    selection: str = ""  # parameters by which the first fit chose the statistics
    category_dropout: tuple[float, ...] = ()  # with "auto", of each category column

    @classmethod
    def of(
        cls,
        settings: Settings,
        encoder: TableEncoder,
        targets: Targets,
        base_rates: np.ndarray,
        statistics: TargetStatistics | None = None,
    ) -> "Schema":
        """Return the schema of an encoder that has learnt the columns."""
        selection, sizes = statistics_selection(settings), encoder.cardinalities_
        n_codes = [*sizes, *(n for n, *_ in encoder.bags_)]
        dims = [min(LARGEST_AUTOMATIC_DIM, round(1.6 * n**0.56)) for n in n_codes]
        of_columns = tuple(dims[: len(sizes)])
        widest_bag = max(dims[len(sizes) :], default=0)
        learnt = encoder, targets, base_rates, statistics
        return cls(*learnt, of_columns, widest_bag, selection)

    def transform(self, X: Any) -> Impressions:
        """Encode a table as predictions read it."""
        statistics = self.statistics
        n_rates = 0 if statistics is None else statistics.n_outputs
        codes, numeric, *bags = self.encoder.transform(X, n_rates)
        if statistics is not None:
            rates = statistics.transform(codes, self.elements(*bags))
            numeric[:, len(self.encoder.numeric_bins_) :] = rates
        return Impressions.of(self.without_rare(codes), numeric, *bags)

    def bag_matrix(self, bags: Mapping[str, np.ndarray]) -> csr_array | None:
        """Return `bag_inputs` as weights of shape `(n_samples, n_vectors)`, if any."""
        if not bags:
            return None
        sizes = [n_vectors for n_vectors, *_ in self.encoder.bags_]
        starts = bags["bag_offsets"][:: len(sizes)]
        values = bags["bag_weights"], bags["bag_indices"], starts
        return csr_array(values, shape=(len(starts) - 1, sum(sizes)))

    def permute(self, rows: Impressions, name: Any, order: np.ndarray) -> Impressions:
        """Return encoded rows with the values of a column in another order."""
        codes, numeric, bags = self.places()[name]
        source = torch.from_numpy(order)
        permuted = replace(rows, codes=rows.codes.clone(), numeric=rows.numeric.clone())
        permuted.codes[:, codes] = rows.codes[:, codes][source]
        permuted.numeric[:, numeric] = rows.numeric[:, numeric][source]
        if not bags:
            return permuted
        places = torch.arange(len(order) * rows.n_bags).view(len(order), -1)
        places[:, bags] = places[:, bags][source]
        return replace(permuted, bags=gather_bags(rows.bags, places.ravel(), 1))

    def elements(self, bags: Any = None) -> list[Any]:
        """Return the elements of the list columns if they have target statistics."""
        if self.statistics is None or not self.statistics.lists:
            return []
        arrays = (None if part is None else np.asarray(part) for part in bags)
        return self.encoder.elements(bags._make(arrays))

    def places(self) -> dict[Any, tuple[list[int], list[int], list[int]]]:
        """Return where each column is, in the codes, the numeric inputs and the bags.

        Columns of the weights and ages of lists are parts of the column of the lists.
        """
        if self.encoder.sparse_ is not None:
            raise ValueError("X must not be a sparse table.")
        places: dict[Any, tuple[list[int], list[int], list[int]]] = {}
        rates, n_codes, n_numeric, n_bags = self.rate_places(), 0, 0, 0
        for column in self.encoder.columns_:
            if isinstance(column, CategoryColumn):
                places[column.name] = [n_codes], rates.get(("codes", n_codes), []), []
                n_codes += 1
            elif isinstance(column, ListColumn):
                places[column.name] = [], rates.get(("bags", n_bags), []), [n_bags]
                n_bags += 1
            elif isinstance(column, NumericColumn):
                n = len(column.inputs)
                places[column.name] = [], [*range(n_numeric, n_numeric + n)], []
                n_numeric += n
        return places

    def rate_places(self) -> dict[tuple[str, int], list[int]]:
        """Return the numeric inputs with the statistics of each column that has any."""
        given = self.statistics
        if given is None:
            return {}
        keys = [("codes", column) for column in given.columns]
        keys += [("bags", index) for index, _ in given.lists]
        width, first = given.n_tasks_ + 1, len(self.encoder.numeric_bins_)
        starts = range(first, first + len(keys) * width, width)
        return {
            key: [*range(start, start + width)]
            for key, start in zip(keys, starts, strict=True)
        }

    def column_encodings(self) -> dict[Any, Bunch]:
        """Return how each column was read, as `column_encodings_` describes it."""
        encoder, found = self.encoder, {}
        names = getattr(encoder, "feature_names_in_", range(encoder.n_features_in_))
        columns = {column.name: column for column in encoder.columns_}
        places = self.places() if columns else {}
        for name in names:
            column: Any = columns.get(name)  # none of a sparse table
            codes, inputs, bags = places.get(name, ((), (), ()))
            vocabulary = column
            if isinstance(column, ListColumn):
                vocabulary = column.items_ or columns[column.shared_name]
            found[name] = Bunch(
                kind=getattr(column, "kind", "sparse"),
                encoding=getattr(column, "encoding", "embedding"),
                values=getattr(vocabulary, "own_values_", None),
                rates=bool(inputs) and bool(codes or bags),
                bins=getattr(column, "edges_", None),
            )
        return found

    def without_rare(self, codes: np.ndarray) -> np.ndarray:
        """Replace the codes of rare values by the code of unseen values, in place."""
        # By column: a mask of the whole table would need a quarter of its memory.
        for column, cardinality in enumerate(self.encoder.cardinalities_):
            np.putmask(codes[:, column], codes[:, column] >= cardinality, UNSEEN)
        return codes

    def spec(self, settings: Settings, **shared: Any) -> NetworkSpec:
        """Describe the table to a network."""
        bags = [BagSpec(*bag) for bag in self.encoder.bags_]
        largest = settings.embedding_dim
        dims: tuple[int, ...] = ()
        if largest == "auto":
            dims = self.automatic_dims
            largest = max(*dims, self.widest_bag, 1)
        unseen_inputs = self.unseen_inputs()
        bins, numbers = self.encoder.numeric_bins_, self.encoder.of_kind(NumericColumn)
        bin_scales = [each.scale for column in numbers for each in column.inputs]
        has_scores = any(column.has_scores for column in numbers)
        if features := shared.get("domain_features"):
            shared["domain_features"] = self._find_inputs(features)
        dropout = settings.encoding_params["category_dropout"]
        if dropout == "auto":
            n_columns = len(self.encoder.cardinalities_)
            measured = self.category_dropout or [LEAST_DROPOUT] * n_columns
            dropout = [*measured, *[LEAST_DROPOUT] * len(bags)]
        n_rates = 0 if self.statistics is None else int(self.statistics.n_outputs)
        return NetworkSpec(
            self.encoder.cardinalities_,
            len(bins) + n_rates,
            int(largest),
            self.base_rates.tolist(),
            unseen_code=UNSEEN,
            category_dropout=dropout,
            numeric_bins=[*bins, *[0] * n_rates],
            bin_scales=[*bin_scales, *[1.0] * n_rates] if has_scores else (),
            embedding_dims=dims,
            negative_sampling_rate=settings.negative_sampling_rate,
            bags=bags,
            task_parents=self.targets.parents,
            unseen_inputs=unseen_inputs,
            **shared,
        )

    def unseen_inputs(self) -> list[tuple[int, int, float]]:
        """Return the statistics of unseen values: input, category column, value."""
        given, found = self.statistics, []
        if given is None or not hasattr(given, "tables_"):
            return []
        places = self.rate_places()
        for column, table in zip(given.columns, given.tables_, strict=False):
            values = table[UNSEEN].tolist()
            for place, value in zip(places["codes", column], values, strict=True):
                found.append((place, column, value))
        return found

    def _find_inputs(self, features: Sequence[Any]) -> list[int]:
        """Return the inputs of columns, without statistics, as the network counts."""
        encoder, places, found = self.encoder, self.places(), []
        names = [column.name for column in encoder.columns_]
        n_columns, n_bags = len(encoder.cardinalities_), len(encoder.bags_)
        for feature in features:
            name = names[find_column("domain_features", feature, names)]
            codes, numeric, bags = places[name]
            found += [*codes, *(n_columns + bag for bag in bags)] or [
                n_columns + n_bags + index for index in numeric
            ]
        return found


class TableRows:
    """The rows of a table in memory: a data set of one part."""

    sample_rows = None  # all rows are read

    def __init__(
        self,
        settings: Settings,
        rows: Rows,
        weight_scale: float | None = None,
        origin: str = "the training rows",  # as errors name them
        given_groups: "GivenGroups | None" = None,
    ) -> None:
        self.settings = settings
        self.rows: Any = rows
        self.given_groups = given_groups
        self.origin = origin
        self.n_rows = len(rows)
        self.has_groups = rows.groups is not None
        self.summary: Any = RowSummary(weight_scale)
        self.summary.add(rows.targets, rows.weights)
        self.tasks: Targets = self.summary.tasks
        self.has_task_weights: bool = self.summary.per_task

    def again(self) -> "TableRows":
        """Return the same rows for another fit: encoding releases those of a fit."""
        return copy(self)

    def parts(self, label: str) -> Iterator[Rows]:
        """Yield the rows; `label` is what is done with them."""
        yield self.rows

    def encode(self, schema: Schema) -> Impressions:
        """Encode validation rows like the rows of a prediction."""
        rows = self.rows
        with named_place(self.origin):
            encoded = schema.transform(rows.X)
        return encoded.labelled(rows.targets.values, self.summary.scaled, rows.groups)


class GivenGroups(NamedTuple):
    """Groups as the user passed them, for messages that name one."""

    values: Any
    indices: np.ndarray  # of all rows, by `check_groups`
    used_indices: np.ndarray  # of the rows with a weight

    def value_of(self, row: int) -> Any:
        """Return the group of one of the rows with a weight."""
        place = int(np.argmax(self.indices == self.used_indices[row]))
        return np.asarray(collected(self.values), dtype=object)[place]


# A mean of the weights that is so many times larger or smaller than that of the first
# call is probably in another unit.
LARGEST_RATIO = 10.0


def read_table(
    settings: Settings,
    given: GivenRows,
    expected: Targets | None = None,
    classes: Any = None,
    *,
    is_update: bool = False,
    weight_scale: float | None = None,
    origin: str = "the training rows",
) -> TableRows:
    """Check all but the table itself, and leave out the rows of weight 0.

    `expected` has the tasks of the earlier fit, or of the training rows. Weights are
    divided by `weight_scale`, by default by their mean. The rows of an update may have
    only one of the classes.
    """
    refuse_parts(given.X)
    targets = Y = collected(given.Y)
    check_encoding_params(settings.encoding_params)
    if not isinstance(Y, SoftTargets):
        targets = check_tasks(settings, Y, expected, classes, is_update)
    X, sample_weight, groups = as_table(given.X), given.sample_weight, given.groups
    n_samples = len(targets.values)
    check_match(X, n_samples, Y=Y, sample_weight=sample_weight, groups=groups)
    targets, weights = combine_weights(targets, sample_weight)
    group_indices = check_groups(groups, n_samples)
    rows = Rows(X, targets, weights, group_indices).with_weight()
    given_groups = None
    if rows.groups is not None:
        given_groups = GivenGroups(groups, group_indices, rows.groups)
        rows = replace(rows, groups=number_groups(rows.groups))
    if sample_weight is None:
        weight_scale = 1.0  # the weights, if any, are 0 for missing labels
    checked = TableRows(settings, rows, weight_scale, origin, given_groups)
    mean = checked.summary.weights.own_mean
    if sample_weight is not None and None not in (weight_scale, mean):
        ratio = mean / weight_scale
        if not 1 / LARGEST_RATIO <= ratio <= LARGEST_RATIO:
            warn_user(
                f"The mean of sample_weight is {mean:g}, but {weight_scale:g} in the "
                "first call, which is 1 without weights. partial_fit divides by the "
                f"latter, so that these rows count {ratio:.3g} times as much as those. "
                "Scale the weights if that is not intended."
            )
    return checked


class ColumnInput(NamedTuple):
    """How a column enters the network of a fit, or why a fit refuses it."""

    kind: str
    encoding: str = ""
    vectors: int = 0  # number of embeddings of its values
    width: int = 0  # number of inputs of the first layer
    content: str | None = None  # "amounts" or "dates", if its categories are such text
    error: str = ""


def column_inputs(
    settings: Settings, X: Any, targets: Targets, estimator_name: str
) -> tuple[Any, dict[Any, ColumnInput]]:
    """Return a table as a fit reads it, and how each column would enter the network."""
    check_encoding_params(settings.encoding_params)
    encoder = make_encoder(settings, estimator_name)
    errors: dict[Any, str] = {}
    X, *_ = encoder.fit(X, errors=errors)
    encoder.columns_ = [c for c in encoder.columns_ if c.name not in errors]
    shape = X.shape[0], targets.values.shape[1]
    statistics = unfitted_statistics(settings, encoder, shape)
    rates = base_rates(targets.values, parents=targets.parents)
    schema = Schema.of(settings, encoder, targets, rates, statistics)
    spec = schema.spec(settings)
    names = getattr(encoder, "feature_names_in_", range(encoder.n_features_in_))
    if encoder.sparse_ is not None:
        sparse = ColumnInput("sparse", "embedding", 1, spec.embedding_dim)
        return X, dict.fromkeys(names, sparse)
    numeric, places = numeric_widths(spec), schema.places()
    vectors = vector_counts(encoder)
    found = {n: ColumnInput("refused", error=text) for n, text in errors.items()}
    for column in encoder.columns_:
        name, text = column.name, column.encoding
        codes, inputs, bags = places.get(name, ((), (), ()))
        if inputs and (codes or bags):
            text += ", rates"
        width = sum(spec.widths[code] for code in codes)
        width += spec.embedding_dim * len(bags) + sum(numeric[i] for i in inputs)
        content = getattr(column, "content_", None)
        found[name] = ColumnInput(
            column.kind, text, vectors.get(name, 0), width, content
        )
    return X, {name: found[name] for name in names}


def shared_param(settings: Settings, name: str) -> Any:
    """Return one of the entries of `network_params` that every network takes."""
    value = settings.network_params.get(name, getattr(NetworkSpec, name))
    return tuple(value) if isinstance(value, list) else value


def left_out_column(settings: Settings) -> Any:
    """Return the column that orders the rows and is no feature, None without one."""
    params = settings.encoding_params
    return None if params["time_feature"] else params["time_column"]


def make_encoder(settings: Settings, estimator_name: str) -> TableEncoder:
    """Return the encoder of the settings, not yet fitted."""
    # Parameters of the encoder under the same names.
    names = (
        *("list_ages", "list_pooling", "list_weights", "max_bins", "max_categories"),
        *("min_frequency", "n_hash_buckets", "shared_embeddings"),
    )
    return TableEncoder(
        settings.categorical_features,
        **{name: settings.encoding_params[name] for name in names},
        numeric_encoding=settings.numeric_encoding,
        domain_features=shared_param(settings, "domain_features") or (),
        time_column=left_out_column(settings),
        estimator_name=estimator_name,
    )


class Growth(NamedTuple):
    """The earlier row of each row of tables that have grown, and whether it is new.

    New rows are copies of the row of unseen values of their column. Lists that share a
    vocabulary have no such row, and no new one.
    """

    of_columns: tuple[np.ndarray, np.ndarray]  # embedding tables of category columns
    of_bags: tuple[np.ndarray, np.ndarray]  # vectors that lists do not share


def grow_schema(schema: Schema, X: Any) -> tuple[Schema, Growth | None]:
    """Return a schema with codes for the frequent new values, and how tables grow.

    The second result is None if there are no such values.
    """
    before = schema.encoder
    encoder, origins, vectors = grow_encoder(before, X)
    sizes = [
        [column.n_own for column in each.of_kind(ListColumn)] + each.cardinalities_
        for each in (before, encoder)
    ]
    if sizes[0] == sizes[1]:
        return schema, None
    statistics = schema.statistics
    if statistics is not None:
        statistics = ExtendedStatistics(
            statistics, origins, "new", adds=True, vectors=vectors
        )
    rows = [
        # A value that was rare has a code, but no embedding.
        np.where(origin[:n_new] < n_old, origin[:n_new], -1)
        for origin, n_old, n_new in zip(
            origins, before.cardinalities_, encoder.cardinalities_, strict=True
        )
    ]
    growth = Growth(
        _in_one_table(rows, before.cardinalities_),
        _in_one_table(vectors, [column.n_own for column in before.of_kind(ListColumn)]),
    )
    return replace(schema, encoder=encoder, statistics=statistics), growth


@dataclass(frozen=True)
class EncodedData:
    """The rows as tensors, and what the host has learnt of them."""

    train: TrainingRows
    valid: TrainingRows | None
    further: Mapping[str, TrainingRows]  # only measured
    schema: Schema
    epochs: tuple[str | None, int, int]  # monitored column, first that counts, last
    weight_scale: float  # by which weights were divided
    base_rates: Sequence[float]  # of these rows; in later updates, of the first call
    # Per row, validation rows included: the numbers of events of each task, and the
    # weights of these and of the events of its parent, or of all rows without one.
    event_shares: Sequence[Sequence[float]]
    holds_out: bool  # whether a part of the rows is held out
    split_rows: dict[str, Any] | None = None  # that these were drawn from at random
    unrelated: Mapping[int, float] = field(default_factory=dict)  # of `Targets`
    growth: Growth | None = None  # of the tables of the earlier net
    # Codes, labels, task weights and elements of lists of rows that are not in the
    # target statistics yet.
    labelled: tuple[np.ndarray, np.ndarray, np.ndarray, list[Any]] | None = None
    # The level over time, if the last rows in time are held out.
    level: "LevelRecord | None" = None

    def to(self, device: torch.device) -> "EncodedData":
        """Move the tensors to a device if they fit."""
        train = self.train.to(device)
        further = {name: rows.to(train.device) for name, rows in self.further.items()}
        valid = self.valid
        if isinstance(valid, Impressions) and valid.rows is not None:
            # Both select rows of the same tensors, which are moved once.
            assert isinstance(train, Impressions)
            valid = replace(train, rows=valid.rows.to(train.device))
        elif valid is not None:
            valid = valid.to(device)
        return replace(self, train=train, valid=valid, further=further)


def _in_one_table(
    origins: Sequence[np.ndarray], sizes: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Join rows of parts of a table, which had these sizes; -1 marks new rows."""
    parts = zip(origins, np.cumsum([0, *sizes])[:-1], strict=True)
    rows = [first + np.where(own < 0, UNSEEN, own) for own, first in parts]
    is_new = [np.zeros(0, dtype=bool), *(own < 0 for own in origins)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *rows]), np.concatenate(is_new)


def statistics_selection(settings: Settings) -> str:
    """Return the parameters that choose the columns with target statistics, as text."""
    params = settings.encoding_params
    chosen = [params["list_target_encoding"], params["target_encoding_min_values"]]
    return f"{settings.target_encoding!r}, {chosen!r}"


def unfitted_statistics(
    settings: Settings,
    encoder: TableEncoder,
    shape: tuple[int, int],  # of the labels
    earlier: Schema | None = None,
    is_update: bool = False,
) -> TargetStatistics | None:
    """Return unfitted statistics; of the columns that an earlier fit selected."""
    chosen, params = settings.target_encoding, settings.encoding_params
    before = None if earlier is None else earlier.statistics
    expected: list[Any] = [] if before is None else before.column_names(encoder)
    # A stream cannot choose the size of its first part.
    n_samples = None if is_update or earlier is not None else shape[0]
    if earlier is not None and earlier.selection == statistics_selection(settings):
        # Columns whose vocabulary has grown since then might be selected as well.
        n_categories = 0 if before is None else len(before.columns)
        chosen = expected[:n_categories]
        params = {**params, "list_target_encoding": expected[n_categories:]}
    statistics: TargetStatistics | None = make_target_statistics(
        chosen, encoder, n_samples, params
    )
    if statistics is not None:
        statistics.n_tasks_ = shape[1]
    found = [] if statistics is None else statistics.column_names(encoder)
    if earlier is not None and found != expected:
        of_lists = settings.encoding_params["list_target_encoding"]
        raise ValueError(
            f"Training cannot continue with target_encoding="
            f"{settings.target_encoding!r} and list_target_encoding={of_lists!r}: "
            f"these select the columns {found}, the earlier fit those of {expected}."
        )
    return statistics


def encode_plain(
    form: PlainForm, content: object, name: str, schema: Schema | None
) -> tuple[Any, dict[str, np.ndarray]]:
    """Encode the content of a file; errors about categories name their column."""
    try:
        return form.encode(content, name)
    except TypeError as error:
        for column in [] if schema is None else schema.encoder.columns_:
            vocabulary = getattr(column, "items_", None) or column
            for value in getattr(vocabulary, "codes_", ()):
                try:
                    form.encode(value, name)
                except TypeError:
                    raise TypeError(
                        f"A model whose column {column.name!r} contains {value!r}, of "
                        f"class {type(value).__name__}, cannot be saved. Convert the "
                        "column before fit, for example by "
                        f"X[{column.name!r}].astype(str)."
                    ) from error
        raise


# Classes of an encoding, for files.
STATE_CLASSES = (*COLUMN_CLASSES, *LABEL_CLASSES, Schema)
