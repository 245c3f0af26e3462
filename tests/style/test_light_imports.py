"""Folders that load neither torch nor skorch, in a process that has loaded neither."""

import json
import subprocess
import sys

import pytest

import sk_pwiser

LIGHT = [
    "calibration",
    "datasets",
    "delayed_feedback",
    "history",
    "inspection",
    "linear_model",
    "metrics",
    "model_selection",
]
# Imports all folders in one process. An import of torch fails, which names the folder
# and leaves nothing that would hide the same fault of the next one.
SCRIPT = """
import importlib, json, sys

HEAVY = {"torch", "skorch"}

class Refusal:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"loads {name}")

sys.meta_path.insert(0, Refusal())
reasons = {}
for folder in sys.argv[1:]:
    try:
        importlib.import_module(f"sk_pwiser.{folder}")
    except ImportError as error:
        reasons[folder] = str(error)
assert not HEAVY & sys.modules.keys()
print(json.dumps(reasons))
"""


def run(script, *arguments):
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def reasons():
    """Return why folders cannot be imported, also of one that needs torch."""
    return json.loads(run(SCRIPT, *LIGHT, "networks"))


@pytest.mark.parametrize("folder", LIGHT)
def test_a_folder_loads_no_torch(folder, reasons):
    assert folder not in reasons


def test_a_folder_that_loads_torch_is_seen(reasons):
    assert reasons["networks"] == "loads torch"


def test_the_package_lists_its_names_and_folders_before_it_loads_them():
    names = run("import sk_pwiser; print(*dir(sk_pwiser))").split()
    assert {*sk_pwiser.__all__, *LIGHT} <= set(names)


@pytest.mark.parametrize("name", sk_pwiser.__all__)
def test_names_are_imported_from_the_package(name):
    value = getattr(sk_pwiser, name)
    assert getattr(value, "__name__", name) == name
    # The next read does not call `__getattr__`.
    assert vars(sk_pwiser)[name] is value


@pytest.mark.parametrize("folder", sorted(sk_pwiser._FOLDERS))
def test_folders_are_attributes_of_the_package(folder):
    assert getattr(sk_pwiser, folder).__name__ == f"sk_pwiser.{folder}"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'sk_pwiser' has no attribute 'Forest'"):
        _ = sk_pwiser.Forest
