"""Trains a job as one of several processes, without Ray.

    python joint_training.py RANK SIZE FOLDER

The processes meet by a file in the folder; each writes its weights and figures, or its
error, to `RANK.pickle`.
"""

import pickle
import sys
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from sk_pwiser.distributed._ray_fit import run_job
from sk_pwiser.distributed._workers import Workers

CPU = torch.device("cpu")


def train(folder):
    """Return weights and figures of a process."""
    job = pickle.loads((folder / "job.pickle").read_bytes())
    result = run_job(job, Workers(CPU), checkpoints=None, verbose=0)
    pickle.dumps(result.net)  # its connections are left out
    state = result.net.criterion_.state_dict().values()
    return {
        "weights": [p.detach().cpu().numpy() for p in result.net.module_.parameters()],
        "offset": result.net.module_.level_offset,
        "state": [t.cpu().numpy() for t in state if isinstance(t, torch.Tensor)],
        "history": [dict(row) for row in result.net.history],
        "n_rows": result.n_rows,
    }


def main(rank, size, folder):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=120),
    )
    try:
        found = train(folder)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(found))
    # Otherwise threads of the group may outlive the interpreter, which is then aborted.
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
