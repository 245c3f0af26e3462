"""Programs in processes of their own that import the helpers of the tests."""

import os
import subprocess
import sys
from pathlib import Path


def start(program, *arguments):
    """Start a Python program; its standard output is a pipe of text."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    search_path = os.pathsep.join(filter(None, paths))
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": search_path},
    )


def finish(process):
    """Return what a program printed; it must have ended without an error."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return output
