"""Random rows, which tell how a training has moved the level of rows unlike its own."""

from functools import partial
from typing import Any

import torch

from sk_pwiser.networks import NetworkOutput, random_inputs

N_RANDOM_ROWS = 256


def random_output(net: Any) -> NetworkOutput:
    """Return the heads of a net for random rows, the same ones in each call.

    They are at the reference of an exposure, neither composed nor of the full log.
    """
    codes, numeric, bags = random_inputs(net.module_, N_RANDOM_ROWS)
    network = partial(net.module_, composes=False)
    inputs = [codes, numeric] if bags is None else [codes, numeric, bags]
    net._set_training(False)
    with torch.no_grad():
        output: NetworkOutput = network(*inputs)
    return output
