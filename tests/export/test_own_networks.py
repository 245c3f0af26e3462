"""ONNX graphs of networks of the user: those that are right, and those that are not."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from serving_rows import HAS_CONSTANT, OTHER, X, Y, one_row_each
from small_model import small
from torch import nn

from sk_pwiser.export import Scorer, to_onnx
from sk_pwiser.networks import MultiTaskNetwork, NetworkOutput

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.slow,
    HAS_CONSTANT,
    # The logits of some of them grow with the number of rows.
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class Linear(MultiTaskNetwork):
    """A network whose subclasses change its input, of 4 steps with 8 numbers each."""

    def __init__(self, spec):
        super().__init__(spec)
        self.steps = nn.Linear(self.width, 32)
        self.layer = self.make_layer()
        self.head = nn.Linear(32, self.n_tasks)

    def make_layer(self):
        return None

    def forward(self, codes, numeric):
        steps = self.steps(self.input_layer(codes, numeric)).view(-1, 4, 8)
        return NetworkOutput(self.head(self.change(steps).flatten(1)))


class Iterates(Linear):
    """It iterates over a tensor, as the network of the page "Bring your own" does."""

    def make_layer(self):
        return nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

    def change(self, steps):
        pairs = zip(self.layer, steps.unbind(dim=1), strict=True)
        steps = torch.stack([layer(step) for layer, step in pairs])
        return torch.stack([step.relu() for step in steps], dim=1)


class ReadsWidth(Linear):
    def change(self, steps):
        return steps if steps.shape[1] > 3 else steps * 0


class Attention(Linear):
    def make_layer(self):
        return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def change(self, steps):
        return self.layer(steps)


class Normalised(Linear):
    def make_layer(self):
        return nn.Sequential(nn.BatchNorm1d(4), nn.PReLU(), nn.Dropout(0.5))

    def change(self, steps):
        return self.layer(steps)


def fitted(network):
    return small(network=network, network_params=None, max_epochs=1).fit(X, Y)


def test_lists_are_exported_without_messages(caplog):
    lists = X.assign(items=[["a", "b"][: 1 + row % 2] for row in range(len(X))])
    assert Scorer(small(max_epochs=1).fit(lists, Y)).runtime == "onnx"
    assert not caplog.messages


@pytest.mark.parametrize("network", [Iterates, ReadsWidth, Attention, Normalised])
def test_graphs_that_are_right(network, tmp_path, capfd):
    model = fitted(network)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    to_onnx(model, tmp_path / "model.onnx")
    scorer = Scorer(model, runtime="onnx")
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    assert capfd.readouterr() == ("", "")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [output.name for output in session.get_outputs()] == ["probabilities"]
    for n_rows in (1, 2, len(OTHER)):
        table = model.encode(OTHER[:n_rows])
        inputs = {"codes": table.codes.astype(np.int64), "numeric": table.numeric}
        expected = model.predict_proba(OTHER[:n_rows])
        assert_allclose(session.run(None, inputs)[0], expected, atol=1e-6)
        assert_allclose(scorer(one_row_each(OTHER[:n_rows])), expected, atol=1e-6)


class CountsRows(Linear):
    """The number of rows is a constant of its graph, which runs with others, too."""

    def change(self, steps):
        return steps / len(steps.unbind())


class UnbindsRows(Linear):
    """Its graph runs with the number of rows that it was exported with."""

    def change(self, steps):
        return torch.stack([step * 2 for step in steps.unbind()])


class ReadsValues(Linear):
    """Its graph has the branch that the rows of the example take."""

    def change(self, steps):
        return steps * 0 if (steps > 0).sum() > 1000 else steps


class HasNoOperator(Linear):
    def change(self, steps):
        return torch.special.bessel_j0(steps)


class Fails(Linear):
    def change(self, steps):
        if torch.compiler.is_compiling():
            raise KeyError("of the network")
        return steps


# The exporter sees that the first three have no graph for all rows.
REASONS = {
    CountsRows: "",
    UnbindsRows: "",
    ReadsValues: "",
    HasNoOperator: "bessel_j0",
    Fails: "'of the network'",
}


@pytest.mark.parametrize("network", REASONS)
def test_graphs_that_are_wrong(network, tmp_path, capfd):
    model, reason = fitted(network), REASONS[network]
    message = f"^The network {network.__name__} cannot be exported: .*{reason}"
    with pytest.raises(ValueError, match=message) as raised:
        to_onnx(model, tmp_path / "model.onnx")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())
    if network is Fails:
        with pytest.raises(ValueError, match=message):
            Scorer(model, runtime="onnx")
    scorer = Scorer(model)
    assert scorer.runtime == "torch"
    # PyTorch prints graphs that it cannot export.
    assert capfd.readouterr() == ("", "")
    expected = model.predict_proba(OTHER)
    assert_allclose(scorer(one_row_each(OTHER)), expected, atol=1e-6)
