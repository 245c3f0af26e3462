"""An MMoE in a bare torch loop on prepared tensors: the reference of the comparisons.

`BareMMoE` is written in the usual way, with one module per expert, gate and tower.
`BareStackedMMoE` has the same sizes, but computes all experts of a layer, and all
towers, as one product. `train_bare` is a loop of indexing, forward pass, loss, backward
pass and Adam, and nothing else; on CUDA, `GraphedLoop` replays a step that was captured
once.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EXPERT_UNITS, TOWER_UNITS = (128, 64), (64,)
N_EXPERTS, N_TASKS, EMBEDDING_DIM = 4, 2, 16


def perceptron(n_in, units):
    layers = []
    for a, b in pairwise([n_in, *units]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers)


class BareMMoE(nn.Module):
    """Embeddings, experts, one gate and one tower per task; returns logits.

    Parameters
    ----------
    cardinalities : sequence of int
        Number of values of each category column.
    n_numeric : int
        Number of numeric inputs.
    """

    def __init__(self, cardinalities, n_numeric):
        super().__init__()
        self.embedding = nn.Embedding(sum(cardinalities), EMBEDDING_DIM)
        nn.init.normal_(self.embedding.weight, std=0.01)
        self.width = len(cardinalities) * EMBEDDING_DIM + n_numeric
        self.build()

    def build(self):
        width, n_out = self.width, EXPERT_UNITS[-1]
        self.experts = nn.ModuleList(
            perceptron(width, EXPERT_UNITS) for _ in range(N_EXPERTS)
        )
        self.gates = nn.ModuleList(nn.Linear(width, N_EXPERTS) for _ in range(N_TASKS))
        self.towers = nn.ModuleList(perceptron(n_out, TOWER_UNITS) for _ in self.gates)
        self.outputs = nn.ModuleList(nn.Linear(TOWER_UNITS[-1], 1) for _ in self.gates)

    def inputs(self, codes, numeric):
        return torch.cat([self.embedding(codes).flatten(1), numeric], dim=1)

    def forward(self, codes, numeric):
        x = self.inputs(codes, numeric)
        experts = torch.stack([expert(x) for expert in self.experts], dim=1)
        logits = []
        for gate, tower, output in zip(
            self.gates, self.towers, self.outputs, strict=True
        ):
            mixed = torch.bmm(gate(x).softmax(dim=1).unsqueeze(1), experts)
            logits.append(output(tower(mixed.squeeze(1))))
        return torch.cat(logits, dim=1)


class BareStackedMMoE(BareMMoE):
    """The same network, with one product for all experts or towers of a layer."""

    def build(self):
        (first, second), n_gates = EXPERT_UNITS, N_TASKS * N_EXPERTS
        self.first = nn.Linear(self.width, N_EXPERTS * first + n_gates)
        self.second = stacked(N_EXPERTS, first, second)
        self.tower = stacked(N_TASKS, second, TOWER_UNITS[0])
        self.output = stacked(N_TASKS, TOWER_UNITS[0], 1)

    def forward(self, codes, numeric):
        first = self.first(self.inputs(codes, numeric))
        n_hidden, n = N_EXPERTS * EXPERT_UNITS[0], len(first)
        hidden = first[:, :n_hidden].relu().view(n, N_EXPERTS, -1).transpose(0, 1)
        experts = apply(self.second, hidden).relu()
        gates = first[:, n_hidden:].view(n, N_TASKS, N_EXPERTS).softmax(dim=2)
        mixed = torch.bmm(gates, experts.transpose(0, 1)).transpose(0, 1)
        logits = apply(self.output, apply(self.tower, mixed).relu())
        return logits.squeeze(2).t()


def stacked(n_stacked, n_in, n_out):
    bound = n_in**-0.5
    return nn.ParameterDict(
        {
            "weight": torch.empty(n_stacked, n_in, n_out).uniform_(-bound, bound),
            "bias": torch.zeros(n_stacked, 1, n_out),
        }
    )


def apply(layer, x):
    return torch.baddbmm(layer["bias"], x, layer["weight"])


def bare_loss(logits, y):
    """Sum the tasks' mean cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits, y, reduction="none").mean(0).sum()


def train_bare(model, optimizer, data, batch_size, precision="float32"):
    """Train for one epoch, in random order, with all tensors on one device."""
    device = data.y.device
    model.train()
    order = torch.randperm(len(data.y), device=device)
    enabled = precision == "bfloat16"
    for rows in order.split(batch_size):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
            logits = model(data.codes[rows], data.numeric[rows])
        bare_loss(logits.float(), data.y[rows]).backward()
        optimizer.step()


def bare_run(kind, cardinalities, data, batch_size, *, precision="float32", **adam):
    """Return a function that trains a bare model for one more epoch."""
    model = kind(cardinalities, data.numeric.shape[1]).to(data.y.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **adam)
    return lambda: train_bare(model, optimizer, data, batch_size, precision)


def predict_bare(model, data, batch_size):
    """Return the probabilities of all rows."""
    model.eval()
    with torch.inference_mode():
        parts = zip(
            data.codes.split(batch_size), data.numeric.split(batch_size), strict=True
        )
        return torch.cat([model(*part).sigmoid() for part in parts])


class GraphedLoop:
    """A bare loop whose step is captured as one CUDA graph and replayed.

    Parameters
    ----------
    cardinalities : sequence of int
        Number of values of each category column.
    data : Prepared
        Tensors on CUDA.
    batch_size : int
        Number of rows per batch, at most that of all rows. A last batch with fewer
        rows is left out.
    """

    def __init__(self, cardinalities, data, batch_size):
        self.data, self.batch_size = data, batch_size
        self.model = BareStackedMMoE(cardinalities, data.numeric.shape[1])
        self.model.to(data.y.device).train()
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=1e-3, fused=True, capturable=True
        )
        self.rows = torch.arange(batch_size, device=data.y.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # torch requires a warm-up
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()

    def _step(self) -> None:
        codes, numeric, y = (tensor[self.rows] for tensor in self.data)
        self.optimizer.zero_grad(set_to_none=True)
        bare_loss(self.model(codes, numeric), y).backward()
        self.optimizer.step()

    @property
    def n_rows(self) -> int:
        """Number of rows of an epoch."""
        return len(self.data.y) // self.batch_size * self.batch_size

    def __call__(self) -> None:
        """Train for one epoch, in random order."""
        order: Tensor = torch.randperm(len(self.data.y), device=self.rows.device)
        for rows in order[: self.n_rows].split(self.batch_size):
            self.rows.copy_(rows)
            self.graph.replay()
