"""Networks with drawn weights, batches, and computations written out in numpy."""

import re

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from sk_pwiser.networks import NetworkSpec

CARDINALITIES, N_NUMERIC, DIM = (4, 6), 3, 5
RATES = (0.3, 0.1, 0.02)


def make(
    kind, n_tasks=2, *, scale=0.4, task_space="entire", task_parents=None, **params
):
    """Build a network for two category and three numeric columns.

    All parameters are drawn anew: uniform gates would not show what they read.
    """
    spec = NetworkSpec(
        *(CARDINALITIES, N_NUMERIC, DIM, (*RATES, 0.01)[:n_tasks]),
        task_space=task_space,
        task_parents=task_parents,
    )
    network = kind(spec, **params)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return network.eval()


def batch(n=9):
    codes = torch.stack([torch.randint(c, (n,)) for c in CARDINALITIES], 1)
    return codes, torch.randn(n, N_NUMERIC)


def funnel(n, n_tasks):
    """Draw labels of a funnel; 70 % of the rows pass each step."""
    return (torch.rand(n, n_tasks) < 0.7).float().cumprod(dim=1)


def row_losses(logits, targets):
    return binary_cross_entropy_with_logits(logits, targets, reduction="none")


def cross_entropy(z, y):
    return np.logaddexp(0, z) - y * z


def weights_of(network):
    """Return the parameters by name; groups of experts are joined to one stack."""
    parts = {}
    for name, values in network.state_dict().items():
        whole = re.sub(r"(experts)\.\d+\.(layers)", r"\1.\2", name)
        whole = re.sub(r"(task_bias)\.\d+$", r"\1", whole)
        parts.setdefault(whole, []).append(values.double().numpy())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def dense_input(p, codes, numeric, table=0):
    embedded = p[f"input_layer.embeddings.{table}.weight"]
    first, second = codes.numpy().T
    columns = [embedded[first], embedded[CARDINALITIES[0] + second], numeric.numpy()]
    return np.hstack(columns)


def relu(x):
    return np.maximum(x, 0)


def elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def affine(x, p, name, index=None):
    """Return a linear map of x, a single one or one of a stack."""
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    return x @ weight.T + bias if index is None else x @ weight[index] + bias[index]


def mlp(x, p, name, index=None, activation=relu):
    layer = 0
    while f"{name}.layers.{layer}.weight" in p:
        x = activation(affine(x, p, f"{name}.layers.{layer}", index))
        layer += 1
    return x


def tower(x, p, index, name="towers"):
    """Return the logit of one task, of shape (batch,)."""
    hidden = mlp(x, p, f"{name}.{index}.hidden")
    return affine(hidden, p, f"{name}.{index}.output.linear")[:, 0]


def softmax(z, axis=1):
    e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def mixed(x, p, gate, index, experts):
    """Return the mixture of experts by a gate that reads x."""
    weights = softmax(affine(x, p, f"{gate}.{index}"))
    assert weights.shape[1] == len(experts)
    return sum(w[:, np.newaxis] * e for w, e in zip(weights.T, experts, strict=True))


def dependencies(network, codes, numeric, columns=None):
    """Return masks of the entries of parameters that each task depends on, by name.

    NaN is passed backward from the column of a task and 0 from the others; NaN times 0
    is NaN, so that NaN arrives at every entry that the column depends on. `columns`
    maps the output to a tensor with one column per task; by default the logits.
    """
    output = network(codes, numeric)
    logits = output.logits if columns is None else columns(output)
    found = []
    for task in range(logits.shape[1]):
        seed = torch.zeros_like(logits)
        seed[:, task] = torch.nan
        names, parameters = zip(*network.named_parameters(), strict=True)
        gradients = torch.autograd.grad(
            logits, parameters, seed, retain_graph=True, allow_unused=True
        )
        masks = {
            name: gradient.isnan()
            for name, gradient in zip(names, gradients, strict=True)
            if gradient is not None
        }
        found.append({name: mask for name, mask in masks.items() if mask.any()})
    return found


def owners(n_tasks, n_experts, n_shared_experts):
    """Return the task that each expert belongs to; n_tasks for shared ones."""
    own = [k for k in range(n_tasks) for _ in range(n_experts)]
    return own + [n_tasks] * n_shared_experts
