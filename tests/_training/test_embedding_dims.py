"""Embeddings whose width depends on the number of values."""

import numpy as np
import pytest
from small_model import X, Y, refuses, small

from sk_pwiser.networks import NETWORKS
from sk_pwiser.networks._numeric_inputs import NumericInputs

TABLE = X.assign(flag=np.arange(len(X)) % 2 == 0, id=np.arange(len(X)) % 150).astype(
    {"id": "category"}
)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_with_automatic_widths(network):
    model = small(network=network, network_params=None, embedding_dim="auto")
    model.set_params(target_encoding=False, max_epochs=1).fit(TABLE, Y)
    sizes = model._result.schema.encoder.cardinalities_
    dims = [min(16, round(1.6 * n**0.56)) for n in sizes]
    assert {min(dims), max(dims)} == {3, 16}  # 4 codes of the flag, 152 of the id
    layer = model.net_.module_.input_layer
    spec = model.net_.module_.spec
    bins = spec.numeric_bins, spec.bin_scales
    assert layer.width == sum(dims) + len(NumericInputs(*bins, sum(dims)).owners)
    p = model.predict_proba(TABLE)
    assert p.shape == (len(X), 2)
    assert np.isfinite(p).all()


def test_products_of_unequal_widths_are_refused_before_training():
    model = small(embedding_dim="auto")
    model.set_params(network_params={"interaction": "fm"})
    message = "interaction='fm' requires embeddings of equal width; set embedding_dim"
    refuses(model, ValueError, message)
    model.set_params(embedding_dim="wide", network_params=None)
    refuses(model, ValueError, "'embedding_dim' parameter.*'auto'.*Got 'wide'")
