"""ONNX files of fitted estimators, with encoded inputs or raw columns as inputs."""

import logging
import threading
import warnings
from contextlib import ExitStack
from os import PathLike
from typing import Any, ClassVar
from unittest.mock import patch

import numpy as np
import torch
from sklearn.utils.fixes import parse_version
from torch.overrides import TorchFunctionMode

from sk_pwiser._columns._codes import UNSEEN
from sk_pwiser._model_files import write_bytes
from sk_pwiser._utils._checks import check_choice
from sk_pwiser._utils._extras import import_extra
from sk_pwiser.export import _calibrated_network
from sk_pwiser.export._served_model import ServedModel, fitted_result
from sk_pwiser.networks import random_inputs

# The first version that the exporter writes; runtimes since 2023 support it.
OPSET = 18
# Largest size of a file of protocol buffers.
LARGEST_FILE = 2**31
# Rows of the batch that is traced: 1 would be exported as a size to broadcast.
EXAMPLE_SIZE = 3
# Rows of the batches that the graph is checked with.
CHECKED_SIZES = (1, 2, 4, 17, 100, 1_000)
# The exporter of PyTorch sets global variables.
EXPORT_LOCK = threading.Lock()


def to_onnx(
    estimator: Any, path: str | PathLike[str], *, inputs: str = "encoded"
) -> None:
    """Write the network of a fitted estimator to an ONNX file.

    The graph has the output ``probabilities``: the result of `predict_proba`, in
    float32. With `value_tasks`, it also has ``values``, of shape `(n_samples,
    n_values)`: the result of `predict_value`, in float64, and ``values_given_event``:
    that with ``given_event=True``.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier or FunnelCalibrator
        The fitted estimator, or the fitted calibrator of one, whose curves become part
        of the graph. With `by`, its column must be a category column of the
        estimator, and `inputs` "raw".
    path : str or path-like
        The file. An existing file is only replaced when the export is complete.
    inputs : {"encoded", "raw"}, default="encoded"
        The inputs of the graph. With "encoded", they are the arrays of
        :meth:`~sk_pwiser.MultiTaskCTRCVRClassifier.encode`: ``codes``, converted to
        int64, of shape `(n_samples, n_category_columns)`, and ``numeric``, float32, of
        shape `(n_samples, n_numeric)`. With columns of lists, the arrays of its
        ``bag_inputs`` follow, under their names.

        With "raw", the graph has one input of shape `(n_samples, 1)` per column, with
        the name of the column. It takes strings for text categories, and float64 for
        numeric columns and for categories that are numbers or bools (0 and 1). A
        missing number is NaN, and missing text is the empty string. The vocabularies
        and the encodings are part of the graph. The graph clips infinite numbers, for
        which `predict_proba` raises an error.

    Raises
    ------
    TypeError
        If `estimator` is neither a :class:`~sk_pwiser.MultiTaskCTRCVRClassifier` nor a
        :class:`~sk_pwiser.calibration.FunnelCalibrator` of one.
    ValueError
        If `inputs` is unknown, or if the network or a column cannot be exported; the
        message names it. A network of your own cannot be exported if ONNX lacks an
        operation, or if `forward` branches on the number of rows or on values. Columns
        of arrays of numbers cannot be exported. With "raw", the same holds for columns
        of lists, and for columns with hash buckets, with both text and numbers, with
        values that are neither, with the empty string, or with the name
        of an output. In these cases no file is written.
    ImportError
        If onnx, onnxruntime or onnxscript is not installed, or PyTorch is older than
        2.9: its exporter was an experiment before.
    OSError
        If the file cannot be written, for example because its folder does not exist.

    Notes
    -----
    The graph runs the network in float32, even if `precision="bfloat16"` was used in
    training, and computes probabilities in float64, so that rare events have full
    relative precision. Before the file is written, random rows are computed in ONNX
    Runtime and in PyTorch, in batches of different sizes, and compared.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> from sk_pwiser import MultiTaskCTRCVRClassifier
    >>> from sk_pwiser.datasets import make_ctr_cvr
    >>> from sk_pwiser.export import to_onnx
    >>> data = make_ctr_cvr(500, random_state=0)
    >>> model = MultiTaskCTRCVRClassifier(max_epochs=1, random_state=0)
    >>> model = model.fit(data.data, data.target)
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.onnx"
    >>> to_onnx(model, path)

    A server only needs onnxruntime, not this package or PyTorch:

    >>> import onnxruntime
    >>> session = onnxruntime.InferenceSession(path)
    >>> table = model.encode(data.data[:3])
    >>> inputs = {"codes": table.codes.astype(np.int64), "numeric": table.numeric}
    >>> session.run(["probabilities"], inputs)[0].shape
    (3, 2)
    """
    network_of_fit = fitted_result(estimator).net.module_
    served = ServedModel.of(estimator)
    schema = served.schema
    check_choice("inputs", inputs, ("encoded", "raw"))
    _calibrated_network.check_exportable(schema.encoder)
    onnx = import_extra("onnx", "to_onnx")
    import_extra("onnx.compose", "to_onnx")
    network = _calibrated_network.ProbabilityNetwork(served, network_of_fit)
    market = _calibrated_network.market_of(served)
    if market is not None and inputs != "raw":
        raise ValueError(
            f"A calibrator with by={estimator.by!r} needs the values of this column: "
            "export it with inputs='raw'."
        )
    encoder = None
    if inputs == "raw":
        encoder = encoding_model(
            onnx,
            schema,
            market,
            n_shifts=network.network.n_tasks,
            output_names=network.output_names,
        )
    model = onnx.load_from_string(checked_model(network, "to_onnx")[0])
    del model.graph.output[len(network.output_names) :]
    if encoder is not None:
        model = _join(onnx, encoder, model, network.output_names)
    model.producer_name = "sk_pwiser"
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def _trace(network):
    """Return the bytes of an ONNX model of a network, with encoded inputs."""
    inputs = _example_inputs(network, EXAMPLE_SIZE)
    tensors = tuple(map(torch.from_numpy, inputs.values()))
    shapes = [
        {0: f"n_{name}" if name.startswith("bag_") else "n_samples"} for name in inputs
    ]
    with (
        EXPORT_LOCK,
        _ExactLogarithms(),
        # The exporter prints the graph of a network that it cannot export, packages
        # that no network here needs, and a warning of every decision on a size, also of
        # a layer's width: the graph is checked.
        patch("torch.export._trace.print", lambda *_, **__: None, create=True),
        warnings.catch_warnings(action="ignore"),
        ExitStack() as stack,
    ):
        for name, log in list(logging.root.manager.loggerDict.items()):
            if name.partition(".")[0] == "torch" and getattr(log, "handlers", []):
                silent = [logging.NullHandler()]
                stack.enter_context(patch.object(log, "handlers", silent))
        for log in map(logging.getLogger, ("onnxscript", "onnx_ir")):
            stack.callback(log.setLevel, log.level)
            log.setLevel(logging.ERROR)
        program = torch.onnx.export(
            network,
            tensors,
            # The parameters of forward: the two tables, and the others as one tuple.
            dynamic_shapes=(*shapes[:2], *([tuple(shapes[2:])] if shapes[2:] else [])),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            input_names=list(inputs),
            output_names=[*network.output_names, *network.head_names],
        )
    model = program.model_proto
    # Metadata name the lines of the code on this machine.
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for message in (model, graph, *graph.node, *values):
        del message.metadata_props[:]
    return model.SerializeToString()


def _example_inputs(network, n_rows):
    codes, numeric, bags = random_inputs(network.network, n_rows)
    inputs = {"codes": codes.numpy(), "numeric": numeric.numpy()}
    if network.takes_shifts:
        inputs["shifts"] = np.ones((n_rows, network.network.n_tasks))
    tensors = {} if bags is None else bags.tensors
    return inputs | {f"bag_{name}": t.numpy() for name, t in tensors.items()}


def checked_model(network, caller):
    """Return the bytes of an ONNX model of a network, and an `OnnxNetwork` of it.

    It must compute the same as in PyTorch for other numbers of rows.
    """
    if parse_version(torch.__version__) < parse_version("2.9"):
        raise ImportError(
            f"{caller} uses the exporter of PyTorch 2.9; found {torch.__version__}."
        )
    for package in ("onnx", "onnxscript"):
        import_extra(package, caller)  # which the exporter of PyTorch needs
    onnxruntime = import_extra("onnxruntime", caller)
    # Vectors of ids are buffers.
    tensors = [*network.parameters(), *network.buffers()]
    n_bytes = sum(tensor.nbytes for tensor in tensors)
    if n_bytes >= LARGEST_FILE:
        raise ValueError(
            f"The network cannot be exported: its weights take {n_bytes / 2**30:.1f} "
            "GiB, but an ONNX file can contain at most 2 GiB. Use a smaller "
            "embedding_dim, or max_categories in encoding_params."
        )
    try:
        model = _trace(network)
        run = OnnxNetwork(onnxruntime, model)
        for n_rows in CHECKED_SIZES:
            _compare(network, run, n_rows)
    # Not only RuntimeError: networks have any error, and ONNX Runtime its own.
    except Exception as error:
        name = type(network.network).__name__
        # The exporter wraps the error of the network, or of an operator.
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = str(cause).strip() or type(cause).__name__
        raise ValueError(
            f"The network {name} cannot be exported: {reason.splitlines()[0]}"
        ) from error
    return model, run


class OnnxNetwork:
    """A network in ONNX Runtime, which computes on the thread that calls it."""

    def __init__(self, onnxruntime, model):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # errors are raised, and need no line of a log
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        self._names = {tensor.name for tensor in self._session.get_inputs()}

    def __call__(self, inputs, output=_calibrated_network.PROBABILITIES):
        return self.predict_heads(inputs, [output])[0]

    def predict_heads(self, inputs, names):
        """Return some outputs, in the order of their names."""
        if len(inputs) > len(self._names):
            inputs = {name: inputs[name] for name in self._names}
        return self._session.run(names, inputs)


def _compare(network, run, n_rows):
    """Raise an error if the logits or outputs of random rows are others."""
    inputs = _example_inputs(network, n_rows)
    all_expected = network.predict_all(inputs)
    heads = []
    for name in network.head_names:
        head = run(inputs, name)
        expected = all_expected[name]
        if head.shape != expected.shape or not np.allclose(
            head, expected, rtol=1e-4, atol=1e-3, equal_nan=True
        ):
            raise ValueError(
                f"for {n_rows} rows, the ONNX graph computes other logits than "
                f"PyTorch. The graph is recorded with {EXAMPLE_SIZE} rows: forward "
                "must not use the number of rows, or a value of a tensor, as a Python "
                "number."
            )
        heads.append(torch.from_numpy(head))
    # A steep calibration curve multiplies rounding errors of the logits, so the
    # outputs are compared with those of the graph's own logits.
    shifts = inputs.get("shifts")
    shifts = None if shifts is None else torch.from_numpy(shifts)
    outputs = network.outputs_of_heads(*heads, shifts=shifts)
    for name, output in zip(network.output_names, outputs, strict=True):
        # ONNX Runtime's sigmoid is less exact where a probability is below 1e-11.
        if not np.allclose(
            run(inputs, name), output.numpy(), rtol=1e-5, atol=1e-13, equal_nan=True
        ):
            raise ValueError(
                f"for {n_rows} rows, the ONNX graph computes other {name} than "
                "PyTorch from the same logits."
            )


# The exporter computes both as logarithms of values that are rounded to 0 or 1: those
# of rare events have large errors below -10, and are infinite below -18.


def _log_sigmoid(x):
    return x.clamp(max=0) - torch.exp(-x.abs()).log1p()


def _log_add_exp(x, y):
    return torch.maximum(x, y) + torch.exp(-(x - y).abs()).log1p()


class _ExactLogarithms(TorchFunctionMode):
    """Lets an exporter record logarithms of probabilities by exact operators."""

    replaced: ClassVar = {
        torch.nn.functional.logsigmoid: _log_sigmoid,
        torch.logaddexp: _log_add_exp,
        torch.Tensor.logaddexp: _log_add_exp,
    }

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return self.replaced.get(func, func)(*args, **(kwargs or {}))


def _join(onnx, encoder, network, output_names):
    """Return the model that encodes raw inputs and runs the network."""
    encoder.ir_version = network.ir_version
    # A column may have the same name as a tensor of the network.
    network = onnx.compose.add_prefix(network, "network/")
    outputs = [output.name for output in encoder.graph.output]
    names = [(name, name.replace("encoding", "network")) for name in outputs]
    model = onnx.compose.merge_models(encoder, network, io_map=names)
    for place, name in enumerate(output_names):
        last = f"network/{name}"
        model.graph.node.append(onnx.helper.make_node("Identity", [last], [name]))
        model.graph.output[place].name = name
    return model


class GraphBuilder:
    """Collects the nodes, constants and inputs of a graph, and names its tensors."""

    def __init__(self, onnx):
        self.types = onnx.TensorProto
        self.helper = onnx.helper
        self.from_array = onnx.numpy_helper.from_array
        self.nodes = []
        self.constants = []
        self.inputs = []

    def add(self, operator, *inputs, output=None, **attributes):
        """Append a node with one output; return the name of the output."""
        output = f"encoding/{len(self.nodes)}" if output is None else output
        inputs = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        node = self.helper.make_node(operator, inputs, [output], **attributes)
        self.nodes.append(node)
        return output

    def constant(self, values):
        """Append a constant array; return its name."""
        name = f"encoding/constant_{len(self.constants)}"
        self.constants.append(self.from_array(np.asarray(values), name))
        return name

    def look_up(self, name, codes, default):
        """Append a lookup of int codes by values, all text or all floats."""
        keys = list(codes)
        dtype = object if isinstance(keys[0], str) else np.float64
        attributes = {
            "keys_tensor": self.from_array(np.array(keys, dtype)),
            "values_tensor": self.from_array(np.array([*codes.values()], np.int64)),
            "default_tensor": self.from_array(np.array([default], np.int64)),
        }
        return self.add("LabelEncoder", name, domain="ai.onnx.ml", **attributes)

    def text_input(self, name):
        """Append an input of strings, of shape (n_samples, 1); return its name."""
        return self._input(name, self.types.STRING, 1)

    def number_input(self, name, width=1):
        """Append an input of doubles, of shape (n_samples, width); return its name."""
        return self._input(name, self.types.DOUBLE, width)

    def _input(self, name, kind, width):
        name = str(name)
        shape = ["n_samples", width]
        self.inputs.append(self.helper.make_tensor_value_info(name, kind, shape))
        return name

    def to_float(self, name):
        """Append a conversion to float32; return the name of the result."""
        return self.add("Cast", name, to=self.types.FLOAT)

    def to_double(self, name):
        """Append a conversion to float64; return the name of the result."""
        return self.add("Cast", name, to=self.types.DOUBLE)

    def to_int(self, name):
        """Append a conversion to int64; return the name of the result."""
        return self.add("Cast", name, to=self.types.INT64)


def encoding_model(onnx, schema, market, *, n_shifts, output_names):
    """Return a model that encodes raw columns and, with `market`, finds shifts."""
    graph = GraphBuilder(onnx)
    tensors: dict[str, list[str]] = {"codes": [], "numeric": []}
    for column in schema.encoder.read_columns_:
        if reason := _obstacle(column, output_names):
            raise ValueError(f"Column {column.name!r} cannot be exported: {reason}.")
        tensors[column.network_input] += column.add_to_graph(graph)
    codes = tensors["codes"]
    columns = {column.name: column for column in schema.encoder.columns_}
    for combination in schema.encoder.combinations_:
        codes += combination.add_cells_to_graph(graph, columns)
    numeric = tensors["numeric"]
    if schema.statistics is not None:
        statistics = schema.statistics
        parent_rates = statistics.parent_rates
        rates: dict[int, str] = {}  # by table, those of the rows
        tables = zip(statistics.columns, statistics.tables_, strict=True)
        for j, (column, table) in enumerate(tables):
            rows = graph.add("Squeeze", codes[column], [1])
            inputs = graph.add("Gather", table, rows, axis=0)
            if parent_rates is not None and parent_rates.has(j):
                inputs = parent_rates.add_to_graph(graph, j, inputs, rates)
            numeric.append(inputs)
    outputs = {
        "encoding/codes": graph.types.INT64,
        "encoding/numeric": graph.types.FLOAT,
    }
    if market is not None:
        index, shifts = market
        column = schema.encoder.read_columns_[index]
        if column.network_input != "codes":
            raise ValueError(
                f"by={column.name!r} must be a category column of the estimator."
            )
        _add_shifts(graph, column, shifts, n_shifts)
        outputs["encoding/shifts"] = graph.types.DOUBLE
    codes = graph.add("Concat", *(codes or [_add_empty(graph, np.int64)]), axis=1)
    # Rare values have target statistics, but no embedding.
    sizes = np.array([schema.encoder.n_network_codes_], dtype=np.int64)
    is_read = graph.add("Less", codes, sizes)
    graph.add("Where", is_read, codes, np.int64(UNSEEN), output="encoding/codes")
    numeric = numeric or [_add_empty(graph, np.float32)]
    graph.add("Concat", *numeric, output="encoding/numeric", axis=1)
    helper = graph.helper
    outputs = [
        helper.make_tensor_value_info(name, kind, ["n_samples", None])
        for name, kind in outputs.items()
    ]
    onnx_graph = helper.make_graph(
        graph.nodes, "encoding", graph.inputs, outputs, graph.constants
    )
    versions = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 4)]
    return helper.make_model(onnx_graph, opset_imports=versions)


def _obstacle(column, output_names):
    """Return why a graph cannot take the raw values of a column, or None."""
    if column.name in output_names:
        return "it has the name of the output"
    return column.onnx_obstacle()


def _add_shifts(graph, column, shifts, n_shifts):
    """Add the shifts of the heads by the values of a category column."""
    if "" in shifts:
        raise ValueError(
            f"Column {column.name!r} cannot be exported: calibration rows contain the "
            "empty string, which a graph takes for missing; replace it by None."
        )
    # Other values have the last place.
    places = column.add_places(graph, shifts, default=len(shifts))
    table = np.vstack([*shifts.values(), np.zeros(n_shifts)])
    rows = graph.add("Squeeze", places, [1])
    graph.add("Gather", table, rows, output="encoding/shifts", axis=0)


def _add_empty(graph, dtype):
    """Add a tensor with one row per sample and no columns."""
    n_rows = graph.add("Slice", graph.add("Shape", graph.inputs[0].name), [0], [1])
    shape = graph.add("Concat", n_rows, np.zeros(1, np.int64), axis=0)
    value = graph.from_array(np.zeros(1, dtype))
    return graph.add("ConstantOfShape", shape, value=value)
