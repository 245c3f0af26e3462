"""Contributions of the fields of rows that a scorer has encoded."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sk_pwiser._columns import _frames
from sk_pwiser._columns._row_fields import as_column, repeat
from sk_pwiser._rows._encoded_rows import Impressions
from sk_pwiser._rows._recombined_rows import RowRecombiner
from sk_pwiser._training._schema import bag_inputs
from sk_pwiser.export._served_model import ServedModel
from sk_pwiser.inspection._row_explanations import ExplainedOutputs, RowExplanations
from sk_pwiser.inspection._shapley import ValueFunction, shapley_values

# The permutations of columns are the same in each call: equal rows have equal reasons.
SEED = 0
# Name of the input of a network with the shifts of markets.
SHIFTS = "shifts"


class RowExplainer:
    """Explains encoded rows by the outputs of a network.

    Parameters
    ----------
    served : ServedModel
        The model, whose schema encodes the background.
    background : table
        Rows to compare with.
    shifts_of : callable or None
        Returns the shifts of the markets of a list of values; None without markets.
    market : object
        Name of the column of the markets, None without.
    """

    def __init__(
        self,
        served: ServedModel,
        background: Any,
        *,
        market: Any = None,
        shifts_of: Callable[[Sequence[Any]], np.ndarray] | None = None,
    ) -> None:
        background = _frames.collected(background)
        if len(background) == 0:
            raise ValueError("background must have rows; it has none.")
        self.schema = served.schema
        self.background = served.schema.transform(background)
        self.background_cells = served.schema.encoder.read(background).cells
        self.places = served.schema.places()
        self.task_names = list(served.task_names)
        self.task_parents = served.task_parents
        self.value_parents = served.value_parents
        self.market_column: int | None = None
        self.background_shifts: np.ndarray | None = None
        if shifts_of is not None:
            self.market_column = list(self.places).index(market)
            column = _frames.column_of(background, "by", market)
            self.background_shifts = shifts_of(list(column))

    def outputs(self, tasks: Any, given_event: bool) -> ExplainedOutputs:
        """Return what is explained."""
        return ExplainedOutputs.choose(
            tasks,
            task_names=self.task_names,
            task_parents=self.task_parents,
            value_parents=self.value_parents,
            given_event=given_event,
        )

    def explain(
        self,
        inputs: Mapping[str, np.ndarray],
        predict: Callable[[dict[str, np.ndarray]], np.ndarray],
        *,
        outputs: ExplainedOutputs,
        data: Mapping[Any, Sequence[Any]],
    ) -> RowExplanations:
        """Return the contributions of the columns of rows.

        `inputs` are the inputs of the network by name, `data` the values of the rows by
        field. `predict` maps inputs to the log-odds of all tasks, and the logarithms of
        the mean amounts given the event after them.
        """
        rows = _as_impressions(inputs)
        n_rows = len(rows)
        cells = {name: repeat(list(data[name]), n_rows) for name in self.places}
        cells = {name: as_column(values) for name, values in cells.items()}
        recombiner = RowRecombiner(
            self.places,
            [rows, self.background],
            self.schema.recombined_cells([cells, self.background_cells]),
        )
        shifts = None
        if self.background_shifts is not None:
            shifts = np.vstack([inputs[SHIFTS], self.background_shifts])

        def explained(sources: np.ndarray) -> np.ndarray:
            arrays = _as_inputs(recombiner.take(sources))
            if shifts is not None:
                arrays[SHIFTS] = shifts[sources[:, self.market_column]]
            return outputs.explained(predict(arrays))

        function = ValueFunction(explained, recombiner.value_hashes(), n_rows)
        all_outputs = function.of_rows()
        generator = np.random.RandomState(SEED)
        contributions = shapley_values(function, all_outputs, generator)
        return self._explanations(
            outputs,
            contributions=contributions.values,
            errors=contributions.errors,
            base_values=all_outputs[n_rows:].mean(axis=0),
            log_odds=all_outputs[:n_rows],
            data=data,
        )

    def of_no_rows(self, outputs: ExplainedOutputs) -> RowExplanations:
        """Return the explanations of a request without rows."""
        empty = np.empty((0, len(self.places), len(outputs.names)))
        return self._explanations(
            outputs,
            contributions=empty,
            errors=empty,
            base_values=np.full(len(outputs.names), np.nan),
            log_odds=empty[:, 0],
            data={name: [] for name in self.places},
        )

    def _explanations(
        self,
        outputs: ExplainedOutputs,
        *,
        data: Mapping[Any, Sequence[Any]],
        **arrays: np.ndarray,
    ) -> RowExplanations:
        """Return explanations with their names, and the values of the rows."""
        n_rows = len(arrays["log_odds"])
        values = np.empty((n_rows, len(self.places)), dtype=object)
        for place, name in enumerate(self.places):
            column = data[name]
            for row in range(n_rows):
                # A field that all rows share has one value.
                values[row, place] = column[row if len(column) > 1 else 0]
        return RowExplanations(
            **arrays,
            column_names=list(self.places),
            task_names=outputs.names,
            value_names=outputs.value_names,
            data=values,
        )


def _as_impressions(inputs: Mapping[str, np.ndarray]) -> Impressions:
    """Return the inputs of a network as encoded rows."""
    bags = None
    if "bag_indices" in inputs:
        bags = [inputs.get(f"bag_{name}") for name in ("offsets", "indices", "weights")]
        bags.append(inputs.get("bag_ages"))
    return Impressions.of(inputs["codes"], inputs["numeric"], bags)


def _as_inputs(rows: Impressions) -> dict[str, np.ndarray]:
    """Return encoded rows as the inputs of a network."""
    bags = None
    if rows.bags is not None:
        bags = [None if entry is None else entry.numpy() for entry in rows.bags]
    arrays = {
        "codes": rows.codes.to(torch.int64).numpy(),
        "numeric": rows.numeric.numpy(),
    }
    return arrays | bag_inputs(bags)
