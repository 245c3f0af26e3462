"""The schema of a fit: the encoding of the columns, and the tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.utils import Bunch

from sk_pwiser._columns import STATE_CLASSES as COLUMN_CLASSES
from sk_pwiser._columns._amount_statistics import log_multiples
from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser._columns._combination import CombinationColumn
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser._columns._exposure_statistics import combinations_of
from sk_pwiser._columns._frames import find_column
from sk_pwiser._columns._new_values import LEAST_DROPOUT
from sk_pwiser._columns._target_statistics import (
    TargetStatistics,
    make_target_statistics,
)
from sk_pwiser._model_files import PlainForm
from sk_pwiser._responses import exposure_of_predictions
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._recombined_rows import RecombinedCells
from sk_pwiser._settings import (
    Settings,
    exposure_references,
    left_out_column,
    shared_param,
)
from sk_pwiser._tasks._amounts import Values
from sk_pwiser._tasks._conditional_labels import conditional_labels, labels_of_parents
from sk_pwiser._tasks._labels import SoftTargets, Targets
from sk_pwiser._training._pwiser_weight import WeightTrial
from sk_pwiser.networks import Bags, BagSpec, NetworkSpec, VectorSpec

# The default of `embedding_dim`: "auto" makes embeddings narrower, never wider, so that
# the memory of large vocabularies does not depend on it.
LARGEST_AUTOMATIC_DIM = 16


def automatic_dim(n_codes: int) -> int:
    """Return the width of embeddings of so many codes with `embedding_dim="auto"`."""
    return min(LARGEST_AUTOMATIC_DIM, round(1.6 * n_codes**0.56))


def bag_inputs(bags: Sequence[np.ndarray | None] | None) -> dict[str, np.ndarray]:
    """Return the arrays of bags, the fields of `Bags`, by name, with all weights."""
    arrays: dict[str, np.ndarray] = {}
    for name, array in zip(Bags._fields, bags or (), strict=False):
        if name == "weights" and array is None:
            array = np.ones(len(arrays["bag_indices"]), dtype=np.float32)
        if array is not None:
            arrays[f"bag_{name}"] = array
    if arrays:
        arrays["bag_indices"] = arrays["bag_indices"].astype(np.int64)
    return arrays


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


def statistic_labels(
    settings: Settings,
    schema: "Schema",
    targets: Targets,
    weights: np.ndarray | None,
    exposure: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels and weights that target statistics count.

    These are `task_labels`, behind them the logarithms of amounts, and last the score
    of how each row was shown, by its codes `exposure`, `(n_rows, n_columns)`.
    """
    y, task_weights = task_labels(settings, targets, weights)
    statistics = schema.statistics
    if statistics is None or not statistics.n_values:
        return y, task_weights
    labels = [y]
    label_weights = [task_weights]
    if statistics.n_values > statistics.reads_exposure:
        logs, amount_weights = _amount_labels(schema, targets, weights)
        labels.append(logs)
        label_weights.append(amount_weights)
    if statistics.reads_exposure:
        scores: Any = statistics.exposure_scores
        assert exposure is not None
        cells = combinations_of(exposure, schema.exposure_sizes())
        labels.append(scores[cells][:, np.newaxis])
        # How a row was shown needs no label: rows count as for the first task, or as
        # most for any if it has no label.
        first = task_weights[:, :1]
        largest = task_weights.max(axis=1, keepdims=True)
        label_weights.append(np.where(first > 0, first, largest))
    return np.hstack(labels), np.hstack(label_weights)


def _amount_labels(
    schema: "Schema", targets: Targets, weights: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the logarithms of amounts, and their weights."""
    assert targets.amounts is not None
    y = targets.values
    row_weights = np.ones((len(y), 1))
    if weights is not None:
        row_weights = weights.reshape(len(y), -1)
    parents = [max(parent, 0) for parent in targets.learnt_values.parents]
    if row_weights.shape[1] > 1:
        row_weights = row_weights[:, parents]
    multiples = targets.amounts / np.array(schema.value_scales)
    logs, amount_weights = log_multiples(multiples, row_weights)
    return logs, amount_weights


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
    value_scales: tuple[float, ...] = ()  # mean amounts, by which amounts are divided
    weight_trial: WeightTrial | None = None  # of the first fit

    @classmethod
    def of(
        cls,
        settings: Settings,
        encoder: TableEncoder,
        targets: Targets,
        base_rates: np.ndarray,
        statistics: TargetStatistics | None = None,
        value_scales: tuple[float, ...] = (),
    ) -> "Schema":
        """Return the schema of an encoder that has learnt the columns."""
        bag_dims = [automatic_dim(bag.n_vectors) for bag in encoder.bags_]
        return cls(
            encoder=encoder,
            targets=targets,
            base_rates=base_rates,
            statistics=statistics,
            automatic_dims=tuple(map(automatic_dim, encoder.cardinalities_)),
            widest_bag=max(bag_dims, default=0),
            selection=statistics_selection(settings),
            value_scales=value_scales,
        )

    def transform(self, X: Any, *, as_shown: bool = False) -> Impressions:
        """Encode a table as predictions read it.

        `as_shown` reads how the rows were shown, instead of the reference.
        """
        statistics = self.statistics
        n_rates = 0 if statistics is None else statistics.n_outputs
        codes, numeric, *bags = self.encoder.transform(X, n_rates)
        if statistics is not None:
            rates = statistics.transform(codes, self.elements(*bags))
            numeric[:, len(self.encoder.numeric_bins_) :] = rates
        rows = Impressions.of(self.without_rare(codes), numeric, *bags)
        return rows.shown(self.encoder.exposure_codes(X)) if as_shown else rows

    def predicted(self, X: Any) -> Impressions:
        """Encode a table for predictions, at the reference or as shown."""
        exposure = exposure_of_predictions()
        as_shown = exposure == "shown"
        if exposure == "logged":
            as_shown = self.encoder.says_exposure(X)
        return self.transform(X, as_shown=as_shown)

    def bag_matrix(self, bags: Mapping[str, np.ndarray]) -> csr_array | None:
        """Return `bag_inputs` as weights of shape `(n_samples, n_vectors)`, if any."""
        if not bags:
            return None
        sizes = [n_vectors for n_vectors, *_ in self.encoder.bags_]
        starts = bags["bag_offsets"][:: len(sizes)]
        values = bags["bag_weights"], bags["bag_indices"], starts
        return csr_array(values, shape=(len(starts) - 1, sum(sizes)))

    def elements(self, bags: Any = None) -> list[Any]:
        """Return the elements of the list columns if they have target statistics."""
        if self.statistics is None or not self.statistics.lists:
            return []
        arrays = (None if array is None else np.asarray(array) for array in bags)
        return self.encoder.elements(bags._make(arrays))

    def places(self) -> dict[Any, tuple[list[int], list[int], list[int]]]:
        """Return where each column is, in the codes, the numeric inputs and the bags.

        Columns of the weights and ages of lists are parts of the column of the lists.
        """
        if self.encoder.is_sparse_:
            raise ValueError("X must not be a sparse table.")
        places: dict[Any, tuple[list[int], list[int], list[int]]] = {}
        rates = self.rate_places()
        n_numeric = 0
        n_columns = {"codes": 0, "bags": 0}
        for column in self.encoder.columns_:
            if column.not_an_input:
                continue
            stop = n_numeric + len(column.inputs)
            numeric = list(range(n_numeric, stop))
            n_numeric = stop
            place: dict[str, list[int]] = {"codes": [], "bags": []}
            form = column.network_input
            if form in place:
                numeric += rates.get((form, n_columns[form]), [])
                place[form] = [n_columns[form]]
                n_columns[form] += 1
            places[column.name] = place["codes"], numeric, place["bags"]
        return places

    def recombined_cells(
        self, tables: Sequence[Mapping[Any, Any]]
    ) -> list[RecombinedCells]:
        """Return the combinations of rows whose columns come from different rows.

        `tables` have the cells by column, and their rows follow each other.
        """
        rates = self.rate_places()
        combinations = self.encoder.combinations_
        first = len(self.encoder.code_columns_) - len(combinations)
        cells = []
        for place, column in enumerate(combinations, first):
            values = [column.places_of(table) for table in tables]
            cells.append(
                RecombinedCells(
                    code=place,
                    numeric=rates.get(("codes", place), []),
                    column_names=column.name,
                    values=[np.concatenate(v) for v in zip(*values, strict=True)],
                    encode=partial(self._encode_cells, place, column),
                )
            )
        return cells

    def _encode_cells(
        self, place: int, column: CombinationColumn, values: Sequence[np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return codes as the network reads them, and target statistics if any."""
        codes = column.codes_of_places(values)
        rates = np.empty((len(codes), 0), dtype=np.float32)
        statistics = self.statistics
        if statistics is not None and place in statistics.columns:
            rates = statistics.tables_[statistics.columns.index(place)][codes]
        return np.where(codes < column.n_network_codes, codes, UNSEEN), rates

    def rate_places(self) -> dict[tuple[str, int], list[int]]:
        """Return the numeric inputs with the statistics of each column that has any."""
        statistics = self.statistics
        if statistics is None:
            return {}
        keys = [("codes", column) for column in statistics.columns]
        keys += [("bags", index) for index, _ in statistics.lists]
        width = statistics.n_tasks_ + 1
        first = len(self.encoder.numeric_bins_)
        starts = range(first, first + len(keys) * width, width)
        return {
            key: [*range(start, start + width)]
            for key, start in zip(keys, starts, strict=True)
        }

    def exposure_sizes(self) -> list[int]:
        """Return the numbers of codes of the columns that say how rows were shown."""
        columns = self.encoder.exposure_columns_
        return [column.exposure_shape.n_codes for column in columns]

    def column_encodings(self) -> dict[Any, Bunch]:
        """Return how each column was read, as `column_encodings_` describes it."""
        columns = self.encoder.named_parts_
        places = {} if self.encoder.is_sparse_ else self.places()
        encodings = {}
        for name in self.encoder.names_:
            codes, inputs, bags = places.get(name, ((), (), ()))
            has_rates = bool(inputs) and bool(codes or bags)
            encodings[name] = Bunch(**columns[name].describe(columns), rates=has_rates)
        return encodings

    def without_rare(self, codes: np.ndarray) -> np.ndarray:
        """Replace the codes of rare values by the code of unseen values, in place."""
        # By column: a mask of the whole table would need a quarter of its memory.
        for column, n_codes in enumerate(self.encoder.n_network_codes_):
            np.putmask(codes[:, column], codes[:, column] >= n_codes, UNSEEN)
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
        bins = self.encoder.numeric_bins_
        bin_scales = [numeric.scale for numeric in self.encoder.inputs_]
        has_scores = any(column.has_scores for column in self.encoder.columns_)
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
            value_parents=self.targets.learnt_values.parents,
            unseen_inputs=unseen_inputs,
            unseen_sources=self.unseen_sources(),
            vectors=self.vectors(),
            **shared,
        )

    def vectors(self) -> list[VectorSpec]:
        """Return the vectors of values, of the category columns that have some."""
        specs = []
        for index, column in enumerate(self.encoder.code_columns_):
            value_vectors = column.value_vectors
            if value_vectors is not None:
                vectors, rows = map(torch.from_numpy, value_vectors)
                specs.append(VectorSpec(index, vectors, rows))
        return specs

    def unseen_inputs(self) -> list[tuple[int, int, float]]:
        """Return the statistics of unseen values: input, category column, value."""
        statistics = self.statistics
        if statistics is None or not hasattr(statistics, "tables_"):
            return []
        places = self.rate_places()
        inputs = []
        for j, column in enumerate(statistics.columns):
            values = statistics.unseen_inputs(j)
            for place, value in zip(places["codes", column], values, strict=True):
                inputs.append((place, column, value))
        return inputs

    def unseen_sources(self) -> list[tuple[int, int, float]]:
        """Return what else statistics of unseen values depend on: those of parents.

        These are the input, that of the parent, and a factor.
        """
        statistics = self.statistics
        if statistics is None or not hasattr(statistics, "tables_"):
            return []
        parent_rates = statistics.parent_rates
        if parent_rates is None:
            return []
        places = self.rate_places()
        places_of_tables = [places["codes", column] for column in statistics.columns]
        return [
            (inputs[task], places_of_tables[parent][task], factor)
            for j, inputs in enumerate(places_of_tables)
            for task, parent, factor in parent_rates.unseen_sources(j)
        ]

    def _find_inputs(self, features: Sequence[Any]) -> list[int]:
        """Return the inputs of columns, without statistics, as the network counts."""
        places = self.places()
        names = [column.name for column in self.encoder.columns_]
        n_columns = len(self.encoder.code_columns_)
        n_bags = len(self.encoder.bag_columns_)
        inputs: list[int] = []
        for feature in features:
            name = names[find_column("domain_features", feature, names)]
            codes, numeric, bags = places[name]
            embedded = [*codes, *(n_columns + bag for bag in bags)]
            inputs += embedded or [n_columns + n_bags + index for index in numeric]
        return inputs


def make_encoder(settings: Settings, estimator_name: str) -> TableEncoder:
    """Return the encoder of the settings, not yet fitted."""
    # Parameters of the encoder under the same names.
    names = (
        "exposure_monotone",
        "list_ages",
        "list_pooling",
        "list_weights",
        "max_bins",
        "max_categories",
        "min_frequency",
        "n_hash_buckets",
        "parents",
        "shared_embeddings",
        "vectors",
    )
    return TableEncoder(
        settings.categorical_features,
        **{name: settings.encoding_params[name] for name in names},
        numeric_encoding=settings.numeric_encoding,
        domain_features=shared_param(settings, "domain_features") or (),
        exposure_features=exposure_references(settings),
        time_column=left_out_column(settings),
        estimator_name=estimator_name,
    )


def statistics_selection(settings: Settings) -> str:
    """Return the parameters that choose the columns with target statistics, as text."""
    params = settings.encoding_params
    chosen = [params["list_target_encoding"], params["target_encoding_min_values"]]
    return f"{settings.target_encoding!r}, {chosen!r}"


def unfitted_statistics(
    settings: Settings,
    encoder: TableEncoder,
    shape: tuple[int, int],  # of the labels
    earlier_schema: Schema | None = None,
    in_stream: bool = False,
) -> TargetStatistics | None:
    """Return unfitted statistics; of the columns that an earlier fit selected.

    `in_stream` says that these are the first rows of a stream.
    """
    chosen = settings.target_encoding
    params = settings.encoding_params
    earlier_statistics = None if earlier_schema is None else earlier_schema.statistics
    expected: list[Any] = (
        [] if earlier_statistics is None else earlier_statistics.column_names(encoder)
    )
    # A stream cannot choose the size of its first part.
    n_samples = None if in_stream or earlier_schema is not None else shape[0]
    selection = statistics_selection(settings)
    if earlier_schema is not None and earlier_schema.selection == selection:
        # Columns whose vocabulary has grown since then might be selected as well.
        n_categories = (
            0 if earlier_statistics is None else len(earlier_statistics.columns)
        )
        chosen = expected[:n_categories]
        params = {**params, "list_target_encoding": expected[n_categories:]}
    statistics: TargetStatistics | None = make_target_statistics(
        chosen, encoder, n_samples, params
    )
    if statistics is not None:
        # Amounts and exposures have no parents to be shrunk to.
        n_values = 0 if statistics.parents else len(settings.value_tasks or ())
        reads_exposure = bool(encoder.exposure_columns_) and not statistics.parents
        n_values += reads_exposure
        if earlier_statistics is not None:
            n_values = earlier_statistics.n_values
            reads_exposure = earlier_statistics.reads_exposure
        if n_values:
            statistics.n_values = n_values
        if reads_exposure:
            statistics.reads_exposure = True
        statistics.n_tasks_ = shape[1] + n_values
    names = [] if statistics is None else statistics.column_names(encoder)
    if earlier_schema is not None and names != expected:
        chosen_lists = settings.encoding_params["list_target_encoding"]
        raise ValueError(
            f"Training cannot continue with target_encoding="
            f"{settings.target_encoding!r} and list_target_encoding={chosen_lists!r}: "
            f"these select the columns {names}, the earlier fit those of {expected}."
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
            for value in column.stored_values():
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
STATE_CLASSES = (
    *COLUMN_CLASSES,
    SoftTargets,
    Targets,
    Values,
    WeightTrial,
    Schema,
)
