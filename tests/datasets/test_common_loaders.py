"""What all loaders refuse before they read a file."""

import sys
from functools import partial

import pytest

from sk_pwiser.datasets import (
    load_ali_ccp,
    load_aliexpress,
    load_hillstrom,
    load_kuairand,
)

LOADERS = {
    "load_ali_ccp": load_ali_ccp,
    "load_aliexpress": partial(load_aliexpress, country="NL"),
    "load_hillstrom": load_hillstrom,
    "load_kuairand": load_kuairand,
}


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        *((name, {"subset": "valid"}, "'subset'.*'valid'") for name in LOADERS),
        *((name, {"path": 3}, "'path'") for name in LOADERS),
        ("load_ali_ccp", {"n_rows": 0}, "'n_rows'"),
        ("load_ali_ccp", {"multi_valued": ["1"]}, r"multi_valued .* got \['1'\]"),
        ("load_aliexpress", {"country": "XX"}, "'country'.*'XX'"),
        ("load_kuairand", {"second": "like"}, "'second'.*'like'"),
    ],
)
def test_bad_parameters_are_named(name, parameters, message):
    with pytest.raises(ValueError, match=message):
        LOADERS[name](**{"path": ".", **parameters})


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("load_ali_ccp", r"train\.csv.*tianchi\.aliyun"),
        ("load_aliexpress", r"train\.csv.*tianchi\.aliyun"),
        ("load_hillstrom", r"Kevin_.*minethatdata"),
        ("load_kuairand", r"user_features_pure\.csv.*zenodo"),
    ],
)
def test_missing_files_are_named_with_their_source(name, file, tmp_path):
    with pytest.raises(FileNotFoundError, match=file):
        LOADERS[name](tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "package"),
    [*((name, "pandas") for name in LOADERS), ("load_kuairand", "pyarrow")],
)
def test_the_extra_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"needs {package}: pip install .*pyarrow \(extra \[pandas\]"
    with pytest.raises(ImportError, match=message):
        LOADERS[name](".")
