"""Files of some kilobytes that name large networks are refused at once."""

import resource
import sys

import pytest
from small_model import X, Y, small

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._model_files import read_file, write_file


def peak_in_bytes():
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    small().fit(X, Y).save(path)
    return read_file(path)


@pytest.mark.parametrize(
    "units",
    [[20_000, 20_000], [20_000] * 100, [1] * 50_000],
    ids=["wide", "deep", "narrow"],
)
def test_networks_that_are_larger_than_the_file_are_refused(content, tmp_path, units):
    values, arrays = content
    settings = values["result"]["settings"]["items"]
    params = {"tower_units": {"~": "tuple", "items": units}}
    crafted = values | {
        "result": values["result"]
        | {
            "settings": values["result"]["settings"]
            | {"items": settings | {"network_params": params}}
        }
    }
    write_file(tmp_path / "crafted", crafted, arrays)
    before = peak_in_bytes()
    with pytest.raises(ValueError, match=r"weights do not fit .* larger network"):
        MultiTaskCTRCVRClassifier.load(tmp_path / "crafted")
    assert peak_in_bytes() < before + 200 * 2**20
