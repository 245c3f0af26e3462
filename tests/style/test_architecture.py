"""The table of the folders shows the imports, from the top down."""

from graphlib import CycleError
from pathlib import Path

import architecture
import pytest

IMPORTS = architecture.find_imports()
PAGE = Path(__file__).parents[2] / "docs" / "architecture.rst"


def test_the_table_holds_every_folder_below_those_that_import_it(tmp_path):
    architecture.write(tmp_path / "table.rst")
    text = (tmp_path / "table.rst").read_text(encoding="utf-8")
    assert {"networks", "losses", "weighting"} <= IMPORTS["_training"]
    assert "_command" in IMPORTS["sk_pwiser"]  # of __main__.py
    for folder, targets in IMPORTS.items():
        place = text.index(f"``{folder}``")
        assert all(text.index(f"``{target}``") > place for target in targets)


def test_a_circle_of_folders_is_an_error(tmp_path):
    # A name that is no folder is defined at the top.
    files = {
        "__init__.py": "from house.networks import MMoE\n",
        "networks/_mmoe.py": "def f():\n    import house.losses\n",
        "losses.py": "from house import Estimator\n",
    }
    for name, text in files.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with pytest.raises(CycleError):
        architecture.layers(architecture.find_imports(tmp_path / "house"))


@pytest.mark.parametrize("folder", IMPORTS)
def test_the_page_says_what_each_folder_holds(folder):
    assert f"``{folder}``" in PAGE.read_text(encoding="utf-8")
