"""The scripts of the documentation as modules, although `docs/` is no package."""

import importlib
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def load_script(name):
    """Return a script of `docs/` as a module; it may import its neighbours."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))
