"""Optional packages: how to install them, and fits without them."""

import re
import sys
import tomllib
from pathlib import Path

import pytest

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._utils._extras import REQUIREMENTS, import_extra

PYPROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
OWN = re.compile(r"sk_pwiser\[(.+)\]")


def packages_of(extra):
    """Return the packages of an extra, without versions."""
    found = set()
    for requirement in EXTRAS[extra]:
        own = OWN.fullmatch(requirement)
        if own:
            found |= packages_of(own[1])
        else:
            found.add(re.match(r"[\w-]+(\[.+\])?", requirement)[0])
    return found


@pytest.mark.parametrize("package", REQUIREMENTS)
def test_the_command_installs_what_the_extra_does(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"thing needs {package}: ") as caught:
        import_extra(f"{package}.part", "The thing")
    found = re.search(r"pip install (.+) \(extra \[(\w+)\]\)$", str(caught.value))
    named = {name.strip('"') for name in found[1].split()}
    assert any(name.split("[")[0] == package for name in named)
    assert named <= packages_of(found[2])
    # Of the extra "pandas", readers of Parquet files need one package only.
    assert package == "pyarrow" or named == packages_of(found[2])


class Missing:
    """Finder of modules that raises for packages as if they were not installed."""

    packages = frozenset({*REQUIREMENTS, "safetensors", "skops", "polars"})

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name in cls.packages:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_files_need_no_extra(monkeypatch, tmp_path):
    X, y = [[i % 5, i % 7] for i in range(60)], [i % 2 for i in range(60)]
    # At the first step of an optimiser, torch itself looks for optional packages.
    MultiTaskCTRCVRClassifier(max_epochs=1).fit(X, y)
    # None in sys.modules would not do: scikit-learn 1.6 takes it for pandas itself.
    monkeypatch.setattr(sys, "meta_path", [Missing, *sys.meta_path])
    for package in Missing.packages:
        monkeypatch.delitem(sys.modules, package, raising=False)
    model = MultiTaskCTRCVRClassifier(max_epochs=1, checkpoint_dir=tmp_path).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    again = MultiTaskCTRCVRClassifier.load(tmp_path / "model.safetensors")
    assert (again.predict_proba(X) == model.predict_proba(X)).all()
