"""What each parameter of PWiseR does to AUC and to calibration, on generated data.

    python benchmarks/pwiser_parameters.py            # all of it, 5 seeds
    python benchmarks/pwiser_parameters.py --tables rare --seeds 3
    python benchmarks/pwiser_parameters.py --quick    # a smoke run

A seed is a world of impressions of its own with 30 % accidental clicks, half of them to
train on. All models of a seed see the same rows and start from the same weights, and
train to convergence: a tenth of the rows is held out, and the epoch with the least loss
on it is kept.

Generated impressions know their probabilities, so that a test needs no luck: AUC and
log loss are expectations, over what each row might have done. `interest` is the AUC of
the click head against genuine clicks, accidents left out.

The first line of a table is BCE: means over the seeds. The others are differences to
it, seed by seed: mean (standard deviation), AUC and log loss in thousandths. The last
two columns are no differences: mean prediction over true rate, where 1 is right.
"""

import argparse
import platform
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import log_loss, roc_auc_score

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr

DOCS = Path(__file__).resolve().parents[1] / "docs"


OF_THE_ESTIMATOR = ("pwiser_weight", "stratified_batches")


def pwiser(**params):
    """Return parameters of the estimator; those of the loss are told apart."""
    own = {name: params.pop(name) for name in OF_THE_ESTIMATOR if name in params}
    return {"loss": "pwiser", "loss_params": params, **own}


BCE = {"BCE": {"loss": "bce"}}
PAPER = {"surrogate": "squared_hinge", "score": "probability"}

# The default is weight 0.03, hinge, logits, margin 1 and the head of the last task.
HEADS = BCE | {
    f"{head}, weight {weight}": pwiser(
        pwiser_weight=weight, tasks="all" if head == "all" else [head]
    )
    for head in ("conversion", "click", "all")
    for weight in (0.01, 0.03, 0.1, 0.3)
}


def one_factor_at_a_time(head):
    """Return the models around weight 0.03 on one head."""
    changes = {
        "hinge, logit, margin 1": {},
        "squared hinge": {"surrogate": "squared_hinge"},
        "logistic": {"surrogate": "logistic"},
        "margin 0": {"margins": 0.0},
        "margin 3": {"margins": 3.0},
        "margins 0.5 and 2": {"margins": (0.5, 2.0)},
        "probability": {"score": "probability"},
        "probability, weight 0.3": {"score": "probability", "pwiser_weight": 0.3},
        "paper's form": PAPER,
        "paper's, weight 0.3": {**PAPER, "pwiser_weight": 0.3},
    }
    return BCE | {name: pwiser(tasks=[head], **c) for name, c in changes.items()}


FUNNEL = BCE | {
    f"{head}, {pairs}": pwiser(tasks=[head], pairs=pairs)
    for head in ("conversion", "visit", "click")
    for pairs in ("conversion", "funnel")
}
FAMILY = {
    **BCE,
    "pwiser": pwiser(),
    "combined_pair": {"loss": "combined_pair"},
    "jrc": {"loss": "jrc"},
    "focal": {"loss": "focal"},
    "pwiser, base focal": pwiser(base="focal"),
}
RARE = {
    **BCE,
    "BCE, stratified": {"loss": "bce", "stratified_batches": True},
    "weight 0.03": pwiser(),
    "weight 0.003": pwiser(pwiser_weight=0.003),
    "weight 0.001": pwiser(pwiser_weight=0.001),
    "memory 64, 0.03": pwiser(memory=64),
    "memory 64, 0.001": pwiser(memory=64, pwiser_weight=0.001),
    "stratified, 0.03": pwiser(stratified_batches=True),
    "stratified, 0.001": pwiser(stratified_batches=True, pwiser_weight=0.001),
}


def two_tasks(n_samples, seed):
    """Return impressions of which 20 % are clicked and 4 % convert."""
    return make_ctr_cvr(n_samples, ctr=0.2, cvr=0.2, click_noise=0.3, random_state=seed)


def rare_conversions(n_samples, seed):
    """Return impressions of which one in a thousand converts."""
    return make_ctr_cvr(
        3 * n_samples, ctr=0.05, cvr=0.02, click_noise=0.3, random_state=seed
    )


def three_tasks(n_samples, seed):
    """Return impressions with a visit between click and conversion.

    The genuine clicks, of which the conversions are a part, are the visits.
    """
    data = two_tasks(n_samples, seed)
    genuine = data.interest / data.ctr  # of a click
    chance = (genuine - data.cvr) / (1 - data.cvr)  # of one without conversion
    click, conversion = data.target.to_numpy().T
    drawn = np.random.default_rng(seed).uniform(size=n_samples) < chance
    data.target.insert(1, "visit", click * np.maximum(conversion, drawn))
    return data


# Title, impressions and models of each table.
TABLES = {
    "heads": ("The weight, and the head that takes the term", two_tasks, HEADS),
    "conversion": (
        "One factor at a time, term of weight 0.03 on the conversion head",
        two_tasks,
        one_factor_at_a_time("conversion"),
    ),
    "click": (
        "One factor at a time, term of weight 0.03 on the click head",
        two_tasks,
        one_factor_at_a_time("click"),
    ),
    "funnel": ("Three tasks: which head, which pairs", three_tasks, FUNNEL),
    "family": ("The family, at its defaults", two_tasks, FAMILY),
    "rare": ("One conversion in a thousand rows", rare_conversions, RARE),
}
COLUMNS = {
    "click AUC": 1000,
    "interest": 1000,
    "conv. AUC": 1000,
    "click loss": 1000,
    "conv. loss": 1000,
    "click": None,
    "conv.": None,
}


def expected(metric, probability, prediction):
    """Return a metric's expectation over the labels of rows with known probability."""
    labels = np.repeat([1, 0], len(probability))
    weight = np.concatenate([probability, 1 - probability])
    return metric(labels, np.tile(prediction, 2), sample_weight=weight)


def evaluate(params, data, seed):
    """Train on the first half of the rows; return the figures of the second half.

    The last figure is the share of the batches that had no pairs.
    """
    half = len(data.ctr) // 2
    model = MultiTaskCTRCVRClassifier(early_stopping=True, random_state=seed, **params)
    model.fit(data.data[:half], data.target[:half])
    click, *_, conversion = model.predict_proba(data.data[half:]).T.astype(float)
    ctr, interest = data.ctr[half:], data.interest[half:]
    ctcvr = ctr * data.cvr[half:]
    empty = [row.get("train_batches_without_pairs", np.nan) for row in model.history_]
    return (
        expected(roc_auc_score, ctr, click),
        expected(roc_auc_score, interest, click),
        expected(roc_auc_score, ctcvr, conversion),
        expected(log_loss, ctr, click),
        expected(log_loss, ctcvr, conversion),
        click.mean() / ctr.mean(),
        conversion.mean() / ctcvr.mean(),
        sum(empty) / sum(len(row["batches"]) for row in model.history_),
    )


class Report:
    """Prints lines, and keeps them for a file."""

    def __init__(self):
        self.lines = []

    def __call__(self, line):
        print(line, flush=True)
        self.lines.append(line.rstrip())


def cells(figures, reference):
    """Yield the cells of a row; `reference` is None in the row of BCE itself."""
    for column, scale in enumerate(COLUMNS.values()):
        values = figures[:, column]
        if scale is None:
            yield f"{values.mean():>7.2f}"
        elif reference is None:
            yield f"{values.mean():>13.4f}"
        else:
            change = scale * (values - reference[:, column])
            spread = change.std(ddof=1) if len(change) > 1 else np.nan
            yield f"{f'{change.mean():+.1f} ({spread:.1f})':>13}"


def run(report, name, n_samples, seeds, known):
    """Report one table; `known` keeps what several of them show."""
    title, generate, models = TABLES[name]
    worlds = [generate(n_samples, seed) for seed in range(seeds)]
    rates = np.mean([world.target.mean() for world in worlds], axis=0)
    rates = ", ".join(
        f"{t} {r:.2%}" for t, r in zip(worlds[0].target.columns, rates, strict=True)
    )
    report(title)
    report(f"{len(worlds[0].ctr) // 2:,} rows to train on; {rates}; {seeds} seeds")
    heads = [f"{c:>{7 if s is None else 13}}" for c, s in COLUMNS.items()]
    rare = name == "rare"
    report(f"{'':<24}" + "".join(heads) + rare * "   no pairs")
    reference = None
    for label, params in models.items():
        key = generate.__name__, repr(params)
        if key not in known:
            known[key] = np.array(
                [evaluate(params, data, seed) for seed, data in enumerate(worlds)]
            )
        figures = known[key]
        line = f"{label:<24}" + "".join(cells(figures, reference))
        if rare and params["loss"] == "pwiser":
            line += f"{figures[:, -1].mean():>11.0%}"
        report(line)
        reference = figures if reference is None else reference


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--rows", type=int, default=40_000, help="half of them to train"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--output", type=Path, help="folder; docs/ by default, nowhere with --quick"
    )
    parser.add_argument("--quick", action="store_true", help="few rows, one seed")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.seeds, arguments.rows = 1, 4_000
    elif arguments.output is None:
        arguments.output = DOCS
    return arguments


def main():
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, CPU")
    started, known = time.perf_counter(), {}
    for name in arguments.tables:
        print()
        report = Report()
        run(report, name, arguments.rows, arguments.seeds, known)
        if arguments.output is not None:
            path = arguments.output / "results" / f"pwiser_parameters_{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(report.lines) + "\n")
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
