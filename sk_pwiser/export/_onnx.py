"""ONNX files of fitted estimators."""

import inspect
import io
import json
import warnings
from contextlib import contextmanager

import torch

from sk_pwiser._files import write_bytes
from sk_pwiser._utils import check_choice
from sk_pwiser.export._fields import make_fields
from sk_pwiser.export._network import fitted_result, probability_network
from sk_pwiser.export._onnx_encoding import OUTPUT, encoding_model

# The first with all operators used here; runtimes since 2022 support it.
OPSET = 17
# A file of protocol buffers cannot be larger.
LARGEST_FILE = 2**31


def to_onnx(estimator, path, *, inputs="encoded"):
    """Write the network of a fitted estimator to an ONNX file.

    The output ``probabilities`` is that of `predict_proba`, in float32.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        The fitted estimator.
    path : str or path-like
        The file. It is replaced only when the export is complete.
    inputs : {"encoded", "raw"}, default="encoded"
        What the graph takes. With "encoded", the arrays of
        :meth:`~sk_pwiser.MultiTaskCTRCVRClassifier.encode`: ``codes``, converted to
        int64, and ``numeric``, float32, of shapes `(n_samples, n_category_columns)` and
        `(n_samples, n_numeric)`.

        With "raw", one input of shape `(n_samples, 1)` per column, named as the column:
        strings for text categories, and float64 for categories that are numbers and for
        numeric columns. A missing number is NaN, and a missing text the empty string.
        The vocabularies and the encodings are part of the graph. Where `predict_proba`
        raises for an infinite number, the graph clips it.

    Raises
    ------
    ImportError
        If onnx is not installed.
    TypeError
        If `estimator` is not a :class:`~sk_pwiser.MultiTaskCTRCVRClassifier`.
    NotFittedError
        If it is not fitted.
    ValueError
        If `inputs` is unknown, or if a part cannot be exported. The message names the
        part: the network, a column with lists, or with "raw" a column with hash
        buckets, with both text and numbers, with values that are neither, with both
        missing values and the empty string, or with the name "probabilities". No file
        is written then.
    OSError
        If the file cannot be written, for example because its folder does not exist.

    Notes
    -----
    The network is exported by the TorchScript-based exporter of PyTorch. PyTorch has
    deprecated it, but it needs no package beside onnx.

    The graph computes in float32, also if `precision="bfloat16"` was used in training.

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

    A server needs onnxruntime, and neither this package nor PyTorch:

    >>> import onnxruntime
    >>> session = onnxruntime.InferenceSession(path)
    >>> table = model.encode(data.data[:3])
    >>> inputs = {"codes": table.codes.astype(np.int64), "numeric": table.numeric}
    >>> session.run(["probabilities"], inputs)[0].shape
    (3, 2)
    """
    schema = fitted_result(estimator).schema
    check_choice("inputs", inputs, ("encoded", "raw"))
    make_fields(schema.encoder)  # refuses columns of other kinds
    onnx = _import_onnx()
    network = probability_network(estimator)
    _check_size(network)
    encoder = encoding_model(schema, OPSET) if inputs == "raw" else None
    model = _trace(network, type(network.network).__name__)
    if encoder is not None:
        encoder.ir_version = model.ir_version
        model = _join(encoder, model)
    names = {"task_names": list(estimator.task_names_)}
    if encoder is None:
        names["category_names"] = schema.encoder.category_names_
        names["numeric_names"] = schema.encoder.numeric_names_
        if schema.statistics is not None:
            names["numeric_names"] += schema.statistics.names(
                names["category_names"], names["task_names"]
            )
    properties = {key: json.dumps(value, default=str) for key, value in names.items()}
    onnx.helper.set_model_props(model, properties)
    model.producer_name = "sk_pwiser"
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def _import_onnx():
    try:
        import onnx
        import onnx.compose
    except ImportError as error:
        raise ImportError(
            'to_onnx needs onnx: pip install "sk_pwiser[onnx]"'
        ) from error
    return onnx


def _check_size(network):
    n_bytes = sum(parameter.nbytes for parameter in network.parameters())
    if n_bytes >= LARGEST_FILE:
        raise ValueError(
            f"The network cannot be exported: its weights take {n_bytes / 2**30:.1f} "
            "GiB, and an ONNX file at most 2. Use a smaller embedding_dim, or "
            "max_categories in encoding_params."
        )


def _trace(network, name):
    """Return the model of a network with encoded inputs.

    Raises
    ------
    ValueError
        If an operation cannot be exported, or depends on the values or the number of
        the traced rows.
    """
    import onnx

    spec = network.network.spec
    n_rows = 3  # any number: 1 would be read as a size to be broadcast
    codes = torch.zeros(n_rows, len(spec.cardinalities), dtype=torch.int64)
    numeric = torch.zeros(n_rows, spec.n_numeric)
    axes = {name: {0: "n_samples"} for name in ("codes", "numeric", OUTPUT)}
    options = {"dynamo": False}
    if "dynamo" not in inspect.signature(torch.onnx.export).parameters:
        options = {}  # the only exporter of older versions
    buffer = io.BytesIO()
    with warnings.catch_warnings(), _further_operators():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", torch.jit.TracerWarning)
        try:
            torch.onnx.export(
                network,
                (codes, numeric),
                buffer,
                input_names=["codes", "numeric"],
                output_names=[OUTPUT],
                dynamic_axes=axes,
                opset_version=OPSET,
                **options,
            )
        except (torch.jit.TracerWarning, RuntimeError) as error:
            raise ValueError(f"The network {name} cannot be exported: {error}") from (
                error
            )
    return onnx.load_from_string(buffer.getvalue())


@contextmanager
def _further_operators():
    """Let the exporter of PyTorch know an operator that networks use."""
    operator = "aten::logaddexp"
    torch.onnx.register_custom_op_symbolic(operator, _log_add_exp, OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic(operator, OPSET)


def _log_add_exp(graph, first, second):
    larger, smaller = graph.op("Max", first, second), graph.op("Min", first, second)
    one = graph.op("Constant", value_t=torch.ones(()))
    rest = graph.op("Exp", graph.op("Sub", smaller, larger))
    return graph.op("Add", larger, graph.op("Log", graph.op("Add", one, rest)))


def _join(encoder, network):
    """Return the model that encodes raw inputs and runs the network."""
    import onnx

    # Columns may have the names of tensors of the network.
    network = onnx.compose.add_prefix(network, "network/")
    names = [("encoding/codes", "network/codes")]
    names += [("encoding/numeric", "network/numeric")]
    model = onnx.compose.merge_models(encoder, network, io_map=names)
    last = f"network/{OUTPUT}"
    model.graph.node.append(onnx.helper.make_node("Identity", [last], [OUTPUT]))
    model.graph.output[0].name = OUTPUT
    return model
