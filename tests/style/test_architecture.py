"""The table of the folders shows the imports, from the top down."""

from graphlib import CycleError

import pytest
from docs_scripts import DOCS, load_script

architecture = load_script("architecture")

FILES = {
    "__init__.py": "from house._estimator import Estimator\n",
    "__main__.py": "import house.datasets\n",
    "_version.py": "",
    "_estimator/__init__.py": "from house._version import __version__\n",
    "networks/_mmoe.py": "import torch\nfrom house.networks import _base\n",
    "networks/_base.py": "def build():\n    from house import _utils\n",
    "datasets.py": "from house import metrics\n",
    "metrics.py": "from numpy import house\n",
    "_utils/__init__.py": "",
}


@pytest.fixture
def house(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "house"


def test_imports_of_every_form_are_read_and_ordered(house):
    imports = architecture.find_imports(house)
    assert imports == {
        "sk_pwiser": {"_estimator", "datasets"},
        "_estimator": set(),
        "networks": {"_utils"},
        "datasets": {"metrics"},
        "metrics": set(),
        "_utils": set(),
    }
    layers = [["sk_pwiser"], ["datasets", "networks"]]
    layers.append(["_estimator", "_utils", "metrics"])
    assert architecture.layers(imports) == layers


def test_a_circle_of_folders_is_an_error(house):
    # A name that is no folder is defined at the top.
    (house / "datasets.py").write_text("from house import Estimator\n")
    with pytest.raises(CycleError):
        architecture.layers(architecture.find_imports(house))


def test_the_table_holds_every_folder_below_those_that_import_it(tmp_path):
    architecture.write(tmp_path / "table.rst")
    text = (tmp_path / "table.rst").read_text(encoding="utf-8")
    imports = architecture.find_imports()
    assert {"networks", "losses", "weighting"} <= imports["_training"]
    for folder, targets in imports.items():
        place = text.index(f"``{folder}``")
        assert all(text.index(f"``{target}``") > place for target in targets)


@pytest.mark.parametrize("folder", architecture.find_imports())
def test_the_page_says_what_each_folder_holds(folder):
    page = (DOCS / "architecture.rst").read_text(encoding="utf-8")
    assert f"``{folder}``" in page
