"""Factors of the columns of a dense input, computed from domain features."""

import math
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser.networks._layers import Linear, constant


class DomainGate(nn.Module):
    """Multiplies every column by a factor in (0, 2), computed from domain features.

    The factors are 2 sigmoid(W relu(V d + c) + b), where d are the columns of the
    features. They start at 1. Embeddings in d are divided by the root of their mean
    square, since they start near 0, and the effects of the domain would, too.
    """

    n_units = 32

    def __init__(
        self, owners: Sequence[int], features: Sequence[int], n_embedded: int
    ) -> None:
        super().__init__()
        self.is_embedded = [feature < n_embedded for feature in features]
        places = [
            [place for place, owner in enumerate(owners) if owner == feature]
            for feature in features
        ]
        self.sizes = [len(columns) for columns in places]
        self.places = constant(torch.tensor([*chain.from_iterable(places)]))
        self.hidden = Linear(len(self.places), self.n_units)
        self.output = Linear(self.n_units, len(owners))
        # With zeros, all factors are 2 sigmoid(0) = 1 before training.
        nn.init.zeros_(self.output.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `(batch, width)` to the same shape."""
        scaled = []
        features = torch.split(inputs.index_select(1, self.places), self.sizes, dim=1)
        for feature, is_embedded in zip(features, self.is_embedded, strict=True):
            if is_embedded:
                direction = F.normalize(feature, dim=1, eps=1e-4)
                scaled.append(direction * math.sqrt(feature.shape[1]))
            else:
                scaled.append(feature)
        hidden = torch.relu(self.hidden(torch.cat(scaled, dim=1)))
        return inputs * (2 * torch.sigmoid(self.output(hidden)))
