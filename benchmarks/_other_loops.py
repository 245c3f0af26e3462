"""The training loops of skorch and of torch-rechub, in the form their users run."""

import contextlib
import importlib.metadata
import io

import torch
from _bare import (
    EMBEDDING_DIM,
    EXPERT_UNITS,
    N_EXPERTS,
    N_TASKS,
    TOWER_UNITS,
    BareMMoE,
    bare_loss,
)
from skorch import NeuralNet
from torch import nn


class BareLoss(nn.Module):
    """The loss of the bare loop, as a module for skorch."""

    def forward(self, logits, y):
        return bare_loss(logits, y)


def skorch_run(cardinalities, data, batch_size, device):
    """Return a function that trains the bare model with skorch for one more epoch.

    skorch's own data set returns single rows, and torch's default loader collates them.
    """
    net = NeuralNet(
        BareMMoE,
        module__cardinalities=cardinalities,
        module__n_numeric=data.numeric.shape[1],
        criterion=BareLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=batch_size,
        max_epochs=1,
        iterator_train__shuffle=True,
        train_split=None,
        device=device,
        verbose=0,
    ).initialize()
    X = {"codes": data.codes.cpu(), "numeric": data.numeric.cpu()}
    y = data.y.cpu()

    def run():
        net.partial_fit(X, y)

    return run


def rechub_version():
    """Return the version of torch-rechub, or None if it is not installed."""
    try:
        return importlib.metadata.version("torch-rechub")
    except importlib.metadata.PackageNotFoundError:
        return None


def rechub_run(cardinalities, data, batch_size, device, joined=False):
    """Return a function that trains torch-rechub's MMoE for one more epoch.

    It uses `MTLTrainer.train_one_epoch` and the loader of `DataGenerator` of
    torch-rechub, with one feature per column, as in its examples. `joined` passes the
    numeric columns as one feature, which is faster. The networks of torch-rechub have
    batch normalisation in every layer.
    """
    from torch_rechub.basic.features import DenseFeature, SparseFeature
    from torch_rechub.models.multi_task import MMOE
    from torch_rechub.trainers import MTLTrainer
    from torch_rechub.utils.data import DataGenerator

    features = [
        SparseFeature(f"category {j}", vocab_size=size, embed_dim=EMBEDDING_DIM)
        for j, size in enumerate(cardinalities)
    ]
    n_numeric = data.numeric.shape[1]
    if joined:
        features.append(DenseFeature("numeric", embed_dim=n_numeric))
    else:
        features += [DenseFeature(f"numeric {j}") for j in range(n_numeric)]
    experts = {"dims": list(EXPERT_UNITS), "activation": "relu", "dropout": 0.0}
    towers = {**experts, "dims": list(TOWER_UNITS)}
    types = ["classification"] * N_TASKS
    model = MMOE(features, types, N_EXPERTS, experts, [towers] * N_TASKS)
    trainer = MTLTrainer(
        model, types, optimizer_params={"lr": 1e-3, "weight_decay": 0.0}, device=device
    )
    offsets = torch.tensor([0, *cardinalities]).cumsum(0)[:-1]
    codes = (data.codes.cpu() - offsets).numpy()
    x = {f"category {j}": codes[:, j].copy() for j in range(len(cardinalities))}
    numeric = data.numeric.cpu().numpy()
    if joined:
        x["numeric"] = numeric
    else:
        x |= {f"numeric {j}": numeric[:, j].copy() for j in range(n_numeric)}
    generator = DataGenerator(x, data.y.cpu().numpy())
    with contextlib.redirect_stdout(io.StringIO()):
        loader, _, _ = generator.generate_dataloader(
            split_ratio=[1.0, 0.0], batch_size=batch_size
        )

    def run():
        # The trainer prints a progress bar and its losses.
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            trainer.train_one_epoch(loader)

    return run
