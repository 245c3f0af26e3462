"""Whether encoded rows are those of an earlier training: digests of the tensors."""

import hashlib
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from sk_pwiser._training._dataset import Impressions
from sk_pwiser._training._streamed import TrainingData, TrainingRows

# What the tensors of the rows are made from.
_SOURCES = {
    "codes": "X",
    "numeric": "X",
    "y": "Y",
    "sample_weight": "sample_weight",
    "groups": "groups",
    "rows": "the validation rows",
}


def fingerprint(data: TrainingData) -> dict[str, str]:
    """Return a digest of the rows for each argument of `fit`.

    Parameters
    ----------
    data : TrainingData
        The encoded rows, on the CPU.

    Returns
    -------
    dict of str to str
        Digests under the names of the arguments.
    """
    digests = {name: hashlib.blake2b(digest_size=16) for name in _SOURCES.values()}
    for name, tensor in _tensors(data.train):
        _add(digests[name], tensor)
    valid = data.valid
    if valid is not None:
        of_valid = digests["the validation rows"]
        if valid.rows is not None:  # of the same tensors
            _add(of_valid, valid.rows)
        else:
            for _, tensor in _tensors(valid):
                _add(of_valid, tensor)
    return {name: digest.hexdigest() for name, digest in digests.items()}


def _tensors(rows: TrainingRows) -> Iterator[tuple[str, Tensor]]:
    assert isinstance(rows, Impressions)  # rows read in parts have no checkpoints
    for attribute, source in _SOURCES.items():
        tensor = getattr(rows, attribute)
        if tensor is not None:
            yield source, tensor
    if rows.bags is not None:
        for tensor in rows.bags.tensors.values():
            yield "X", tensor


def _add(digest: hashlib.blake2b, tensor: Tensor) -> None:
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    if tensor.numel():
        flat = tensor.contiguous().view(-1).numpy()
        digest.update(flat.view(np.uint8).data)
