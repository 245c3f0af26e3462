"""Write the table of promises and their tests for the page on reliability.

python docs/promises.py          # writes docs/results/reliability.csv
"""

import csv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "results" / "reliability.csv"

PROMISES = {
    "Ctrl-C propagates out of `fit` and `partial_fit`, and the earlier fit stays": [
        "tests/_training/test_callbacks.py",
        "tests/_training/test_state.py",
        "tests/faults/test_signals.py",
    ],
    "A process that is killed loses one epoch at most, and resumes to the bit": [
        "tests/faults/test_kill.py",
        "tests/_training/test_checkpoint.py",
        "tests/_training/test_checkpoint_refusals.py",
    ],
    "Threads that predict while another one fits see one of the two models": [
        "tests/faults/test_concurrent.py",
    ],
    "Fits in threads, and other users of random numbers, do not see each other": [
        "tests/_training/test_randomness.py",
        "tests/_utils/test_random.py",
    ],
    "Loading a model file runs no code; damaged and hostile files are refused": [
        "tests/test_files_container.py",
        "tests/test_files_plain.py",
        "tests/_estimator/test_saving.py",
        "tests/export/test_skops.py",
        "tests/export/test_hostile_skops.py",
    ],
    "A full disk leaves the earlier file and no half one": [
        "tests/faults/test_full_disk.py",
    ],
    "Weights that are not finite are refused, and the earlier fit stays": [
        "tests/_training/test_state.py",
        "tests/_training/test_divergence.py",
    ],
    "Sentinels and heavy tails in numbers do not hide the other values": [
        "tests/_table/test_sentinels.py",
    ],
    "Bad parameters and data are refused by name before any work": [
        "tests/_estimator/test_bad_input.py",
        "tests/_estimator/test_bad_parameters.py",
        "tests/_training/test_order_of_checks.py",
    ],
    "`score`, scorers and folds check what `fit` checks": [
        "tests/_estimator/test_bad_scores.py",
    ],
    "Whatever is passed: probabilities inside (0, 1), or an error with the culprit": [
        "tests/fuzz",
    ],
    "Values of a column that were never seen in fit are reported": [
        "tests/_estimator/test_layouts.py",
    ],
    "The same seed gives the same result to the bit; refits continue to the bit": [
        "tests/_training/test_continued_fits.py",
        "tests/_training/test_resume.py",
        "tests/_utils/test_threads.py",
    ],
}


def write(path=OUTPUT):
    """Write the table of the page."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Promise", "Tests"])
        for promise, paths in PROMISES.items():
            writer.writerow([promise, ", ".join(f"``{path}``" for path in paths)])


if __name__ == "__main__":
    write()
