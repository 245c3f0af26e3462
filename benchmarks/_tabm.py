"""TabM of pytabkit, computed in less time on a CPU.

The network, its parameters and their initial values, the loss and the loop are those of
pytabkit. Some of it is computed in another way, because ids are thousands of one-hot
columns, which are repeated for each member:

- For a column of more than `MOST_ONE_HOT` values, the first layer reads the rows of its
  weights that belong to the values, where pytabkit multiplies one-hot columns. The sums
  are the same.
- Masks of the dropout are drawn by NumPy's fastest generator, 16 bits per value.
- Matrix products are computed in bfloat16 as on a GPU, `torch.compile` joins the
  operations between them, and AdamW updates a parameter in one pass.
"""

import contextlib
from functools import partial
from unittest import mock

import numpy as np
import torch
from pytabkit.models.alg_interfaces import tabm_interface
from pytabkit.models.nn_models.tabm import Model, OneHotEncoding0d
from torch import nn
from torch.nn import functional as F

MOST_ONE_HOT = 100
BITS = np.random.SFC64(0)
RANDOM = torch.Tag.nondeterministic_seeded


@torch.library.custom_op("tabm::keep", mutates_args=(), tags=(RANDOM,))
def keep_mask(x: torch.Tensor, p: float) -> torch.Tensor:
    """Return a mask of the shape of `x` that is False with probability `p`."""
    drawn = BITS.random_raw(-(-x.numel() // 4)).view(np.uint16)[: x.numel()]
    return torch.from_numpy(drawn >= round(p * 2**16)).view(x.shape)


@keep_mask.register_fake
def _(x, p):
    return torch.empty(x.shape, dtype=torch.bool)


class Dropout(nn.Module):
    """Dropout with probability `p`, a multiple of 2**-16."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training:
            return x
        return torch.where(keep_mask(x.detach(), self.p), x / (1 - self.p), 0.0)


class Categories(nn.Module):
    """Codes of category columns as one-hot columns and positions.

    Columns of more than `MOST_ONE_HOT` values come last, as positions in the values of
    all of them, and -1 is an unknown value. All columns are floats: the network joins
    them with the numbers.
    """

    def __init__(self, sizes):
        super().__init__()
        is_long = sizes > MOST_ONE_HOT
        self.short = (~is_long).nonzero()[:, 0].tolist()
        self.long = is_long.nonzero()[:, 0].tolist()
        self.one_hot = OneHotEncoding0d(sizes[self.short].tolist())
        long_sizes = sizes[self.long]
        self.register_buffer("sizes", long_sizes)
        self.register_buffer("starts", long_sizes.cumsum(0) - long_sizes)

    def forward(self, codes):
        long = codes[:, self.long]
        positions = torch.where(long < self.sizes, long + self.starts, -1)
        if not self.short:
            return positions
        return torch.column_stack([self.one_hot(codes[:, self.short]), positions])


class FirstLayer(nn.Module):
    """The first layer of the members on numbers, one-hot columns and positions.

    `layer` is that of pytabkit, on numbers and one-hot columns. Those of the mask
    `is_long` are given as positions here.
    """

    def __init__(self, layer, is_long):
        super().__init__()
        weight, scale = layer.weight.data.T, layer.r.data.T
        self.weight, self.rows = map(nn.Parameter, (weight[~is_long], weight[is_long]))
        self.r, self.r_rows = map(nn.Parameter, (scale[~is_long], scale[is_long]))
        self.s, self.bias = layer.s, layer.bias

    def forward(self, x):
        # (rows, members, columns)
        dense, positions = x.tensor_split([len(self.weight)], dim=-1)
        out = (dense * self.r.T) @ self.weight
        known = positions >= 0
        positions = positions.long().clamp(min=0)
        members = torch.arange(self.r_rows.shape[1])[:, None]
        scales = self.r_rows[positions, members] * known
        out = out + F.embedding_bag(
            positions.flatten(0, 1),
            self.rows,
            mode="sum",
            per_sample_weights=scales.flatten(0, 1),
        ).unflatten(0, out.shape[:2])
        return out * self.s + self.bias


class FastModel(Model):
    """`Model` of pytabkit with another first layer and another dropout."""

    def __init__(self, *, cat_cardinalities, **params):
        super().__init__(cat_cardinalities=cat_cardinalities, **params)
        first = self.backbone.blocks[0]
        sizes = torch.tensor(cat_cardinalities)
        if (sizes > MOST_ONE_HOT).any():
            self.cat_module = Categories(sizes)
            n_numbers = first[0].in_features - sizes.sum()
            is_long = (sizes > MOST_ONE_HOT).repeat_interleave(sizes)
            first[0] = FirstLayer(first[0], F.pad(is_long, (n_numbers, 0)))
        for block in self.backbone.blocks:
            block[2] = Dropout(block[2].p)


@contextlib.contextmanager
def fast_on_cpu(seed):
    """Let TabM of pytabkit be computed as described above, within the context."""
    BITS.state = np.random.SFC64(seed).state
    torch.compiler.reset()
    autocast = torch.autocast("cpu", torch.bfloat16)
    with (
        # pytabkit asks for it on a GPU alone.
        mock.patch.object(torch, "autocast", return_value=autocast),
        mock.patch.object(tabm_interface, "Model", FastModel),
        mock.patch.object(torch.optim, "AdamW", partial(torch.optim.AdamW, fused=True)),
    ):
        yield
