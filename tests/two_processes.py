"""Programs of the tests that run as two processes at once."""

import subprocess
import sys
from pathlib import Path


def run_two(program, folder, *arguments, n_processes=2):
    """Run `program RANK *arguments FOLDER` with the ranks 0 and 1, until both end."""
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name(program))]
    processes = [
        subprocess.Popen(
            [*command, str(rank), *arguments, str(folder)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n_processes)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert not any(process.returncode for process in processes), errors
