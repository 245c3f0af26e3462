"""BCE and PWiseR with every network, on real and generated impressions.

    python benchmarks/paper_table.py                    # prints the table
    python benchmarks/paper_table.py --data engage      # prints a part of it
    python benchmarks/paper_table.py --run --jobs 2     # runs what is missing
    python benchmarks/paper_table.py --run --data rare --networks mmoe --seeds 2

The data are read from the folder that SK_PWISER_DATA names; data sets whose files are
absent are left out. Every finished fit is appended to the CSV file, and fits that it
holds are not run again, so an interrupted run continues where it stopped.

There are two blocks. In the first, "embeddings", the networks read embeddings of the
category columns and the numbers, as in the paper. In the second, "target-encoding", the
estimator adds target statistics; it has the data sets with columns of many values and
three networks.

A cell is a network on a data set. BCE and PWiseR have the same rows, seeds and
settings: the defaults of the estimator, except for at most 15 epochs and a patience of
one epoch, which bound the time, and numbers in at most 16 bins, without scores.
KuaiRand has all networks and three second tasks: `engage` (3.3 %), `long` (31 %) and
`rare`, a follow, comment or forward (0.4 %). The other data sets have three networks.
The seed selects the initial weights, the rows of early stopping and the order of the
rows; the split is fixed, so that intervals on real data do not cover the noise of the
test rows. Generated impressions are new for each seed, and their figures are
expectations over the labels.

The weight of PWiseR is chosen per data set among 0.1, 0.3 and 1, on validation rows,
with `shared_bottom`: the best AUC, averaged over the tasks and seeds. Validation rows
are the last day of the training rows on KuaiRand and 30 % of them elsewhere. The
columns of the table are BCE, the chosen weight ("tuned") and the default weight.

CTR is the first task of the funnel, CTCVR the last; the AUC of CVR is over the rows of
the first task. The calibration error (ECE) has 20 bins of equally many rows. The
grouped AUC is the mean over users with both classes, weighted by their rows.
"""

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from _paper_cells import (
    BLOCKS,
    DATA,
    ENCODED,
    FIRST_BLOCK,
    KEY,
    LARGE,
    MAX_EPOCHS,
    SECOND_BLOCK,
    Cell,
    networks_of,
    run_cell,
    test_cells,
    tuning_cells,
)
from _paper_results import append, chosen_weight, format_table, read
from _real_tables import load_tables
from joblib import Parallel, delayed

from sk_pwiser.networks import NETWORKS

OUTPUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "paper_table.csv"


def finished(path):
    """Return the cells in the file with their seconds."""
    if not path.exists():
        return {}
    rows = read(path)
    keys = rows[list(KEY)].itertuples(index=False)
    return dict(zip((Cell(*key) for key in keys), rows["seconds"], strict=True))


def estimate(cells, seconds, jobs):
    """Return the expected seconds of some cells, from those that are finished."""
    by_kind = defaultdict(list)
    for cell, spent in seconds.items():
        for kind in ((cell.data, cell.network), cell.network, None):
            by_kind[kind].append(spent)
    total = 0.0
    for cell in cells:
        kinds = ((cell.data, cell.network), cell.network, None)
        known = next((by_kind[kind] for kind in kinds if kind in by_kind), [np.nan])
        total += np.mean(known)
    return total / jobs


def attempt(cell, path, max_epochs, threads):
    """Return a cell with its row, or with the message of the error."""
    try:
        return cell, run_cell(cell, path, max_epochs, threads)
    except Exception as error:  # one cell must not end a run of hours
        return cell, f"{type(error).__name__}: {error}"


def run(cells, arguments, path):
    """Run the cells that the file does not hold yet."""
    seconds = finished(arguments.output)
    cells = [cell for cell in cells if cell not in seconds]
    started = time.perf_counter()
    work = (
        delayed(attempt)(cell, path, arguments.max_epochs, arguments.threads)
        for cell in cells
    )
    # Results arrive in the order of the cells, each as soon as it is ready.
    rows = Parallel(n_jobs=arguments.jobs, return_as="generator")(work)
    for number, (cell, row) in enumerate(rows, start=1):
        label = " ".join(str(value) for value in cell if value != "")
        if isinstance(row, str):
            print(f"[{number}/{len(cells)}] {label}: failed, {row}", flush=True)
            continue
        append(arguments.output, row)
        seconds[cell] = float(row["seconds"])
        left = estimate(cells[number:], seconds, arguments.jobs) / 60
        spent = (time.perf_counter() - started) / 60
        print(
            f"[{number}/{len(cells)}] {label}: AUC {float(row['ctr_auc']):.4f} / "
            f"{float(row['ctcvr_auc']):.4f}, {row['epochs']} epochs, "
            f"{row['seconds']} s; {spent:.0f} min, about {left:.0f} min left",
            flush=True,
        )


def present_data(names, path):
    """Return the names whose files are there; print the others.

    The large files are not read for that: their absence shows before reading.
    """
    present = []
    for name in names:
        try:
            if name in LARGE:
                _check_large(name, path)
            else:
                load_tables(name, path, "validation")
        except FileNotFoundError as error:
            print(f"{name}: absent, left out ({str(error).splitlines()[0]})")
        else:
            present.append(name)
    return present


def _check_large(name, path):
    from _ali_tables import check_files
    from _real_tables import ALIEXPRESS

    check_files(path, ALIEXPRESS.get(name))


def run_all(arguments):
    """Choose the weights on validation rows, then fit for the test rows."""
    path = os.environ.get("SK_PWISER_DATA")
    names = present_data(arguments.data, path)
    blocks = {FIRST_BLOCK: names, SECOND_BLOCK: [n for n in names if n in ENCODED]}
    for block in arguments.blocks:
        tuning = [
            cell
            for name in blocks[block]
            for cell in tuning_cells(block, name, arguments.seeds)
        ]
        run(tuning, arguments, path)
        cells = []
        for name in blocks[block]:
            weight = chosen_weight(read(arguments.output), block, name)
            if weight is None:
                print(f"{block}, {name}: no weight was chosen, left out")
                continue
            networks = [
                network
                for network in networks_of(block, name)
                if network in arguments.networks
            ]
            cells += test_cells(block, name, networks, weight, arguments.seeds)
        run(cells, arguments, path)


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", action="store_true", help="run the missing cells")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--blocks", nargs="+", choices=BLOCKS, default=list(BLOCKS))
    parser.add_argument(
        "--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS)
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--threads", type=int, default=1, help="threads per process")
    parser.add_argument("--max-epochs", type=int, default=MAX_EPOCHS)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="the CSV file")
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.run:
        run_all(arguments)
    if not arguments.output.exists():
        raise SystemExit(f"{arguments.output} does not exist yet: add --run")
    rows = read(arguments.output)
    rows = rows[rows["data"].isin(arguments.data)]
    for line in format_table(rows, arguments.blocks):
        print(line)


if __name__ == "__main__":
    main()
