"""The dense input of a network: embeddings, sums over bags and numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sk_pwiser._utils._random import generator_on
from sk_pwiser.networks._bags import BagEmbeddings
from sk_pwiser.networks._domain_gate import DomainGate
from sk_pwiser.networks._interactions import CrossNetwork, FactorizationMachine
from sk_pwiser.networks._layers import INITIAL_STD, constant
from sk_pwiser.networks._numeric_inputs import NumericInputs
from sk_pwiser.networks._spec import Bags, BagSpec, NetworkSpec
from sk_pwiser.networks._value_vectors import ValueVectors


class InputLayer(nn.Module):
    """Category embeddings, sums over bags and numeric inputs, side by side.

    All category columns share one embedding table, in which each has an offset. A
    column with narrower embeddings uses their first components. In training, category
    dropout replaces random values by the code of unseen values, whose embedding is
    trained by this, and numeric inputs that depend on them by those of unseen values.
    Each of `n_tables` tables has its own projections of numeric columns, gate and
    interaction.
    """

    def __init__(self, spec: NetworkSpec, *, n_tables: int = 1) -> None:
        super().__init__()
        self.unseen_code = spec.unseen_code
        n_columns = len(spec.cardinalities)
        dim = spec.embedding_dim
        n_fields = n_columns + len(spec.bags)
        dropouts = spec.dropouts[:n_columns]
        self.drops = any(dropouts)
        self.depends = len(spec.unseen_inputs) > 0
        self.dropout = constant(torch.tensor(dropouts, dtype=torch.float32))
        # The column that each numeric input depends on, n_columns for none, and the
        # inputs of unseen values.
        self.values_of = constant(torch.full((spec.n_numeric,), n_columns))
        self.unseen_inputs = constant(torch.zeros(spec.n_numeric))
        for index, column, value in spec.unseen_inputs:
            self.values_of[index] = column
            self.unseen_inputs[index] = value
        self.unseen_sources = constant(torch.arange(spec.n_numeric))
        self.unseen_factors = constant(torch.zeros(spec.n_numeric))
        self._set_sources(spec.unseen_sources)
        self.embeddings = nn.ModuleList(
            nn.Embedding(sum(spec.cardinalities), dim) for _ in range(n_tables)
        )
        for weight in self.embeddings.parameters():
            nn.init.normal_(weight, std=INITIAL_STD)
        # One lookup reads all columns at full width; `used` then drops the unused
        # components.
        is_used = torch.arange(dim) < torch.tensor(spec.widths).unsqueeze(1)
        components = is_used.flatten().nonzero().squeeze(1)
        all_are_used = len(components) == n_columns * dim
        self.used = None if all_are_used else constant(components)
        self._set_cardinalities(spec.cardinalities)
        self.vectors: ValueVectors | None = None
        if spec.vectors:
            self.vectors = ValueVectors(spec, n_tables)
        # Lists read the whole vectors of their column.
        list_columns = {bag.column for bag in spec.bags}
        self.read_widths = [
            dim if column in list_columns else width
            for column, width in enumerate(spec.widths)
        ]
        # Numeric projections, gates and interactions are built per table: tasks with
        # their own tables share no weights.
        widths = [*spec.widths, *[dim] * len(spec.bags)]
        has_bins = any(spec.numeric_bins)
        bins = [
            NumericInputs(spec.numeric_bins, spec.bin_scales, sum(widths))
            for _ in range(n_tables if has_bins else 0)
        ]
        self.bins = nn.ModuleList(bins)
        numbers = bins[0].owners if bins else range(spec.n_numeric)
        # Which input each column of the dense input belongs to, counted in the order
        # category columns, bags, numeric inputs.
        self.owners = [
            owner for owner, width in enumerate(widths) for _ in range(width)
        ]
        self.owners += [n_fields + owner for owner in numbers]
        self.width = len(self.owners)
        # Bags may share the embeddings of columns: they read the columns' offsets.
        self.bags: BagEmbeddings | None = None
        if spec.bags:
            self.bags = BagEmbeddings(spec, n_tables, self.offsets)
        self.gates = nn.ModuleList()
        self.interactions = nn.ModuleList()
        features = spec.domain_features
        if features:
            self.gates.extend(
                DomainGate(self.owners, features, n_fields) for _ in range(n_tables)
            )
        for _ in range(n_tables):
            if spec.interaction == "cross":
                self.interactions.append(
                    CrossNetwork(self.width, spec.n_cross_layers, spec.cross_rank)
                )
            elif spec.interaction == "fm":
                self.interactions.append(
                    FactorizationMachine(n_fields, dim, len(numbers))
                )
        if spec.interaction == "fm":
            self.width += dim

    def forward(self, codes: Tensor, numeric: Tensor) -> Tensor:
        """Return `(batch, width)`, or `(n_tables, batch, width)` for several tables."""
        places, dropped = self._look_up(codes)
        by_column = [table(places) for table in self.embeddings]
        if self.vectors is not None:
            by_column = [
                self.vectors.add(vectors, codes, table)
                for table, vectors in enumerate(by_column)
            ]
        embedded = [vectors.flatten(1) for vectors in by_column]
        if self.used is not None:
            embedded = [table.index_select(1, self.used) for table in embedded]
        n_tables = len(embedded)
        blocks = [embedded]  # each has one block of columns per table
        if self.bags is not None:  # the sums over bags come before the numeric inputs
            n_sums = n_tables * self.bags.width
            blocks.append(list(numeric[:, :n_sums].chunk(n_tables, dim=1)))
            numeric = numeric[:, n_sums:]
        if dropped is not None and self.depends:
            # Inputs that depend on no value read the last, added column.
            is_unseen = F.pad(dropped, (0, 1)).index_select(1, self.values_of)
            numeric = self._replace_unseen(is_unseen, numeric)
        blocks.append([bins(numeric) for bins in self.bins] or [numeric] * n_tables)
        inputs = [torch.cat(columns, dim=1) for columns in zip(*blocks, strict=True)]
        # Gates come first: their factors then apply to the products, too.
        for layers in (self.gates, self.interactions):
            if layers:
                pairs = zip(layers, inputs, strict=True)
                inputs = [layer(columns) for layer, columns in pairs]
        return inputs[0] if n_tables == 1 else torch.stack(inputs)

    def _look_up(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the rows of the tables, and which values category dropout replaces."""
        if self.vectors is not None:
            codes = self.vectors.own_codes(codes, self.unseen_code)
        places = codes + self.offsets
        if not self.training or not self.drops:
            return places, None
        # Not torch.rand, which torch.compile cannot call with `generator`.
        drawn = torch.empty(codes.shape, device=codes.device)
        drawn.uniform_(generator=generator_on(codes.device))
        dropped = drawn < self.dropout
        return torch.where(dropped, self.unseen, places), dropped

    def _replace_unseen(self, is_unseen: Tensor, numeric: Tensor) -> Tensor:
        """Replace the inputs of unseen values."""
        replaced = torch.where(is_unseen, self.unseen_inputs, numeric)
        # An input may follow that of its parent, which may be replaced itself.
        for _ in range(self.n_levels):
            sources = replaced.index_select(1, self.unseen_sources)
            followed = self.unseen_inputs + self.unseen_factors * sources
            replaced = torch.where(is_unseen, followed, numeric)
        return replaced

    def _set_sources(self, sources: Sequence[tuple[int, int, float]]) -> None:
        """Set which inputs of unseen values follow which others."""
        source_of = {index: source for index, source, _ in sources}
        self.n_levels = 0
        for index, source, factor in sources:
            self.unseen_sources[index] = source
            self.unseen_factors[index] = factor
            n_levels = 1
            while (source := source_of.get(source, -1)) >= 0:
                n_levels += 1
            self.n_levels = max(self.n_levels, n_levels)

    def with_sums(self, codes: Tensor, numeric: Tensor, bags: Bags) -> Tensor:
        """Put the sums over bags before the numeric inputs.

        Networks pass both on together, so that their `forward` takes no bags.
        """
        assert self.bags is not None
        # For attention, this draws another category dropout than `forward` does.
        targets = self._look_up(codes)[0] if self.bags.attended else None
        return torch.cat([self.bags(bags, targets, self.embeddings), numeric], dim=1)

    @property
    def tables(self) -> list[nn.Parameter]:
        """The weights of the embedding tables, one row per code of each column."""
        return [table.get_parameter("weight") for table in self.embeddings]

    def column_embeddings(self, column: int) -> Tensor:
        """Return a column's embeddings, one row per code, tables side by side.

        Components that nothing reads are left out.
        """
        start = int(self.offsets[column])
        rows = slice(start, start + self.cardinalities[column])
        width = self.read_widths[column]
        tables: Sequence[Tensor] = [table[rows] for table in self.tables]
        if self.vectors is not None:
            tables = [
                self.vectors.add_to_column(table, column, index)
                for index, table in enumerate(tables)
            ]
        return torch.cat([table[:, :width] for table in tables], dim=1).detach()

    def set_unseen_inputs(
        self,
        unseen_inputs: Sequence[tuple[int, int, float]],
        unseen_sources: Sequence[tuple[int, int, float]] = (),
    ) -> None:
        """Set the numeric inputs of unseen values, as in the network's `spec`."""
        for index, _, value in unseen_inputs:
            self.unseen_inputs[index] = value
        self._set_sources(unseen_sources)

    def set_tables(
        self,
        cardinalities: Sequence[int],
        weights: Sequence[Tensor],
        bags: Sequence[BagSpec],
    ) -> None:
        """Replace the embedding tables, in place, by those of other cardinalities.

        Those of the bags follow in `weights`.
        """
        self._set_cardinalities(cardinalities)
        if self.vectors is not None:
            self.vectors.set_cardinalities(cardinalities)
        tables = list(self.embeddings)
        if self.bags is not None:
            self.bags.set_columns(bags, self.offsets)
            tables += self.bags.embeddings
        for table, weight in zip(tables, weights, strict=True):
            parameter = table.get_parameter("weight")
            # Another dtype makes torch forget the shape: the graph of a failed update,
            # which an error may keep alive, would refuse gradients of the earlier one.
            parameter.data = weight.new_empty(0, dtype=torch.float16)
            parameter.data = weight
            table.num_embeddings = len(weight)  # type: ignore[assignment]

    def _set_cardinalities(self, cardinalities: Sequence[int]) -> None:
        """Set the first row of each column, and that of its unseen values."""
        self.cardinalities = list(cardinalities)
        device = next(self.embeddings.parameters()).device
        sizes = torch.tensor([0, *cardinalities], device=device)
        self.offsets = constant(sizes.cumsum(0)[:-1])
        self.unseen = constant(self.offsets + self.unseen_code)
