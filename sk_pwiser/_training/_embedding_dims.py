"""The widths of embeddings by the number of values: `embedding_dim="auto"`."""

from collections.abc import Sequence

# The default of `embedding_dim`: "auto" makes embeddings narrower, never wider, so that
# the memory of large vocabularies does not depend on it.
LARGEST_DIM = 16


def automatic_dims(cardinalities: Sequence[int]) -> tuple[int, ...]:
    """Return min(16, round(1.6 * n**0.56)) for each column with n codes."""
    return tuple(min(LARGEST_DIM, round(1.6 * n**0.56)) for n in cardinalities)
