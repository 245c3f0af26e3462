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


# A small package without a violation, and faults to add to it.

SOUND = {
    "__init__.py": "from house._estimator import Estimator\n"
    "from house._version import __version__\n",
    "__main__.py": "from house import Estimator\ndef read():\n    import pandas\n",
    "_version.py": "__version__ = '0'\n",
    "_utils/__init__.py": "from house._utils._checks import check\n",
    "_utils/_checks.py": "import torch\nfrom numbers import Real\n",
    "networks/__init__.py": (
        "from house.networks._mmoe import MMoE\nNETWORKS: dict = {'mmoe': MMoE}\n"
    ),
    "networks/_mmoe.py": (
        "from torch import nn\nfrom house._utils import check\nclass MMoE: ...\n"
    ),
    "losses/__init__.py": "from house.losses._bce import BCE\nLOSSES = {'bce': BCE}\n",
    "losses/_bce.py": "import math\nimport torch.nn.functional as F\nclass BCE: ...\n",
    "_auc.py": "import numpy\n",
    "_funnel.py": "from house._table import read_labels\n",
    "_responses.py": "from house._table import read_labels\n",
    "_times.py": "import numpy\nfrom house._table import is_missing\n",
    "history/__init__.py": "from house._table import encode\nimport house._times\n",
    "_row_weights.py": "import sklearn\nfrom house._utils import check\n",
    "weighting/__init__.py": "from .._utils import check\nWEIGHTINGS = {}\n",
    "weighting/_torchjd.py": "def f():\n    import torchjd\n",
    "_table/__init__.py": "import numpy\nfrom house._utils import check\n",
    "_streaming/__init__.py": "from house._training._net import Net\n",
    "_fit/__init__.py": "from house._training._net import Net\n",
    "_training/__init__.py": "from house._training._net import Net\n",
    "_training/_net.py": "import skorch\nfrom house.losses import MultiTaskLoss\n",
    "_training/_data.py": "import house._table\nfrom house._table import encode\n",
    "_estimator/__init__.py": (
        "import numpy as np\nfrom house import losses, _training\n"
        "from house._table import encode\n"
        "from house.networks import NETWORKS, MultiTaskNetwork\n"
        "def check(x):\n"
        "    if isinstance(x, np.ndarray): return 'mmoe'\n"
        "    if isinstance(x, type): return issubclass(x, MultiTaskNetwork)\n"
        "    return x == 'auto'\n"
    ),
    "metrics/__init__.py": "from house.metrics._auc import auc, _part\n",
    "metrics/_auc.py": "import sklearn\ndef frame():\n    import pandas\n",
    "model_selection/__init__.py": "import joblib\nfrom house.metrics import auc\n",
    "_files/__init__.py": "import numpy\n",
    "callbacks.py": "from house._training import fit\n",
    "calibration.py": "import numpy as np\n",
    "delayed_feedback.py": "from house._table import read_labels\n",
    "datasets/_files.py": "def read():\n    import pandas, pyarrow\n",
    "inspection/__init__.py": "def plot():\n    from matplotlib import pyplot\n",
    "linear_model/__init__.py": "import scipy\nfrom sklearn import linear_model\n",
    "export/__init__.py": "from house import Estimator\ndef f():\n    import onnx\n",
    "transfer/__init__.py": "import torch\nfrom house._estimator import Estimator\n",
    "distributed/__init__.py": "def f():\n    import ray\n",
}

# (what is wrong, the file, the lines that are added to it), by folder.
FAULTS = {
    "_utils": [
        ("imports a network", "_checks.py", "from house.networks import NETWORKS\n"),
        ("imports a tool", "_checks.py", "from house import metrics\n"),
        ("imports sklearn", "_checks.py", "import sklearn\n"),
        ("looks up a name", "_checks.py", "def f(s): return s in {'bce'}\n"),
    ],
    "_streaming": [
        ("imports the estimator", "__init__.py", "from house import _estimator\n"),
        ("imports skorch", "__init__.py", "import skorch\n"),
        ("imports private", "__init__.py", "from house._utils import _checks\n"),
    ],
    "_fit": [
        ("imports the estimator", "__init__.py", "from house import _estimator\n"),
        ("imports skorch", "__init__.py", "import skorch\n"),
        ("imports private", "__init__.py", "from house._utils import _checks\n"),
    ],
    "networks": [
        ("imports a loss", "_mmoe.py", "import house.losses\n"),
        ("imports sklearn", "_mmoe.py", "from sklearn import base\n"),
        ("imports numpy", "_mmoe.py", "import numpy as np\n"),
        ("imports a private module", "_mmoe.py", "import house._utils._checks\n"),
        ("imports a private name", "_mmoe.py", "from house._utils import _real\n"),
    ],
    "losses": [
        ("imports a network", "_bce.py", "from house.networks import MMoE\n"),
        ("imports the networks", "_bce.py", "from house import networks\n"),
        ("imports skorch", "_bce.py", "import skorch.utils\n"),
        ("imports the package", "_bce.py", "import house\n"),
        ("imports relatively", "_bce.py", "from ..networks import MMoE\n"),
        ("imports in a function", "_bce.py", "def f():\n    import sklearn\n"),
        (
            "imports by name",
            "_bce.py",
            "import importlib\nimportlib.import_module('house.networks')\n",
        ),
        ("imports relatively private", "_bce.py", "from .._utils._checks import x\n"),
    ],
    "_auc": [
        ("imports torch", "", "import torch\n"),
        ("imports a metric", "", "from house.metrics import auc\n"),
    ],
    "_funnel": [
        ("imports torch", "", "import torch\n"),
        ("imports splits", "", "from house.model_selection import split\n"),
    ],
    "_times": [
        ("imports torch", "", "import torch\n"),
        ("needs polars", "", "import polars\n"),
    ],
    "history": [
        ("imports torch", "__init__.py", "def f():\n    import torch\n"),
        ("imports the estimator", "__init__.py", "from house import Estimator\n"),
        ("needs pandas", "__init__.py", "import pandas\n"),
    ],
    "_responses": [
        ("imports torch", "", "import torch\n"),
        ("imports a scorer", "", "from house.metrics import auc\n"),
    ],
    "_row_weights": [
        ("imports torch", "", "import torch\n"),
        ("imports the estimator", "", "from house import Estimator\n"),
        ("imports a weighting", "", "import house.weighting\n"),
    ],
    "weighting": [
        ("needs torchjd", "_torchjd.py", "import torchjd\n"),
        ("imports a loss", "_torchjd.py", "from house.losses import BCE\n"),
    ],
    "_table": [
        ("imports torch", "__init__.py", "import torch\n"),
        ("imports training", "__init__.py", "from house._training import Net\n"),
        ("needs polars", "__init__.py", "import polars as pl\n"),
    ],
    "_training": [
        ("imports the estimator", "_net.py", "from house import _estimator\n"),
        ("imports metrics", "_net.py", "from house.metrics import auc\n"),
        ("imports a component", "_net.py", "from house.networks import MMoE\n"),
        ("imports the table twice", "_net.py", "from house._table import encode\n"),
        (
            "imports the table twice, lazily",
            "_net.py",
            "def f():\n    from house import _table\n",
        ),
        (
            "asks for the base class",
            "_net.py",
            "from house.networks import Base\ndef f(x): return isinstance(x, Base)\n",
        ),
        ("imports pandas", "_net.py", "def f():\n    import pandas\n"),
    ],
    "_estimator": [
        ("imports skorch", "__init__.py", "from skorch import NeuralNet\n"),
        ("imports datasets", "__init__.py", "from house.datasets import load\n"),
        ("imports private", "__init__.py", "from house._training._net import Net\n"),
        (
            "asks for a loss",
            "__init__.py",
            "def f(x): return isinstance(x, (int, losses.BCE))\n",
        ),
        ("compares a name", "__init__.py", "def f(s): return s.n == 'mmoe'\n"),
        ("looks up a name", "__init__.py", "def f(s): return s in {'bce'}\n"),
        (
            "matches a name",
            "__init__.py",
            "def f(s):\n    match s:\n        case 'bce': return 1\n",
        ),
    ],
    "__init__": [
        ("imports skorch", "", "import skorch\n"),
        ("imports private", "", "from house._estimator._classifier import C\n"),
    ],
    "__main__": [
        ("imports torch", "", "import torch\n"),
        ("imports private", "", "from house.model_selection import _folds\n"),
        ("needs pandas", "", "import pandas\n"),
        ("imports training", "", "from house import _training\n"),
    ],
    "_version": [("imports sklearn", "", "import sklearn\n")],
    "_files": [("imports torch", "__init__.py", "import torch\n")],
    "callbacks": [("imports torch", "", "import torch\n")],
    "calibration": [("imports the estimator", "", "from house import Estimator\n")],
    "delayed_feedback": [
        ("imports torch", "", "import torch\n"),
        ("imports the estimator", "", "from house import Estimator\n"),
    ],
    "datasets": [
        ("needs pandas", "_files.py", "import pandas\n"),
        ("imports another tool", "_files.py", "from house.metrics import auc\n"),
    ],
    "inspection": [
        ("needs matplotlib", "__init__.py", "from matplotlib import pyplot\n"),
        ("imports training", "__init__.py", "from house import _training\n"),
        ("imports private", "__init__.py", "from house.metrics import _auc\n"),
    ],
    "metrics": [
        ("imports the estimator", "_auc.py", "from house import Estimator\n"),
        ("imports torch", "_auc.py", "import torch\n"),
        ("needs pandas", "_auc.py", "import pandas as pd\n"),
    ],
    "model_selection": [
        ("imports torch", "__init__.py", "def f():\n    import torch\n"),
        ("imports the estimator", "__init__.py", "from house import Estimator\n"),
        ("imports a loss", "__init__.py", "from house.losses import LOSSES\n"),
        ("imports private", "__init__.py", "from house.metrics import _auc\n"),
    ],
    "linear_model": [
        ("imports torch", "__init__.py", "import torch\n"),
        ("imports training", "__init__.py", "from house._training import Net\n"),
    ],
    "export": [
        ("needs onnx", "__init__.py", "import onnx\n"),
        ("imports skorch", "__init__.py", "import skorch\n"),
    ],
    "transfer": [
        ("imports private", "__init__.py", "from house.networks._mmoe import M\n"),
        ("imports export", "__init__.py", "from house import export\n"),
    ],
    "distributed": [
        ("needs ray", "__init__.py", "import ray\n"),
        ("imports private", "__init__.py", "from house._training import _net\n"),
    ],
}
PLANTED = [
    pytest.param(
        f"{folder}/{file}" if file else f"{folder}.py", text, id=f"{folder} {what}"
    )
    for folder, faults in FAULTS.items()
    for what, file, text in faults
]


def build(folder, files):
    for name, text in files.items():
        path = folder / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder / "house"


def test_every_folder_has_a_planted_fault():
    assert FAULTS.keys() == FOLDERS.keys()
    assert all(FAULTS.values())
    assert {*BLIND, *sum(JOINED_IN_ONE_FILE, ())} <= FOLDERS.keys()
    # Otherwise a fault would be the first content of its folder.
    planted = {Path(param.values[0]).as_posix() for param in PLANTED}
    assert planted <= SOUND.keys()


def test_a_sound_package_has_no_violation(tmp_path):
    assert find_violations(build(tmp_path, SOUND)) == []


@pytest.mark.parametrize(("name", "text"), PLANTED)
def test_a_planted_fault_is_found(tmp_path, name, text):
    package = build(tmp_path, SOUND | {name: SOUND[name] + text})
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
