"""Weightings that earlier versions had: names and files are refused in one line."""

import pytest
from small_model import X, Y, refuses, small

from sk_pwiser._model_files import read_file, write_file
from sk_pwiser.weighting import REMOVED, WEIGHTINGS

MESSAGE = r"weighting='{}' was removed\. Use 'equal', .*weighting='torchjd'.*'{}'"


@pytest.mark.parametrize("name", REMOVED)
def test_the_error_names_what_to_use(earlier, name):
    assert name not in WEIGHTINGS
    earlier.set_params(weighting=name)
    refuses(earlier, ValueError, MESSAGE.format(name, REMOVED[name]))


@pytest.mark.parametrize("name", REMOVED)
def test_aggregators_that_the_errors_name_exist(name):
    aggregation = pytest.importorskip("torchjd.aggregation")
    params = {"aggregator": REMOVED[name]}
    assert REMOVED[name] in aggregation.__all__
    small(weighting="torchjd", weighting_params=params, max_epochs=1).fit(X, Y)


def test_a_file_of_an_earlier_version_is_refused_in_one_line(tmp_path):
    path = tmp_path / "model"
    model = small(weighting="nash", max_epochs=1).fit(X, Y)
    model.save(path)
    values, arrays = read_file(path)
    values["params"]["weighting"] = "gradnorm"
    values["result"]["settings"]["items"]["weighting"] = "gradnorm"
    write_file(path, values, arrays)
    with pytest.raises(
        ValueError, match=r"model' cannot be loaded: weighting="
    ) as error:
        type(model).load(path)
    assert MESSAGE.format("gradnorm", "IMTLG").partition(".*")[0].replace("\\", "") in (
        str(error.value)
    )
    assert "\n" not in str(error.value)
    # No error of the insides is shown above it.
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
