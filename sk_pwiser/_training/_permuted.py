"""Logits of a table in which the values of one column are permuted."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._training._batches import Impressions, bags_of, gather_bags
from sk_pwiser._training._encode import Inputs
from sk_pwiser._training._state import TrainingResult
from sk_pwiser.networks import Bags, DenseRows

BATCH = 4096
# Above MANY_ROWS, many rows have almost the same logit, and their order hardly changes
# a ranking: it need not be exact. Fewer than FEW_ROWS rows are computed together with
# others, since matrix products of few rows may round differently.
MANY_ROWS, FEW_ROWS = 100_000, 64


class PermutedTable:
    """An encoded table, and the network: logits after a permutation of one column.

    Rows of different labels, int `(n_samples, n_tasks)`, have the order that `predict`
    gives them; other rows may differ by rounding errors. The dense input of the network
    is computed once, unless the codes of the permuted rows are needed.
    """

    def __init__(self, result: TrainingResult, X: Any, labels: np.ndarray) -> None:
        self._labels = labels
        self._places = result.schema.places()
        self.names = list(self._places)
        self._net = result.net
        self._inputs = result.schema.transform(X)
        self._logits = self._net.forward(self._inputs.impressions())
        spec = self._net.module_.spec
        self._n_bags, self._n_columns = len(spec.bags), len(spec.cardinalities)
        attended = [(b, bag.column) for b, bag in enumerate(spec.bags) if bag.attends]
        self._attended = {b for b, _ in attended}, {column for _, column in attended}
        self._rows = self._find_rows()

    def logits(self, name: Any = None, order: np.ndarray | None = None) -> np.ndarray:
        """Return float32 logits with the values of a column in another order."""
        if order is None:
            return self._logits.numpy()
        codes, numeric, bags = self._places[name]
        of_bags, of_codes = self._attended
        if self._rows is None or of_bags & {*bags} or of_codes & {*codes}:
            return self._net.forward(self._permute(name, order).impressions()).numpy()
        first = self._n_columns + self._n_bags
        inputs = [
            *codes,
            *(self._n_columns + b for b in bags),
            *(first + j for j in numeric),
        ]
        return self._from_rows(self._rows, inputs, order).numpy()

    def _from_rows(self, rows: Any, inputs: list[int], order: np.ndarray) -> Tensor:
        """Return the logits of the dense inputs, some of which are permuted."""
        places = torch.from_numpy(order).to(torch.device(self._net.device))
        with torch.inference_mode(), self._net._autocast():
            outputs = rows.outputs(inputs, places)
            logits = torch.cat([output.logits.float().cpu() for output in outputs])
            close = torch.from_numpy(self._find_close(logits.numpy()))
            if len(close):
                output = rows.exact_output(close.to(places.device))
                logits[close] = output.logits.float().cpu()
            return logits

    def _find_close(self, logits: np.ndarray) -> np.ndarray:
        """Return rows of different labels whose order depends on rounding errors."""
        is_close = np.zeros(len(logits), dtype=bool)
        if self._error == 0 or len(logits) > MANY_ROWS:
            return np.flatnonzero(is_close)
        for of_task, labels in zip(logits.T, self._labels.T, strict=True):
            order = np.argsort(of_task)
            is_first = np.append(True, np.diff(of_task[order]) > self._error)
            starts = np.flatnonzero(is_first)
            ones = np.add.reduceat(labels[order], starts)
            sizes = np.diff(np.append(starts, len(order)))
            is_mixed = (ones > 0) & (ones < sizes)
            if is_mixed.any():
                is_close[order[np.repeat(is_mixed, sizes)]] = True
        if is_close.any():
            is_close[:FEW_ROWS] = True
        return np.flatnonzero(is_close)

    def _find_rows(self) -> Any:
        """Return the dense inputs, or None if the network has no logits from them."""
        impressions = self._inputs.impressions()
        self._error = 0.0
        try:
            with torch.inference_mode(), self._net._autocast():
                batches = self._batches(impressions)
                in_parts = self._net.precision == "float32"
                rows = DenseRows(self._net.module_, batches, in_parts)
            found = self._from_rows(rows, [], np.arange(len(impressions)))
        except Exception:  # a user's network may read the codes in any way
            return None
        # Differences between two rows, and to other permutations, may be larger.
        self._error = 3 * max(float((found - self._logits).abs().max()), 1e-7)
        return rows if torch.allclose(found, self._logits, 1e-4, 1e-5) else None

    def _batches(
        self, impressions: Impressions
    ) -> Iterator[tuple[Tensor, Tensor, Bags | None]]:
        """Yield the inputs of consecutive rows, on the device of the network."""
        device = torch.device(self._net.device)
        for start in range(0, len(impressions), BATCH):
            batch, _ = impressions[start : min(start + BATCH, len(impressions))]
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            bags = bags_of(batch)
            if bags is not None:
                bags = bags._replace(indices=bags.indices.long())
            yield batch["codes"].long(), batch["numeric"], bags

    def _permute(self, name: Any, order: np.ndarray) -> Inputs:
        """Return the encoded table with the permuted column."""
        codes, numeric, bags = self._places[name]
        inputs = self._inputs._replace(
            codes=self._inputs.codes.copy(), numeric=self._inputs.numeric.copy()
        )
        inputs.codes[:, codes] = self._inputs.codes[order][:, codes]
        inputs.numeric[:, numeric] = self._inputs.numeric[order][:, numeric]
        if not bags:
            return inputs
        places = np.arange(len(order) * self._n_bags).reshape(len(order), -1)
        places[:, bags] = places[order][:, bags]
        entries = inputs.impressions().bags
        assert entries is not None
        found = gather_bags(entries, torch.from_numpy(places.ravel()), 1)
        return inputs._replace(
            bags=tuple(None if t is None else t.numpy() for t in found)
        )
