"""The picture of the folders shows the imports, and its arrows point downwards."""

import importlib.util
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def load_script():
    path = DOCS / "architecture.py"
    spec = importlib.util.spec_from_file_location("architecture", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


architecture = load_script()


def test_arrows_point_downwards():
    layers = {name: folder.layer for name, folder in architecture.FOLDERS.items()}
    upwards = [
        (source, target)
        for source, target in architecture.find_arrows()
        if layers[source] >= layers[target]
    ]
    assert upwards == []


def test_the_main_arrows_are_found():
    assert {
        ("sk_pwiser", "_estimator"),
        ("_estimator", "_training"),
        ("_training", "networks"),
        ("_training", "losses"),
        ("_training", "weighting"),
        ("networks", "_utils"),
    } <= architecture.find_arrows()


FILES = {
    "__init__.py": "from house._estimator import Estimator\n",
    "__main__.py": "import house.datasets\n",
    "_version.py": "",
    "_estimator/__init__.py": "from house._version import __version__\n",
    "networks/_mmoe.py": "import torch\nfrom house.networks import _base\n",
    "networks/_base.py": "def build():\n    from house import _utils\n",
    "datasets.py": "from house import metrics, Estimator\n",
    "metrics.py": "from numpy import house\n",
    "_utils/__init__.py": "",
}


def test_imports_of_every_form_are_read(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "house" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert architecture.find_arrows(tmp_path / "house") == {
        ("sk_pwiser", "_estimator"),
        ("sk_pwiser", "datasets"),
        ("networks", "_utils"),
        ("datasets", "metrics"),
        ("datasets", "sk_pwiser"),
    }


def test_a_folder_without_a_place_is_an_error():
    with pytest.raises(ValueError, match=r"no line for \['attic'\]"):
        architecture.check_folders({*architecture.FOLDERS, "attic"})


def test_a_place_without_a_folder_is_an_error():
    with pytest.raises(ValueError, match=r"lines for \['metrics'\]"):
        architecture.check_folders(set(architecture.FOLDERS) - {"metrics"})


def test_the_picture_holds_every_folder_and_arrow(tmp_path):
    path = tmp_path / "generated" / "architecture.svg"
    architecture.write(path)
    root = ElementTree.parse(path).getroot()
    assert float(root.get("width")) <= 800
    texts = {text.text for text in root.iter(f"{SVG}text")}
    assert set(architecture.FOLDERS) <= texts
    titles = {line.find(f"{SVG}title").text for line in root.iter(f"{SVG}line")}
    arrows = architecture.find_arrows()
    assert titles == {f"{source} imports {target}" for source, target in arrows}


def test_boxes_lie_inside_the_picture_and_do_not_overlap():
    root = ElementTree.fromstring(architecture.draw([]))
    boxes = [
        tuple(float(rect.get(key)) for key in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SVG}rect")
    ]
    assert len(boxes) == len(architecture.FOLDERS)
    for x, y, width, height in boxes:
        assert x >= 0
        assert y >= 0
        assert x + width <= float(root.get("width"))
        assert y + height <= float(root.get("height"))
    for (x, y, width, height), (u, v, other_width, other_height) in combinations(
        boxes, 2
    ):
        assert (
            x + width < u
            or u + other_width < x
            or y + height < v
            or v + other_height < y
        )


@pytest.mark.parametrize("folder", architecture.FOLDERS)
def test_the_page_says_what_each_folder_holds(folder):
    page = (DOCS / "architecture.rst").read_text(encoding="utf-8")
    assert f"``{folder}``" in page
