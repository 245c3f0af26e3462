"""The encoding of a table as an ONNX graph: vocabularies, numbers and statistics."""

import numpy as np

from sk_pwiser._table import UNSEEN
from sk_pwiser.export._fields import CategoryField, make_fields

OUTPUT = "probabilities"


class GraphBuilder:
    """Nodes, constants and inputs of a graph whose tensors have consecutive names."""

    def __init__(self):
        self.nodes, self.constants, self.inputs = [], [], []

    def add(self, operator, *inputs, output=None, **attributes):
        """Append a node with one output, and return the name of the output."""
        from onnx import helper

        output = f"encoding/{len(self.nodes)}" if output is None else output
        inputs = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        node = helper.make_node(operator, inputs, [output], **attributes)
        self.nodes.append(node)
        return output

    def constant(self, values):
        """Append an array, and return its name."""
        from onnx import numpy_helper

        name = f"encoding/constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def input(self, name, kind):
        """Append an input of shape (n_samples, 1), and return its name."""
        from onnx import helper

        shape = ["n_samples", 1]
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name


def encoding_model(schema, opset):
    """Return a model from raw columns to ``encoding/codes`` and ``encoding/numeric``.

    Parameters
    ----------
    schema : Schema
        The encoding of a fitted estimator.
    opset : int
        Version of the operators.

    Raises
    ------
    ValueError
        If a column cannot be encoded by a graph. The message names the column.
    """
    from onnx import TensorProto, helper

    graph = GraphBuilder()
    codes, numeric = [], []
    columns = schema.encoder.columns_
    for field, column in zip(make_fields(schema.encoder), columns, strict=True):
        if column.name == OUTPUT:
            raise _refusal(column, "it has the name of the output")
        if isinstance(field, CategoryField):
            codes.append(_add_categories(graph, column))
        else:
            numeric += _add_numbers(graph, column)
    if schema.statistics is not None:
        statistics = schema.statistics
        for column, table in zip(statistics.columns, statistics.tables_, strict=True):
            rows = graph.add("Squeeze", codes[column], [1])
            numeric.append(graph.add("Gather", table, rows, axis=0))
    codes = _without_rare(graph, codes, schema.encoder)
    for name, columns, dtype in (
        ("encoding/codes", codes, np.int64),
        ("encoding/numeric", numeric, np.float32),
    ):
        columns = columns or [_add_empty(graph, dtype)]
        graph.add("Concat", *columns, output=name, axis=1)
    outputs = [
        helper.make_tensor_value_info(name, kind, ["n_samples", None])
        for name, kind in (
            ("encoding/codes", TensorProto.INT64),
            ("encoding/numeric", TensorProto.FLOAT),
        )
    ]
    made = helper.make_graph(
        graph.nodes, "encoding", graph.inputs, outputs, graph.constants
    )
    versions = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 4)]
    return helper.make_model(made, opset_imports=versions)


def _add_categories(graph, column):
    """Add the lookup of a category column; return its codes, those of rare values too.

    Raises
    ------
    ValueError
        If the graph could not tell the values apart as the column does.
    """
    if column.vocabulary.n_hash_buckets is not None:
        raise _refusal(column, "it has hash buckets, for which ONNX has no operator")
    if len(column.kinds_) > 1 or "other objects" in column.kinds_:
        kinds = " and ".join(sorted(column.kinds_))
        raise _refusal(column, f"it contains {kinds}; a graph takes text or numbers")
    if "numbers" in column.kinds_:
        return _look_up_numbers(graph, column)
    return _look_up_text(graph, column)


def _look_up_text(graph, column):
    from onnx import TensorProto

    codes = dict(column.codes_)
    if "" not in codes:
        codes[""] = column.missing_code_
    elif column.missing_code_ != UNSEEN:
        raise _refusal(
            column, "it has missing values and the empty text, which stands for them"
        )
    return graph.add(
        "LabelEncoder",
        graph.input(str(column.name), TensorProto.STRING),
        domain="ai.onnx.ml",
        keys_strings=list(map(str, codes)),
        values_int64s=list(codes.values()),
        default_int64=UNSEEN,
    )


def _look_up_numbers(graph, column):
    from onnx import TensorProto, helper

    name = graph.input(str(column.name), TensorProto.DOUBLE)
    keys, codes = _as_doubles(column), [*column.codes_.values()] or [UNSEEN]
    int64 = TensorProto.INT64
    found = graph.add(
        "LabelEncoder",
        name,
        domain="ai.onnx.ml",
        keys_tensor=helper.make_tensor("keys", TensorProto.DOUBLE, [len(keys)], keys),
        values_tensor=helper.make_tensor("values", int64, [len(codes)], codes),
        default_tensor=helper.make_tensor("default", int64, [1], [UNSEEN]),
    )
    missing = graph.add("IsNaN", name)
    return graph.add("Where", missing, np.int64(column.missing_code_), found)


def _as_doubles(column):
    """Return the values of a column as floats that are equal to them."""
    keys = [float(value) for value in column.codes_]
    for key, value in zip(keys, column.codes_, strict=True):
        if key != value:
            raise _refusal(column, f"no double is equal to its value {value!r}")
    return keys or [0.0]


def _add_numbers(graph, column):
    """Add the inputs of a numeric column: the values and perhaps the indicator."""
    from onnx import TensorProto

    name = graph.input(str(column.name), TensorProto.DOUBLE)
    nodes, inputs = column.nodes
    if len(nodes) == 1:  # a runtime may not multiply matrices without a column
        nodes, inputs = np.append(nodes, nodes + 1), np.repeat(inputs, 2)
    missing = graph.add("IsNaN", name)
    known = graph.add("Where", missing, np.float64(nodes[0]), name)
    known = graph.add("Clip", known, np.float64(nodes[0]), np.float64(nodes[-1]))
    # Each interval between two nodes adds the part of it that lies below the value.
    shares = graph.add("Sub", known, nodes[np.newaxis, :-1])
    shares = graph.add("Div", shares, np.diff(nodes)[np.newaxis])
    shares = graph.add("Clip", shares, np.float64(0), np.float64(1))
    encoded = graph.add("MatMul", shares, np.diff(inputs)[:, np.newaxis])
    encoded = graph.add("Add", encoded, np.float64(inputs[0]))
    encoded = graph.add("Where", missing, np.float64(column.fill_value_), encoded)
    numbers = [encoded, missing] if column.has_missing_ else [encoded]
    return [graph.add("Cast", number, to=TensorProto.FLOAT) for number in numbers]


def _without_rare(graph, codes, encoder):
    """Replace the codes of rare values, which have no embedding."""
    sizes = zip(codes, encoder.cardinalities_, encoder.n_codes_, strict=True)
    return [
        graph.add(
            "Where", graph.add("Less", code, np.int64(size)), code, np.int64(UNSEEN)
        )
        if n_codes > size
        else code
        for code, size, n_codes in sizes
    ]


def _add_empty(graph, dtype):
    """Add a tensor with all rows and no columns."""
    from onnx import numpy_helper

    n_rows = graph.add("Slice", graph.add("Shape", graph.inputs[0].name), [0], [1])
    shape = graph.add("Concat", n_rows, np.zeros(1, np.int64), axis=0)
    value = numpy_helper.from_array(np.zeros(1, dtype))
    return graph.add("ConstantOfShape", shape, value=value)


def _refusal(column, reason):
    return ValueError(f"Column {column.name!r} cannot be exported: {reason}.")
