"""The folders of the package, the arrows between them, and their registries."""

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest
from import_rules import (
    BLIND,
    FAMILIES,
    FOLDERS,
    JOINED_IN_ONE_FILE,
    find_violations,
    imports_of,
    registry_of,
)

import sk_pwiser

PACKAGE = Path(sk_pwiser.__file__).parent


def test_the_package_keeps_its_arrows():
    assert find_violations(PACKAGE) == []


def test_the_package_has_no_cycle_of_folders():
    """Folders can be ordered so that each imports earlier ones only."""
    folders = dict(FOLDERS)
    while folders:
        lowest = [
            name for name, folder in folders.items() if not {*folder.ours} & {*folders}
        ]
        assert lowest, f"a cycle among {sorted(folders)}"
        for name in lowest:
            del folders[name]


def test_training_is_the_only_folder_that_imports_skorch():
    users = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        for _, name, _ in imports_of(
            ast.parse(path.read_text(encoding="utf-8")),
            PACKAGE,
            path.relative_to(PACKAGE),
        )
        if name.split(".")[0] == "skorch"
    }
    assert users == {"_training"}


# A small package in which each folder has all the imports that it may have, and faults
# to add to it.


def allowed(name):
    """Return the lines of a file with all imports that a folder may have."""
    folder = FOLDERS[name]
    lines = [f"import {other}" for other in folder.others]
    # A fault is a second file of a folder that imports the other one.
    joined = {target for folder, target in JOINED_IN_ONE_FILE if folder == name}
    ours = [f"from house import {own}" for own in folder.ours if own not in joined]
    lines += [line.replace("__init__", "Estimator") for line in ours]
    lines += [
        "def f():",
        "    import math",
        *[f"    import {x}" for x in folder.lazily],
    ]
    return "\n".join([*lines, ""])


SOUND = {
    "networks/__init__.py": (
        "from house.networks._mmoe import MMoE\nNETWORKS: dict = {'mmoe': MMoE}\n"
    ),
    "networks/_mmoe.py": allowed("networks") + "class MMoE: ...\n",
    "losses/__init__.py": "from house.losses._bce import BCE\nLOSSES = {'bce': BCE}\n",
    "losses/_bce.py": allowed("losses") + "class BCE: ...\n",
    "weighting/__init__.py": "from .._utils import check\nWEIGHTINGS = {}\n",
    "_fit/__init__.py": "from house._training._net import Net\n",
    "_training/_data.py": "import house._table\nfrom house._table import encode\n",
    "_estimator/__init__.py": allowed("_estimator")
    + "from house.networks import NETWORKS, MultiTaskNetwork\n"
    "def check(x):\n"
    "    if isinstance(x, np.ndarray): return 'mmoe'\n"
    "    if isinstance(x, type): return issubclass(x, MultiTaskNetwork)\n"
    "    return x == 'auto'\n",
    "metrics/__init__.py": "from house.metrics._auc import auc, _part\n",
}
# A file and the lines that are added to it, with \\n between lines. Files without an
# entry above have the imports that their folder may have.
PLANTED = [
    line.split(": ", 1)
    for line in r"""
_utils.py: from house.networks import NETWORKS
_utils.py: from house import metrics
_utils.py: import sklearn
_utils.py: def f(s): return s in {'bce'}
_fit/__init__.py: from house import _estimator
_fit/__init__.py: import skorch
_fit/__init__.py: from house._utils import _checks
networks/_mmoe.py: import house.losses
networks/_mmoe.py: from sklearn import base
networks/_mmoe.py: import numpy as np
networks/_mmoe.py: import house._utils._checks
networks/_mmoe.py: from house._utils import _real
losses/_bce.py: from house.networks import MMoE
losses/_bce.py: from house import networks
losses/_bce.py: import skorch.utils
losses/_bce.py: import house
losses/_bce.py: from ..networks import MMoE
losses/_bce.py: def f():\n    import sklearn
losses/_bce.py: import importlib\nimportlib.import_module('house.networks')
losses/_bce.py: from .._utils._checks import x
_auc.py: import torch
_auc.py: from house.metrics import auc
_funnel.py: import torch
_funnel.py: from house.model_selection import split
_times.py: import torch
_times.py: import polars
history/__init__.py: def f():\n    import torch
history/__init__.py: from house import Estimator
history/__init__.py: import pandas
_responses.py: import torch
_responses.py: from house.metrics import auc
_session_critic.py: import torch
_session_critic.py: from house import Estimator
_session_critic.py: import house.weighting
weighting/_torchjd.py: import torchjd
weighting/_torchjd.py: from house.losses import BCE
_table/__init__.py: import torch
_table/__init__.py: from house._training import Net
_table/__init__.py: import polars as pl
_training/_net.py: from house import _estimator
_training/_net.py: from house.metrics import auc
_training/_net.py: from house.networks import MMoE
_training/_net.py: from house._table import encode
_training/_net.py: def f():\n    from house import _table
_training/_net.py: from house.networks import Base\ndef f(x): return isinstance(x, Base)
_training/_net.py: def f():\n    import pandas
_estimator/__init__.py: from skorch import NeuralNet
_estimator/__init__.py: from house.datasets import load
_estimator/__init__.py: from house._fit._fit import fit
_estimator/__init__.py: def f(x): return isinstance(x, (int, losses.BCE))
_estimator/__init__.py: def f(s): return s.n == 'mmoe'
_estimator/__init__.py: def f(s): return s in {'bce'}
_estimator/__init__.py: def f(s):\n    match s:\n        case 'bce': return 1
__init__.py: import skorch
__init__.py: from house._estimator._classifier import C
__main__.py: import torch
__main__.py: from house.model_selection import _folds
__main__.py: import pandas
__main__.py: from house import _training
_version.py: import sklearn
_model_files/__init__.py: import torch
callbacks.py: import torch
calibration.py: from house import Estimator
delayed_feedback.py: import torch
delayed_feedback.py: from house import Estimator
datasets/_files.py: import pandas
datasets/_files.py: from house.metrics import auc
inspection/__init__.py: from matplotlib import pyplot
inspection/__init__.py: from house import _training
inspection/__init__.py: from house.metrics import _auc
metrics/_auc.py: from house import Estimator
metrics/_auc.py: import torch
metrics/_auc.py: import pandas as pd
model_selection/__init__.py: def f():\n    import torch
model_selection/__init__.py: from house import Estimator
model_selection/__init__.py: from house.losses import LOSSES
model_selection/__init__.py: from house.metrics import _auc
linear_model/__init__.py: import torch
linear_model/__init__.py: from house._training import Net
export/__init__.py: import onnx
export/__init__.py: import skorch
transfer/__init__.py: from house.networks._mmoe import M
transfer/__init__.py: from house import export
distributed/__init__.py: import ray
distributed/__init__.py: from house._fit import _fit
""".strip().splitlines()
]
for path, _ in PLANTED:
    SOUND.setdefault(path, allowed(path.split("/")[0].removesuffix(".py")))


def build(folder, files):
    for name, text in files.items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "house"


def test_every_folder_has_a_planted_fault():
    folders = {path.split("/")[0].removesuffix(".py") for path, _ in PLANTED}
    assert folders == FOLDERS.keys()
    assert {*BLIND, *sum(JOINED_IN_ONE_FILE, ())} <= FOLDERS.keys()


def test_a_sound_package_has_no_violation(tmp_path):
    assert find_violations(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize(("name", "lines"), PLANTED)
def test_a_planted_fault_is_found(tmp_path, name, lines):
    text = SOUND[name] + lines.replace(r"\n", "\n") + "\n"
    package = build(tmp_path, SOUND | {name: text})
    violations = find_violations(package)
    assert violations
    assert all(name in violation for violation in violations)


def test_a_folder_without_an_entry_is_found(tmp_path):
    package = build(tmp_path, SOUND | {"helpers.py": "import math\n"})
    assert find_violations(package) == ["helpers.py: no entry in FOLDERS for helpers"]


# Registries.

BASES = {
    "networks": ("MultiTaskNetwork",),
    "losses": ("MultiTaskLoss",),
    "weighting": ("TaskWeighting", "GradientWeighting"),
}


def concrete_classes(folder, base, *further_bases):
    """Return the public classes in a folder that derive from its base."""
    modules = [
        importlib.import_module(info.name)
        for info in pkgutil.walk_packages(folder.__path__, f"{folder.__name__}.")
    ]
    return {
        cls
        for module in modules
        for name, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, base)
        and cls not in (base, *further_bases)
        and cls.__module__ == module.__name__
        and not name.startswith("_")
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_every_class_of_a_family_is_registered_and_exported(family):
    folder = importlib.import_module(f"sk_pwiser.{family}")
    registry = getattr(folder, FAMILIES[family])
    bases = [getattr(folder, name) for name in BASES[family]]
    classes = concrete_classes(folder, *bases)
    assert set(registry.values()) == classes
    assert {*BASES[family], FAMILIES[family]} < set(folder.__all__)
    assert {cls.__name__ for cls in classes} < set(folder.__all__)
    # The search for violations reads the registry from the source: both must agree.
    written = registry_of(PACKAGE, family)
    assert {k: v.__name__ for k, v in registry.items()} == written
