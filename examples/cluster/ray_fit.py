"""
Several workers with Ray
========================

Two workers train the same estimator as a fit in one process would. Without an address,
Ray is started on this machine, and stopped at the end.
"""

import tempfile
from pathlib import Path

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import ParquetImpressions, make_ctr_cvr
from sk_pwiser.distributed import fit

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = make_ctr_cvr(20_000, ctr=0.3, cvr=0.3, random_state=0)
        (folder / "log").mkdir()
        table = data.data.join(data.target)
        for day in range(4):
            rows = table[5_000 * day : 5_000 * (day + 1)]
            rows.to_parquet(folder / "log" / f"day-{day}.parquet")
        log = ParquetImpressions(folder / "log", list(data.data), list(data.target))

        model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
        fit(model, log, num_workers=2, storage_path=folder / "runs")

        # An ordinary fitted estimator.
        print(f"mean AUC {model.score(data.data, data.target):.3f}")
