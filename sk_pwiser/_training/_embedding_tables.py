"""The embedding tables of a network, and those with sparse gradients."""

from torch import Tensor, nn

TABLES = nn.Embedding, nn.EmbeddingBag


def sparse_tables(network: nn.Module) -> list[Tensor]:
    """Return the embedding tables of a network that have sparse gradients."""
    modules = (module for module in network.modules() if isinstance(module, TABLES))
    return [module.weight for module in modules if module.sparse]
