"""The generators of a fit, and dropout that draws from them."""

import pickle
from threading import Thread

import pytest
import torch

from sk_pwiser._utils._random import (
    Generators,
    active,
    draws_globally,
    generator_on,
    global_states,
    seeded_globally,
)
from sk_pwiser.networks import MMoE, NetworkSpec
from sk_pwiser.networks._layers import drop
from sk_pwiser.weighting import Nash

CPU = torch.device("cpu")


def draw(n=5):
    return torch.rand(n, generator=generator_on(CPU)).tolist()


def test_there_is_no_generator_outside_of_a_fit():
    assert generator_on(CPU) is None
    with active(Generators(0)):
        assert generator_on(CPU) is not None
        with active(Generators(1)):
            inner = draw()
        assert draw() != inner
    assert generator_on(CPU) is None


def test_generators_are_inactive_after_an_error():
    with pytest.raises(RuntimeError), active(Generators(0)):
        raise RuntimeError
    assert generator_on(CPU) is None


def test_other_threads_have_no_generator_of_this_one():
    found = []
    with active(Generators(0)):
        thread = Thread(target=lambda: found.append(generator_on(CPU)))
        thread.start()
        thread.join()
    assert found == [None]


def test_numbers_depend_on_the_seed_and_continue():
    generators = Generators(3)
    with active(generators):
        first = draw()
    with active(generators):
        second = draw()
    with active(Generators(3)):
        assert [draw(), draw()] == [first, second]
    assert first != second


@pytest.mark.parametrize("with_generator", [False, True])
def test_dropout(with_generator):
    inputs = torch.randn(200, 50, dtype=torch.float64)
    if with_generator:
        with active(Generators(0)):
            outputs = drop(inputs, 0.3, training=True)
    else:
        outputs = drop(inputs, 0.3, training=True)
    is_kept = outputs != 0
    assert is_kept.double().mean().item() == pytest.approx(0.7, abs=0.02)
    torch.testing.assert_close(outputs[is_kept], inputs[is_kept] / 0.7)
    assert drop(inputs, 0.3, training=False) is inputs
    assert drop(inputs, 0.0, training=True) is inputs


def test_gradients_of_dropout():
    inputs = torch.randn(100, requires_grad=True)
    with active(Generators(0)):
        outputs = drop(inputs, 0.5, training=True)
    outputs.sum().backward()
    torch.testing.assert_close(inputs.grad, 2.0 * (outputs != 0))


def test_seeded_globally_restores_the_state():
    state = torch.random.get_rng_state()
    with seeded_globally(1, CPU):
        first = torch.rand(3)
        with seeded_globally(1, CPU):
            assert torch.equal(torch.rand(3), first)
        second = torch.rand(3)
    with seeded_globally(1, CPU):
        assert torch.equal(torch.rand(3), first)
        assert torch.equal(torch.rand(3), second)
    with pytest.raises(ZeroDivisionError), seeded_globally(2, CPU):
        _ = int(torch.rand(3).sum()) / 0
    assert torch.equal(torch.random.get_rng_state(), state)


def test_seeded_globally_on_an_accelerator(accelerator):
    states, draws = global_states(accelerator), []
    assert len(states) == 2
    for _ in range(2):
        with seeded_globally(1, accelerator):
            draws.append(torch.rand(3, device=accelerator))
    assert torch.equal(*draws)
    for before, after in zip(states, global_states(accelerator), strict=True):
        assert torch.equal(before, after)


def test_generators_are_kept_in_copies(device):
    generators = Generators(3)
    generator = generators.on(device)
    torch.empty(5, device=device).uniform_(generator=generator)
    again = pickle.loads(pickle.dumps(generators)).on(device)
    assert torch.equal(again.get_state(), generator.get_state())
    # Copies of earlier versions contain tensors.
    tensors = {str(device): generator.get_state()}
    earlier = Generators(0)
    earlier.__setstate__({"seed": 3, "states": tensors})
    assert torch.equal(earlier.on(device).get_state(), generator.get_state())


def test_modules_that_may_draw_from_global_generators():
    class Own(torch.nn.Module):
        pass

    network = MMoE(NetworkSpec([3], 1, 4, [0.5, 0.1]), dropout=0.5)
    assert not draws_globally(network, Nash(2))
    assert draws_globally(network, Own())
    assert draws_globally(torch.nn.Sequential(Own()))


def test_a_pickle_may_name_devices_that_are_not_present(monkeypatch):
    state = Generators(0).__getstate__()
    state["states"]["cuda:7"] = torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    generators = Generators(1)
    generators.__setstate__(state)
    assert generators.seed == 0
