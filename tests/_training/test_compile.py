"""Training through torch.compile."""

import pickle

import pytest
import torch
from numpy.testing import assert_allclose
from skorch.callbacks import Callback
from small_model import X, Y, refuses, small

from sk_pwiser._training._checked_components import check_compiler

# Compiled code draws other random numbers than eager code.
WITHOUT_DROPOUT = {"category_dropout": 0.0}


@pytest.fixture
def compiler(device):
    try:
        check_compiler(device, True)
    except ValueError as error:
        pytest.skip(str(error))


@pytest.fixture
def compilations(monkeypatch):
    """Record what is compiled, and run the graphs without C++ or Triton code."""
    compile_by_torch, recorded = torch.compile, []

    def compile_without_compiler(function, **kwargs):
        recorded.append((function, kwargs))
        return compile_by_torch(function, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", compile_without_compiler)
    return recorded


@pytest.mark.slow
@pytest.mark.parametrize("network", ["shared_bottom", "stem"])
def test_compiled_training_gives_the_same_network(compilations, network):
    params = {
        "network": network,
        "network_params": None,
        "early_stopping": True,
        "encoding_params": WITHOUT_DROPOUT,
    }
    eager = small(**params).fit(X, Y)
    assert not compilations
    model = small(compile=True, **params).fit(X, Y)
    network, options = compilations[-1]
    assert network is model.net_.module_
    assert options == {"mode": "default"}
    assert_allclose(model.predict_proba(X), eager.predict_proba(X), rtol=1e-5)
    assert_allclose(
        model.history_[:, "valid_loss"], eager.history_[:, "valid_loss"], rtol=1e-5
    )


@pytest.mark.slow
def test_predictions_pickles_and_further_training(compilations):
    model = small(compile="reduce-overhead").fit(X, Y)
    assert compilations[-1][1] == {"mode": "reduce-overhead"}
    copy = pickle.loads(pickle.dumps(model))
    n_compiled = len(compilations)
    assert_allclose(copy.predict_proba(X), model.predict_proba(X), rtol=0)
    assert len(compilations) == n_compiled
    copy.partial_fit(X, Y)
    assert copy.n_iter_ == 3
    assert compilations[-1][0] is copy.net_.module_


@pytest.mark.parametrize(("mode", "copies"), [(True, 0), ("reduce-overhead", 1)])
def test_what_outlives_a_step_is_not_in_the_memory_of_a_graph(
    compilations, mode, copies
):
    """The next step of a CUDA graph writes its outputs to the same memory."""

    class Kept(Callback):
        def on_batch_end(self, net, y_pred, training, **kwargs):
            if training:
                names.append(y_pred.grad_fn.name())

    names = []
    small(compile=mode, callbacks=[Kept()], max_epochs=1).fit(X, Y)
    assert names
    assert all(("Clone" in name) == copies for name in names)


# torch raises it while it looks for compilers.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_real_compiler(compiler):
    params = {"encoding_params": WITHOUT_DROPOUT, "max_epochs": 1}
    eager = small(**params).fit(X, Y)
    model = small(compile=True, **params).fit(X, Y)
    assert_allclose(model.predict_proba(X), eager.predict_proba(X), rtol=1e-4)


def test_weightings_of_gradients_are_refused(earlier):
    earlier.set_params(compile=True, weighting="nash")
    message = "compile=True requires .* weighting='nash' needs one backward pass per "
    refuses(earlier, ValueError, f"{message}task")


def test_weightings_of_gradients_with_one_task(compilations):
    assert small(compile=True, weighting="nash").fit(X, Y["click"]).n_iter_ == 2


def test_a_machine_without_a_compiler(earlier, monkeypatch, device):
    def fail(function, **kwargs):
        raise RuntimeError("no C++ compiler was found\nlong explanation")

    monkeypatch.setattr(torch, "compile", fail)
    earlier.set_params(compile=True)
    message = rf"compile=True, but torch cannot compile for '{device}' .*: no C\+\+ "
    refuses(earlier, ValueError, message)


def test_a_cpu_has_no_graphs():
    eager, model = small(device="cpu"), small(device="cpu", compile="graph")
    for fit in (model.fit, model.partial_fit):
        with pytest.warns(UserWarning, match="not possible with device='cpu'"):
            fit(X, Y)
        getattr(eager, fit.__name__)(X, Y)
        assert_allclose(model.predict_proba(X), eager.predict_proba(X), rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "graph"])
def test_on_cuda(mode):
    params = {
        "encoding_params": WITHOUT_DROPOUT,
        "device": "cuda",
        "early_stopping": True,
    }
    eager = small(**params).fit(X, Y)
    model = small(compile=mode, **params).fit(X, Y)
    assert_allclose(model.predict_proba(X), eager.predict_proba(X), rtol=1e-3)
