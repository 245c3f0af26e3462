"""Probabilities in the place of labels."""

from dataclasses import dataclass

import numpy as np

from sk_pwiser._table._labels import Targets


@dataclass
class SoftTargets(Targets):
    """Probabilities that a network learns in the place of labels, in distillation.

    The parameters are those of :class:`Targets`; `values` are probabilities
    P(Y_k = 1 | impression) of another model, which has checked them.
    """

    def with_nan(self):
        """Return the likelier labels, by which validation rows are stratified."""
        return np.rint(self.values)

    def warn_about_labels(self, constant_tasks=True, selection=True):
        """Warn about nothing: each row has a probability of each label."""
