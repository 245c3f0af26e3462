"""Interpolation of the networks' inputs in training: mixup behind the embeddings."""

from typing import Any

import torch
from scipy.special import betaincinv
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import Tensor, nn

from sk_pwiser._training._dataset import Batch
from sk_pwiser._utils import generator_on

CPU = torch.device("cpu")


class InputMixup(Callback):  # type: ignore[misc]
    """Mix the dense inputs and the labels of a share of the training batches.

    Each row of such a batch becomes `(1 - lam) * own + lam * partner`, with a random
    partner of the batch and one `lam` per batch, drawn from Beta(alpha, alpha). What is
    mixed is the output of the network's `input_layer`: category values have no mean,
    their embeddings do.

    Parameters
    ----------
    alpha : float
        Parameter of the Beta distribution, > 0.
    share : float
        Share of the batches that are mixed, in [0, 1].

    Notes
    -----
    Labels and weights are mixed such that the loss of a mixed row, which is linear in
    the label, is the mean of the losses with both labels. Losses with pairs of labels
    do not take mixed labels.

    References
    ----------
    Zhang, Cisse, Dauphin and Lopez-Paz (2018). "mixup: Beyond Empirical Risk
    Minimization." ICLR. :arxiv:`1710.09412`

    Verma et al. (2019). "Manifold Mixup." ICML. :arxiv:`1806.05236`
    """

    def __init__(self, alpha: float, share: float) -> None:
        self.alpha = alpha
        self.share = share
        self.lam = 0.0
        self.partners: Tensor | None = None
        self._handle: Any = None

    def on_train_begin(self, net: NeuralNet, **kwargs: Any) -> None:
        """Mix the outputs of the input layer from now on."""
        self._handle = net.module_.input_layer.register_forward_hook(self.mix_inputs)

    def on_train_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Stop mixing."""
        self._handle.remove()
        self._handle = self.partners = None

    def on_batch_begin(
        self, net: NeuralNet, batch: Batch, training: bool, **kwargs: Any
    ) -> None:
        """Draw `lam` and the partners, and mix labels and weights in place."""
        self.partners = None
        if not training:
            return
        generator = generator_on(CPU)
        is_mixed, u = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        if is_mixed >= self.share:
            return
        inputs, y = batch
        self.lam = float(betaincinv(self.alpha, self.alpha, u))
        self.partners = torch.randperm(len(y), generator=generator).to(y.device)
        # A training batch holds copies of the rows, which may be changed.
        weight = inputs.get("sample_weight")
        if weight is None:
            y.lerp_(y[self.partners], self.lam)
            return
        weighted = y * weight.unsqueeze(1)
        weighted = weighted.lerp(weighted[self.partners], self.lam)
        inputs["sample_weight"] = weight.lerp(weight[self.partners], self.lam)
        y.copy_(weighted / inputs["sample_weight"].unsqueeze(1))

    def on_batch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Mix no inputs that are computed between the batches."""
        self.partners = None

    def mix_inputs(self, _module: nn.Module, _args: Any, inputs: Tensor) -> Tensor:
        """Return mixed inputs, `(batch, width)` or `(n_tables, batch, width)`."""
        if self.partners is None:
            return inputs
        return inputs.lerp(inputs.index_select(-2, self.partners), self.lam)
