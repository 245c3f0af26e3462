"""Vectors of category values, such as of a text, through learnt matrices."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sk_pwiser.networks._layers import INITIAL_STD, constant
from sk_pwiser.networks._spec import NetworkSpec, VectorSpec


class ValueVectors(nn.Module):
    r"""Adds vectors of values to their embeddings.

    A value of code c, with embedding e and vector v, is read as

    .. math:: e_c + W v_c

    with a matrix W per column and table, as in Pembek et al. (2025),
    :arxiv:`2507.19473`, who bound the norm of e. Here weight decay does, which is
    larger for embeddings than for W. Values without a vector share a learnt one in the
    place of W v. Codes from the cardinality of the column on have a vector, but no
    embedding: they have that of unseen values. Category dropout replaces embeddings
    alone, so that the network learns what a vector says of a new value.
    """

    def __init__(self, spec: NetworkSpec, n_tables: int) -> None:
        super().__init__()
        dim = spec.embedding_dim
        self.columns = [vectors.column for vectors in spec.vectors]
        sizes = [vectors.vectors.shape[1] for vectors in spec.vectors]
        self.matrices = nn.ModuleList(
            nn.ModuleList(nn.Linear(size, dim, bias=False) for size in sizes)
            for _ in range(n_tables)
        )
        self.without_vector = nn.ParameterList(
            torch.empty(len(sizes), dim).normal_(std=INITIAL_STD)
            for _ in range(n_tables)
        )
        matrices: Any
        for matrices in self.matrices:
            for matrix, size in zip(matrices, sizes, strict=True):
                nn.init.normal_(matrix.weight, std=size**-0.5)
        self.set_vectors(spec.vectors)
        self.set_cardinalities(spec.cardinalities)

    def set_vectors(self, specs: Sequence[VectorSpec]) -> None:
        """Set the vectors, of as many columns as before."""
        device = self.without_vector[0].device
        for index, vectors in enumerate(specs):
            setattr(self, f"vectors_{index}", constant(vectors.vectors.to(device)))
            setattr(self, f"rows_{index}", constant(vectors.rows.to(device)))

    def set_cardinalities(self, cardinalities: Sequence[int]) -> None:
        """Set the numbers of codes that have embeddings."""
        device = self.without_vector[0].device
        limits = torch.full((len(cardinalities),), torch.iinfo(torch.int64).max)
        for column in self.columns:
            limits[column] = cardinalities[column]
        self.limits = constant(limits.to(device))
        self.places = constant(torch.tensor(self.columns, device=device))

    def own_codes(self, codes: Tensor, unseen_code: int) -> Tensor:
        """Return the codes of embeddings."""
        return torch.where(codes < self.limits, codes, unseen_code)

    def add(self, embedded: Tensor, codes: Tensor, table: int) -> Tensor:
        """Return embeddings `(batch, n_columns, dim)` of codes with their vectors."""
        contents = [
            self._content(index, codes[:, column], table)
            for index, column in enumerate(self.columns)
        ]
        stacked = torch.stack(contents, dim=1).to(embedded)
        return embedded.index_add(1, self.places, stacked)

    def add_to_column(self, embedded: Tensor, column: int, table: int) -> Tensor:
        """Return the embeddings of a column, one per code, with their vectors."""
        if column not in self.columns:
            return embedded
        codes = torch.arange(len(embedded), device=embedded.device)
        content = self._content(self.columns.index(column), codes, table)
        return embedded + content

    def _content(self, index: int, codes: Tensor, table: int) -> Tensor:
        """Return the vectors of codes of a column through its matrix."""
        rows: Tensor = getattr(self, f"rows_{index}")[codes]
        vectors: Tensor = getattr(self, f"vectors_{index}")[rows]
        matrices: Any = self.matrices[table]
        content: Tensor = matrices[index](vectors)
        without_vector = self.without_vector[table][index].to(content.dtype)
        return torch.where((rows == 0).unsqueeze(1), without_vector, content)
