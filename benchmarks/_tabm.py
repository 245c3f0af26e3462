"""TabM of pytabkit, computed in less time on a CPU.

The network, its parameters and their initial values, the loss and the loop are those of
pytabkit. Some of it is computed in another way:

- Members come before rows, so that a sum over the rows of a member reads adjacent
  memory.
- Matrix products are computed in bfloat16, as on a GPU. What is between two of them
  (scales, bias, ReLU and dropout) is one loop per pass, compiled by Numba. AdamW
  updates a parameter in one loop, too.
- For a column of more than `MOST_ONE_HOT` values, the first layer reads the rows of its
  weights that belong to the values, where pytabkit multiplies one-hot columns, which it
  repeats for each member. The sums are the same.
"""

import contextlib
from functools import partial
from unittest import mock

import numba
import numpy as np
import torch
from pytabkit.models.alg_interfaces import tabm_interface
from pytabkit.models.nn_models.tabm import Model
from torch import nn
from torch.nn import functional as F

MOST_ONE_HOT = 100
# The states of the random numbers of the dropout, one per unit. 0 would stay 0.
STATES = np.ones(512, dtype=np.uint32)
# Unsigned, as the bits are. Numba computes with 64 bits nevertheless.
ONE, FIVE, THIRTEEN, HALF, SEVENTEEN = map(np.uint32, (1, 5, 13, 16, 17))
BELOW_HALF = np.uint32(0x7FFF)
NOT_SIGN = np.uint16(0x7FFF)


# ---------------------------------------------------------------- between two products


@numba.njit(fastmath=True)
def activate(y, scale, bias, next_scale, least, states, out):
    """Write `relu(y * scale + bias) * next_scale`, or 0 for a random number < `least`.

    `y` and `out`, of shape (members, rows, units), are the bits of bfloat16; the scales
    and the bias have the shape (members, units). The random numbers are those of
    Marsaglia's xorshift (2003).
    """
    row = np.empty(y.shape[2], np.float32)
    bits = row.view(np.uint32)
    for k in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(len(row)):
                bits[j] = np.uint32(y[k, i, j]) << HALF
            for j in range(len(row)):
                drawn = states[j]
                drawn ^= np.uint32(drawn << THIRTEEN)
                drawn ^= np.uint32(drawn >> SEVENTEEN)
                drawn ^= np.uint32(drawn << FIVE)
                states[j] = drawn
                z = row[j] * scale[k, j] + bias[k, j]
                passes = (z > 0) & (drawn >= least)
                row[j] = z * next_scale[k, j] if passes else np.float32(0)
            round_to_bfloat16(bits, out[k, i])


@numba.njit(fastmath=True)
def activate_backward(grad, y, out, scale, bias, next_scale, grad_y, grads):
    """Write the gradients of `y`, and add those of the others to `grads`.

    `grads` has the shape (3, members, units), for `scale`, `bias` and `next_scale`.
    """
    row, grad_row = np.empty((2, y.shape[2]), np.float32)
    bits, grad_bits = row.view(np.uint32), grad_row.view(np.uint32)
    for k in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(len(row)):
                bits[j] = np.uint32(y[k, i, j]) << HALF
                # Neither ReLU nor dropout made it 0.
                passes = (out[k, i, j] & NOT_SIGN) != 0
                grad_bits[j] = (np.uint32(grad[k, i, j]) << HALF) * np.uint32(passes)
            for j in range(len(row)):
                grad_z = grad_row[j] * next_scale[k, j]
                grads[0, k, j] += grad_z * row[j]
                grads[1, k, j] += grad_z
                grads[2, k, j] += grad_row[j] * (row[j] * scale[k, j] + bias[k, j])
                grad_row[j] = grad_z * scale[k, j]
            round_to_bfloat16(grad_bits, grad_y[k, i])


@numba.njit
def round_to_bfloat16(bits, out):
    """Round the bits of float32 to those of bfloat16, half to even."""
    for j in range(len(bits)):
        out[j] = (bits[j] + BELOW_HALF + ((bits[j] >> HALF) & ONE)) >> HALF


class Activate(torch.autograd.Function):
    """`activate` with its gradients, for the probability `p` of the dropout."""

    @staticmethod
    def forward(ctx, y, scale, bias, next_scale, p):
        y = y.contiguous()
        out = torch.empty_like(y)
        arrays = arrays_of(scale, bias, next_scale)
        activate(bits_of(y), *arrays, np.uint32(p * 2**32), STATES, bits_of(out))
        ctx.save_for_backward(y, out, scale, bias, next_scale)
        return out

    @staticmethod
    def backward(ctx, grad):
        y, out, *others = ctx.saved_tensors
        grad_y = torch.empty_like(y)
        grads = np.zeros((3, *others[0].shape), dtype=np.float32)
        bits = map(bits_of, (grad.contiguous(), y, out))
        activate_backward(*bits, *arrays_of(*others), bits_of(grad_y), grads)
        return grad_y, *torch.from_numpy(grads), None


def bits_of(x):
    """Return the bits of a contiguous tensor of bfloat16, without a copy."""
    return x.view(torch.uint16).numpy()


def arrays_of(*tensors):
    return [tensor.detach().numpy() for tensor in tensors]


# ---------------------------------------------------------------- the network


def product(x, weight):
    return x.bfloat16() @ weight.bfloat16()


class FirstLayer(nn.Module):
    """The first layer of the members, without the scales and the bias of its units.

    `layer` is that of pytabkit, on numbers and one-hot columns. Those of the mask
    `is_long` are given as positions here, -1 for an unknown value.
    """

    def __init__(self, layer, is_long):
        super().__init__()
        weight, scale = layer.weight.data.T, layer.r.data.T
        self.weight, self.rows = map(nn.Parameter, (weight[~is_long], weight[is_long]))
        self.r, self.r_rows = map(nn.Parameter, (scale[~is_long], scale[is_long]))
        self.s, self.bias = layer.s, layer.bias

    def forward(self, x, positions):
        out = product(x * self.r.T[:, None], self.weight)
        if not positions.shape[-1]:
            return out
        known, positions = positions >= 0, positions.clamp(min=0)
        members = torch.arange(len(positions))[:, None, None]
        scales = self.r_rows[positions, members] * known
        out = out + F.embedding_bag(
            positions.flatten(0, 1),
            self.rows,
            mode="sum",
            per_sample_weights=scales.flatten(0, 1),
        ).unflatten(0, out.shape[:2])
        return out.bfloat16()


class FastModel(Model):
    """`Model` of pytabkit, without embeddings of numbers, with another forward pass."""

    def __init__(self, *, cat_cardinalities, **params):
        super().__init__(cat_cardinalities=cat_cardinalities, **params)
        sizes = torch.tensor(cat_cardinalities, dtype=torch.int64)
        self.is_long = sizes > MOST_ONE_HOT
        self.short, self.long = sizes[~self.is_long], sizes[self.is_long]
        first = self.backbone.blocks[0]
        n_numbers = first[0].in_features - sizes.sum()
        is_long = self.is_long.repeat_interleave(sizes)
        first[0] = FirstLayer(first[0], F.pad(is_long, (n_numbers, 0)))

    def forward(self, x_num=None, x_cat=None):
        """Return the logits, of shape (rows, members, classes)."""
        numbers = torch.empty(len(x_cat), 0) if x_num is None else x_num
        codes = numbers[:, :0].long() if x_cat is None else x_cat
        # (members, rows, columns); members share the rows outside of training.
        own_rows = self.training and not self.share_training_batches
        shape = (-1, self.k if own_rows else 1)
        parts = (part.unflatten(0, shape).transpose(0, 1) for part in (numbers, codes))
        x, positions = self.inputs(*(part.contiguous() for part in parts))
        x, positions = (part.expand(self.k, -1, -1) for part in (x, positions))
        (first, _, dropout), *others = self.backbone.blocks
        p = dropout.p if self.training else 0.0
        layers = [first, *(block[0] for block in others)]
        y = first(x, positions)
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if layer is not first:
                y = product(x, layer.weight.T)
            scale = torch.ones_like(layer.s) if following is None else following.r
            x = Activate.apply(y, layer.s, layer.bias, scale / (1 - p), p)
        logits = product(x, self.output.weight).float()
        return logits.transpose(0, 1) + self.output.bias

    def inputs(self, numbers, codes):
        """Return numbers beside one-hot columns, and the positions of long columns."""
        short, long = codes[..., ~self.is_long], codes[..., self.is_long]
        # Unknown values have a column, which is cut off.
        n_columns = int(self.short.sum())
        one_hot = torch.zeros(*codes.shape[:2], n_columns + 1)
        one_hot.scatter_(2, positions_of(short, self.short, n_columns), 1.0)
        x = torch.cat([numbers, one_hot[..., :-1]], dim=-1)
        return x, positions_of(long, self.long, -1)


def positions_of(codes, sizes, unknown):
    """Return the positions of codes in the values of all columns of these sizes."""
    return torch.where(codes < sizes, codes + sizes.cumsum(0) - sizes, unknown)


@contextlib.contextmanager
def fast_on_cpu(seed):
    """Let TabM of pytabkit be computed as described above, within the context."""
    STATES[:] = np.random.default_rng(seed).integers(1, 2**32, size=len(STATES))
    adamw = partial(torch.optim.AdamW, fused=True)
    with (
        mock.patch.object(tabm_interface, "Model", FastModel),
        mock.patch.object(torch.optim, "AdamW", adamw),
    ):
        yield
