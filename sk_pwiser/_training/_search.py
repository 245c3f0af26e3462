"""A weight of the pairwise term that the fit chooses by its validation rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sk_pwiser._training._batches import TrainingRows
from sk_pwiser._training._callbacks import KeepOnInterrupt, without_name
from sk_pwiser._training._settings import Settings
from sk_pwiser._utils import resolve, warn_user
from sk_pwiser.losses import LOSSES, MultiTaskLoss

AUTO = "auto"
# The weight that the others must beat, which is trained first.
DEFAULT_WEIGHT = 0.1
CANDIDATES = (DEFAULT_WEIGHT, 0.0, 0.3, 1.0)
# Splits are added until their validation rows have this many positives, and as many
# negatives, or until there are this many splits. With fewer positives than the last
# number in all splits, standard errors are too small, and the choice is noise.
POSITIVES, MAX_SPLITS, FEWEST_POSITIVES = 60, 5, 50
# By how many standard errors the best weight must be ahead of the default.
AHEAD = 2.0


def starting_settings(
    settings: Settings, earlier: Any, single_pass: bool = False
) -> tuple[Settings, bool]:
    """Replace the weight "auto" by a number; return whether the fit searches one."""
    if settings.pwiser_weight != AUTO:
        return settings, False
    weight = DEFAULT_WEIGHT if earlier is None else earlier.settings.pwiser_weight
    numeric = replace(settings, pwiser_weight=weight)
    kind = resolve(LOSSES, MultiTaskLoss, "loss", settings.loss)
    if earlier is not None or "pwiser_weight" not in kind.estimator_parameters:
        return numeric, False
    if single_pass:
        _warn("partial_fit holds out no rows")
        return numeric, False
    if settings.checkpoint_dir is not None:
        raise ValueError(
            "checkpoint_dir must be None with pwiser_weight='auto', which trains "
            f"several networks; got {str(settings.checkpoint_dir)!r}."
        )
    callbacks = map(without_name, settings.callbacks or [])
    kinds = [each if isinstance(each, type) else type(each) for each in callbacks]
    if any(issubclass(kind, KeepOnInterrupt) for kind in kinds):
        raise ValueError(
            "callbacks must not hold KeepOnInterrupt with pwiser_weight='auto': an "
            "interrupt would end the training of one weight, not the search."
        )
    return numeric, True


def _warn(reason: str) -> None:
    warn_user(
        f"pwiser_weight='auto' cannot compare weights: {reason}. The weight is "
        f"{DEFAULT_WEIGHT}; pwiser_weight={DEFAULT_WEIGHT} avoids this warning."
    )


class Placements(NamedTuple):
    """The share of rows with the other label that each row is ranked correctly with."""

    positives: np.ndarray
    negatives: np.ndarray


class ValidationRows:
    """Labels and weights of one task in the validation rows of a split."""

    def __init__(self, y: Tensor, weights: Tensor | None, task: int) -> None:
        self.task = task
        is_positive = y[:, task].cpu().numpy() > 0
        values = torch.ones_like(y) if weights is None else weights.view(len(y), -1)
        self.weights = values.expand_as(y)[:, task].cpu().numpy().astype(float)
        is_known = self.weights > 0
        self.rows = [np.flatnonzero(s & is_known) for s in (is_positive, ~is_positive)]

    @property
    def n_rarer(self) -> int:
        """Number of positives or of negatives, whichever are fewer."""
        return min(map(len, self.rows))

    def parts(self, values: np.ndarray) -> list[np.ndarray]:
        """Return the values of the positives and of the negatives."""
        return [values[rows] for rows in self.rows]

    def place(self, logits: Tensor) -> Placements:
        """Compare every positive with every negative; ties count half."""
        scores = logits[:, self.task].cpu().numpy()
        (high, low), (high_w, low_w) = self.parts(scores), self.parts(self.weights)
        return Placements(_below(high, low, low_w), 1 - _below(low, high, high_w))

    def auc(self, placed: Placements) -> float:
        """Return the AUC."""
        return float(np.average(placed.positives, weights=self.parts(self.weights)[0]))

    def difference(self, a: Placements, b: Placements) -> tuple[float, float]:
        """Return the AUC of `a` minus that of `b`, and its variance."""
        variance = 0.0  # DeLong, DeLong and Clarke-Pearson (1988)
        for x, y, w in zip(a, b, self.parts(self.weights), strict=True):
            d = x - y - np.average(x - y, weights=w)
            n = max(len(w), 2)
            variance += n / (n - 1) * float(((w * d) ** 2).sum() / w.sum() ** 2)
        return self.auc(a) - self.auc(b), variance


def _below(scores: np.ndarray, others: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the share of the weights of lower scores, half of it for equal ones."""
    order = np.argsort(others)
    sums = np.concatenate([[0.0], weights[order].cumsum()])
    sides = (sums[np.searchsorted(others[order], scores, s)] for s in ("left", "right"))
    return sum(sides) / (2 * sums[-1])


class WeightSearch:
    """Paired comparison of weights by the AUC of a task on the rows of splits."""

    def __init__(self, task: int, task_names: Sequence[str]) -> None:
        self.task, self.task_names = task, task_names
        self.candidates = list(CANDIDATES)  # those that are still compared
        self.rows: list[ValidationRows] = []  # of each split
        self.placed: list[dict[float, Placements]] = []
        self.aucs: dict[float, list[list[float]]] = {w: [] for w in CANDIDATES}

    def count_splits(self, valid: TrainingRows | None, can_split: bool) -> int:
        """Return the number of splits to compare on; 0, with a warning, for none."""
        if valid is None:
            _warn("the fit has no validation rows, see early_stopping and eval_set")
            return 0
        n_splits = MAX_SPLITS if can_split else 1
        n_rarer = self._rows_of(valid).n_rarer
        if n_rarer * n_splits < FEWEST_POSITIVES:
            _warn(
                f"{n_rarer * n_splits} validation rows, of {n_splits} splits together, "
                f"have the rarer label of {self.task_names[self.task]!r}, and "
                f"{FEWEST_POSITIVES} are needed"
            )
            return 0
        return min(n_splits, -(-POSITIVES // n_rarer))

    def _rows_of(self, valid: TrainingRows) -> ValidationRows:
        return ValidationRows(valid.labels(), valid.weights(), self.task)

    def begin_split(self, valid: TrainingRows) -> bool:
        """Read the labels of another split; return whether both labels occur."""
        rows = self._rows_of(valid)
        if rows.n_rarer:
            self.rows.append(rows)
            self.placed.append({})
        return rows.n_rarer > 0

    def add(self, weight: float, logits: Tensor, aucs: list[float]) -> None:
        """Add a trained candidate: its logits, and its AUC of each task."""
        self.placed[-1][weight] = self.rows[-1].place(logits)
        self.aucs[weight].append(aucs)
        # The effect of the term grows with its weight.
        if weight > DEFAULT_WEIGHT and self._is_ahead(DEFAULT_WEIGHT, weight, 1.0):
            self.candidates = [w for w in self.candidates if w < weight]

    def end_split(self) -> bool:
        """Leave out candidates not ahead of the default; return whether any is left."""
        self.candidates = [
            w
            for w in self.candidates
            if w == DEFAULT_WEIGHT or self._is_ahead(w, DEFAULT_WEIGHT, 0.0)
        ]
        return len(self.candidates) > 1

    def difference(self, a: float, b: float) -> tuple[float, float]:
        """Return the AUC of `a` minus that of `b`, and its standard error."""
        found = [
            rows.difference(placed[a], placed[b])
            for rows, placed in zip(self.rows, self.placed, strict=True)
            if a in placed and b in placed
        ]
        differences, variances = np.array(found).T
        return float(differences.mean()), float(np.sqrt(variances.sum()) / len(found))

    def _is_ahead(self, a: float, b: float, n_errors: float) -> bool:
        """Return whether one candidate is ahead of another by some standard errors."""
        difference, error = self.difference(a, b)
        return difference > n_errors * error

    def choose(self) -> float:
        """Return the default, or the smallest weight near a best one that beats it."""
        best = max(self.candidates, key=lambda w: self.difference(w, DEFAULT_WEIGHT))
        if not self._is_ahead(best, DEFAULT_WEIGHT, AHEAD):
            return DEFAULT_WEIGHT
        near = [w for w in self.candidates if not self._is_ahead(best, w, 1.0)]
        return min(near)

    def table(self) -> dict[str, Any]:
        """Return the figures of the candidates that were trained, as columns."""
        trained = {w: np.array(self.aucs[w]) for w in sorted(CANDIDATES)}
        trained = {w: aucs for w, aucs in trained.items() if len(aucs)}
        pairs = np.array([self.difference(w, DEFAULT_WEIGHT) for w in trained])
        means = np.array([aucs.mean(axis=0) for aucs in trained.values()])
        names = map("valid_auc_{}".format, self.task_names)
        return {
            "task": self.task_names[self.task],
            "pwiser_weight": np.array(list(trained)),
            "n_splits": np.array([len(aucs) for aucs in trained.values()]),
            **dict(zip(names, means.T, strict=True)),
            "difference": pairs[:, 0],
            "standard_error": pairs[:, 1],
        }

    def summary(self) -> str:
        """Return a line on the choice: differences to the default weight."""
        differences = ", ".join(
            "{:g}: {:+.4f} ({:.4f})".format(w, *self.difference(w, DEFAULT_WEIGHT))
            for w in sorted(CANDIDATES[1:])
            if self.aucs[w]
        )
        return (
            f"pwiser_weight={self.choose():g} is chosen. AUC of "
            f"{self.task_names[self.task]!r} minus that of {DEFAULT_WEIGHT} (standard "
            f"error): {differences}"
        )
