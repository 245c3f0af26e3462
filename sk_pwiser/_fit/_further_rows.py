"""Further rows, encoded by the columns and the statistics of the rows before them."""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from sk_pwiser._columns._column_warnings import warn_about_few_values
from sk_pwiser._columns._encoder import learn_constant_columns
from sk_pwiser._fit._learn_columns import n_reserved, refuse_time_as_feature
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._table_rows import TableRows
from sk_pwiser._rows._table_store import TableStore
from sk_pwiser._settings import Settings
from sk_pwiser._training._grown_tables import grow_tables
from sk_pwiser._training._growth import Growth, grow_schema
from sk_pwiser._training._net import MultiTaskNet
from sk_pwiser._training._schema import Schema, statistic_labels
from sk_pwiser._training._undo import Undo


@dataclass(frozen=True, kw_only=True)
class LabelledCodes:
    """The codes of rows, of which rare values are not left out, with their labels."""

    codes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray  # of the labels
    lists: list[Any]  # elements of lists with target statistics


@dataclass(frozen=True, kw_only=True)
class FurtherRows:
    """Rows that are encoded by the statistics of the rows before them."""

    schema: Schema
    train: Impressions
    growth: Growth | None  # of the tables of the earlier net
    # What the rows add to the statistics, in which they are not yet, if there are any.
    labelled_codes: LabelledCodes | None

    def grow_tables(self, net: MultiTaskNet, undo: Undo) -> frozenset[int] | None:
        """Give new values rows in the tables of a net, if there are any.

        Returns numbers of rows by which a table of codes is known that did not change
        with them; None if no table has changed.
        """
        if self.growth is None:
            return None
        n_codes_before = sum(net.module_.spec.cardinalities)
        grow_tables(net, self.schema, self.growth, undo)
        return self.growth.reused_sizes | {n_codes_before}

    def add_to_statistics(self, undo: Undo) -> None:
        """Add the rows to the target statistics, if there are any."""
        added = self.labelled_codes
        if self.schema.statistics is not None and added is not None:
            self.schema.statistics.update(
                added.codes, added.labels, added.weights, undo, added.lists
            )

    def as_predicted(self, device: torch.device) -> Impressions:
        """Return the rows as predictions read them: by the statistics of today."""
        rows = self.train
        if self.schema.statistics is not None and self.labelled_codes is not None:
            n_numbers = len(self.schema.encoder.numeric_bins_)
            rates = self.schema.statistics.transform(
                self.labelled_codes.codes, self.labelled_codes.lists
            )
            numeric = rows.numeric.clone()
            numeric[:, n_numbers:] = torch.from_numpy(rates)
            rows = replace(rows, numeric=numeric)
        return rows.to(device)


def encode_further(
    settings: Settings,
    rows: TableRows,
    schema: Schema,
    *,
    copies_statistics: bool = False,
) -> FurtherRows:
    """Encode rows by the columns and the statistics of the rows before them."""
    refuse_time_as_feature(settings, schema)
    params = settings.encoding_params
    grows = params["grow_vocabulary"]
    growth = None
    (table,) = rows.parts("Learning the columns")
    if grows:
        schema, growth = grow_schema(schema, table.X, params["forget_after"])
    if copies_statistics:
        schema = replace(schema, statistics=deepcopy(schema.statistics))
    summary = rows.summary
    earlier_columns = schema.encoder.columns_
    table = replace(table, X=schema.encoder.align(table.X))
    encoder = learn_constant_columns(schema.encoder, table.X, summary.row_weights)
    n_rates = n_reserved(schema.statistics, True)
    arrays = encoder.transform(table.X, n_rates, names_new=not grows)
    earlier_ids = set(map(id, earlier_columns))
    learnt_columns = [c for c in encoder.columns_ if id(c) not in earlier_ids]
    warn_about_few_values(learnt_columns, [])
    schema = replace(schema, encoder=encoder)
    encoded = Impressions.of(*arrays).shown(encoder.exposure_codes(table.X))
    labelled_codes = None
    if schema.statistics is not None:
        labels, weights = statistic_labels(
            settings,
            schema,
            table.targets,
            summary.scaled,
            encoder.exposure_codes(table.X),
        )
        if summary.rows_per_weight is not None:
            # How far rates deviate by chance depends on the number of rows.
            weights = weights * summary.rows_per_weight
        labelled_codes = LabelledCodes(
            codes=arrays[0].copy(),
            labels=labels,
            weights=weights,
            lists=schema.elements(encoded.bags),
        )
    store = TableStore()
    labelled = encoded.labelled(
        table.targets.values, summary.scaled, table.groups, table.targets.amounts
    )
    store.add(labelled, np.zeros(len(table), dtype=bool), None)
    train, _ = store.finish(schema, None, False)
    return FurtherRows(
        schema=schema,
        train=train,
        growth=growth,
        labelled_codes=labelled_codes,
    )
