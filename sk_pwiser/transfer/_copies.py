"""Copies of fitted estimators with other weights."""

from copy import deepcopy

import torch
from torch.nn.modules.batchnorm import _BatchNorm


def with_state(estimator, state, rows):
    """Copy a fitted estimator, and replace its weights.

    Parameters
    ----------
    estimator : MultiTaskCTRCVRClassifier
        The fitted estimator; it is not changed.
    state : dict of str to Tensor
        Weights by the names of the network's parameters.
    rows : Impressions
        Encoded rows, over which statistics of batch normalisation are computed.

    Returns
    -------
    MultiTaskCTRCVRClassifier
        The copy, with an optimiser that has no state: moments of other weights do not
        fit these.
    """
    copy = deepcopy(estimator)
    net = copy.net_
    with torch.no_grad():
        for name, parameter in net.module_.named_parameters():
            parameter.copy_(state[name])
    net.optimizer_.state.clear()
    recompute_batch_norm(net, rows)
    return copy


def recompute_batch_norm(net, rows):
    """Compute the running statistics of batch normalisation anew, if there are any."""
    layers = [
        module for module in net.module_.modules() if isinstance(module, _BatchNorm)
    ]
    layers = [layer for layer in layers if layer.track_running_stats]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    net._set_training(False)
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.train()
    with torch.no_grad():
        for inputs, _ in net.get_iterator(rows):
            net.infer(inputs)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()
