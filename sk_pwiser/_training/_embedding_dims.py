"""The widths of embeddings by the number of values: `embedding_dim="auto"`."""

from collections.abc import Sequence

# The default of `embedding_dim`: "auto" makes embeddings narrower, never wider, so that
# the memory of large vocabularies does not depend on it.
LARGEST_DIM = 16


def automatic_dims(cardinalities: Sequence[int]) -> tuple[int, ...]:
    """Return min(16, round(1.6 * n**0.56)) for each column with n codes."""
    return tuple(min(LARGEST_DIM, round(1.6 * n**0.56)) for n in cardinalities)


def embedding_widths(
    embedding_dim: int | str, dims: tuple[int, ...], bag_sizes: Sequence[int]
) -> tuple[int, tuple[int, ...]]:
    """Return the largest width, and those of the category columns if they differ.

    `dims` are the automatic widths of the category columns.
    """
    if embedding_dim != "auto":
        return int(embedding_dim), ()
    return max([*dims, *automatic_dims(bag_sizes)], default=1), dims
