"""A kind of column that the package does not have: arrays as norm and direction."""

import numpy as np

from sk_pwiser._columns._base import Column, EncodedColumn, Input
from sk_pwiser._columns._frames import read_lists, rows_of


class NormAndDirectionColumn(Column):
    """Encodes arrays of one size as the logarithm of their norm and a unit vector."""

    kind = "norm and direction"
    network_input = "numeric"
    needs_sample = True
    holds_lists = True
    encoding = "log norm, unit vector"

    def __init__(self, name):
        self.name = name

    @classmethod
    def claim(cls, choice, name):
        return cls(name) if choice.contents[name] == "arrays" else None

    @property
    def inputs(self):
        names = [f"{self.name}_norm"]
        names += [f"{self.name}_direction_{index}" for index in range(self.size_)]
        return [Input(name, 0, 1.0) for name in names]

    def fit_table(self, table, sample_weight):
        lists = table.lists(self.name)
        self.size_ = int(lists.sizes[0])
        return self.encode_table(table)

    def encode_table(self, table):
        cells = table.cells[self.name]

        def read_inputs(rows):
            return self.transform(cells if rows is None else rows_of(cells, rows))

        return EncodedColumn(n_inputs=1 + self.size_, read_inputs=read_inputs)

    def transform(self, cells):
        lists = read_lists(cells, self.name)
        if (lists.sizes != self.size_).any():
            raise ValueError(f"Column {self.name!r} must hold {self.size_} numbers.")
        vectors = np.asarray(lists.elements, dtype=float).reshape(-1, self.size_)
        norms = np.linalg.norm(vectors, axis=1)
        return [np.log(norms), *(vectors / norms[:, np.newaxis]).T]

    def add_to_graph(self, graph):
        values = graph.number_input(self.name, width=self.size_)
        norms = graph.add("ReduceL2", values, np.array([1]), keepdims=1)
        tensors = [graph.add("Log", norms), graph.add("Div", values, norms)]
        return [graph.to_float(tensor) for tensor in tensors]
