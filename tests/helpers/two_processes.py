"""Functions of the tests that run in several processes at once, which train together.

    python two_processes.py RANK SIZE FOLDER MODULE

The processes meet by a file in the folder, and each writes what `run` of the module
returns to `RANK.pickle`.
"""

import importlib
import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from sk_pwiser.distributed._workers import Workers


def run_jointly(module, folder, n_processes=2):
    """Return what `module.run` returned in each process."""
    command, others = [sys.executable, "-W", "ignore", __file__], [str(folder), module]
    processes = [
        subprocess.Popen(
            [*command, str(rank), str(n_processes), *others],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(n_processes)
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert not any(process.returncode for process in processes), errors
    files = [folder / f"{rank}.pickle" for rank in range(n_processes)]
    return [pickle.loads(file.read_bytes()) for file in files]


def main(rank, size, folder, module):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=int(rank),
        world_size=int(size),
        timeout=timedelta(seconds=120),
    )
    workers = Workers(torch.device("cpu"))
    found = importlib.import_module(module).run(Path(folder), workers)
    Path(folder, f"{rank}.pickle").write_bytes(pickle.dumps(found))
    # Otherwise threads of the group may outlive the interpreter, which is then aborted.
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
