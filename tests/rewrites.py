"""What networks compute, written out in numpy float64 from their weights."""

import numpy as np
import torch

from sk_pwiser.networks import NetworkSpec

CARDINALITIES, N_NUMERIC, DIM = (4, 6), 3, 5
WIDTH = len(CARDINALITIES) * DIM + N_NUMERIC
RATES = (0.3, 0.1, 0.02)


def make(kind, n_tasks=2, *, scale=0.4, **params):
    """Build a network for two category and three numeric columns.

    All weights are drawn anew: gates that start even would hide what they read.
    """
    network = kind(
        NetworkSpec(CARDINALITIES, N_NUMERIC, DIM, RATES[:n_tasks]), **params
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return network.eval()


def batch(n=9):
    codes = torch.stack([torch.randint(c, (n,)) for c in CARDINALITIES], 1)
    return codes, torch.randn(n, N_NUMERIC)


def weights_of(network):
    return {name: v.double().numpy() for name, v in network.state_dict().items()}


def dense_input(p, codes, numeric, table=0):
    embedded = p["input_layer.embedding.weight"][:, DIM * table : DIM * (table + 1)]
    first, second = codes.numpy().T
    columns = [embedded[first], embedded[CARDINALITIES[0] + second], numeric.numpy()]
    return np.hstack(columns)


def relu(x):
    return np.maximum(x, 0)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def affine(x, p, name, index):
    return x @ p[f"{name}.weight"][index] + p[f"{name}.bias"][index]


def mlp(x, p, name, index, activation=relu):
    layer = 0
    while f"{name}.layers.{layer}.weight" in p:
        x = activation(affine(x, p, f"{name}.layers.{layer}", index))
        layer += 1
    return x


def tower(x, p, index, name="towers"):
    """Return the logit of one task, of shape (batch,)."""
    hidden = mlp(x, p, f"{name}.hidden", index)
    return affine(hidden, p, f"{name}.output", index)[:, 0]


def softmax(z, axis=1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def mixed(x, p, gate, index, experts):
    """Mix experts by a gate that reads x."""
    weights = softmax(affine(x, p, f"{gate}.linear", index))
    assert weights.shape[1] == len(experts)
    return sum(w[:, np.newaxis] * e for w, e in zip(weights.T, experts, strict=True))
