"""Trains a job as one of several processes, without Ray; see two_processes.py."""

import pickle

import torch

from sk_pwiser.distributed._ray_fit import run_job


def run(folder, workers):
    """Return weights and figures of a process, or its error."""
    job = pickle.loads((folder / "job.pickle").read_bytes())
    try:
        result = run_job(job, workers, checkpoints=None, verbose=0)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    pickle.dumps(result.net)  # its connections are left out
    state = result.net.criterion_.state_dict().values()
    return {
        "weights": [p.detach().cpu().numpy() for p in result.net.module_.parameters()],
        "offset": result.net.module_.level_offset,
        "state": [t.cpu().numpy() for t in state if isinstance(t, torch.Tensor)],
        "history": [dict(row) for row in result.net.history],
        "n_rows": result.n_rows,
    }
