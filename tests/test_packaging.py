"""What packages say of themselves: addresses, and the bounds of the conda recipe."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYPROJECT = ROOT / "pyproject.toml"
REPOSITORY = "https://github.com/Owner/name"

if not PYPROJECT.exists() or not (ROOT / ".ci").exists():
    pytest.skip("needs the checkout", allow_module_level=True)


def hook():
    pytest.importorskip("hatchling")
    path = ROOT / ".ci" / "project_urls.py"
    spec = importlib.util.spec_from_file_location("project_urls", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_addresses_follow_from_the_repository():
    urls = hook().project_urls(f"{REPOSITORY}/", "")
    pages = "https://owner.github.io/name"
    assert urls == {
        "Homepage": pages,
        "Documentation": pages,
        "Source": REPOSITORY,
        "Changelog": f"{REPOSITORY}/blob/main/CHANGES.md",
        "Issues": f"{REPOSITORY}/issues",
    }
    urls = hook().project_urls(REPOSITORY, "https://pages.example/")
    assert urls["Documentation"] == urls["Homepage"] == "https://pages.example"


def test_no_address_is_invented():
    assert hook().project_urls("", "") == {}
    with pytest.raises(ValueError, match="documentation must be set"):
        hook().project_urls("https://forge.example/owner/name", "")


def test_the_address_stands_in_one_place():
    hooks = tomllib.loads(PYPROJECT.read_text("utf-8"))["tool"]["hatch"]["metadata"]
    config = hooks["hooks"]["custom"]
    metadata = {}
    module = hook()
    module.ProjectUrls(str(ROOT), config).update(metadata)
    assert metadata["urls"].pop("Paper") == config["paper"]
    expected = module.project_urls(config["repository"], config["documentation"])
    assert metadata["urls"] == expected


def test_the_conda_recipe_has_the_lower_bounds_of_the_package():
    project = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]
    recipe = (ROOT / ".ci" / "conda" / "recipe.yaml").read_text("utf-8")
    run = recipe.split("  run:\n")[1].split("  run_constraints:\n")[0]
    bounds = dict(re.findall(r"- (\S+) >=([\d.]+)", run))
    bounds["torch"] = bounds.pop("pytorch")
    required = dict(line.split(">=") for line in project["dependencies"])
    assert bounds == required
    python = re.search(r'"([\d.]+)"', (ROOT / ".ci/conda/variants.yaml").read_text())
    assert f">={python[1]}" == project["requires-python"]
