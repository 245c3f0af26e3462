"""The effect of each parameter of PWiseR on AUC and calibration, on generated data.

    python benchmarks/pwiser_parameters.py            # everything, 5 seeds
    python benchmarks/pwiser_parameters.py --seeds 3

Each seed generates new impressions, 30 % of whose clicks are accidental; half of them
are for training. All models of a seed are trained on the same rows from the same
initial weights, to convergence: a tenth of the rows is held out, and the weights of the
epoch with the lowest loss on it are kept.

The true probabilities of generated impressions are known: AUC and log loss are
expectations over the labels that each row could have had. `interest` is the AUC of the
click head against genuine clicks.

The first line of a table is BCE: means over the seeds. The others are differences to it
with the same seed: mean (standard deviation), AUC and log loss in thousandths. The last
two columns are not differences: they are the mean prediction over the true rate, and 1
is right.

Weights in the labels are values of `pwiser_weight`.
"""

import numpy as np
import pandas as pd
from _harness import (
    Report,
    expected_auc,
    expected_log_loss,
    make_parser,
    parse,
    rates_of,
)

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr


def pwiser(weight=1.0, stratified_batches=False, **loss_params):
    """Return parameters of the estimator."""
    return {
        "loss": "pwiser",
        "loss_params": loss_params,
        "pwiser_weight": weight,
        "stratified_batches": stratified_batches,
    }


BCE = {"BCE": {"loss": "bce"}}
PAPER = {"surrogate": "squared_hinge", "score": "probability"}

# By default: weight 1, hinge, logits, margin 1 and the head of the last task.
HEADS = BCE | {
    f"{head}, weight {weight:g}": pwiser(weight, tasks=[head])
    for head in ("conversion", "click")
    for weight in (0.1, 0.3, 1.0, 3.0)
}
HEADS["both, weight 1"] = pwiser(tasks="all")


def one_factor_at_a_time(head):
    """Return the models around weight 1 on one head."""
    changes = {
        "hinge, logit, margin 1": {},
        "squared hinge": {"surrogate": "squared_hinge"},
        "logistic": {"surrogate": "logistic"},
        "margin 0": {"margins": 0.0},
        "margin 3": {"margins": 3.0},
        "margins 0.5 and 2": {"margins": (0.5, 2.0)},
        "probability": {"score": "probability"},
        "probability, weight 10": {"score": "probability", "weight": 10.0},
        "paper's form": PAPER,
        "paper's, weight 10": {**PAPER, "weight": 10.0},
    }
    return BCE | {name: pwiser(tasks=[head], **c) for name, c in changes.items()}


FUNNEL = BCE | {
    f"{head}, {pairs}": pwiser(tasks=[head], pairs=pairs)
    for head in ("conversion", "visit", "click")
    for pairs in ("conversion", "funnel")
}
FAMILY = {
    **BCE,
    "pwiser": {"loss": "pwiser"},
    "combined_pair": {"loss": "combined_pair"},
    "jrc": {"loss": "jrc"},
    "focal": {"loss": "focal"},
    "pwiser, base focal": {"loss": "pwiser", "loss_params": {"base": "focal"}},
}


def two_tasks(n_samples, seed):
    """Return impressions; 20 % of them are clicked and 4 % convert."""
    return make_ctr_cvr(n_samples, ctr=0.2, cvr=0.2, click_noise=0.3, random_state=seed)


def three_tasks(n_samples, seed):
    """Return impressions with a visit between click and conversion.

    The visits are the genuine clicks, which include the conversions.
    """
    data = two_tasks(n_samples, seed)
    genuine = data.interest / data.ctr  # probability that a click is genuine
    chance = (genuine - data.cvr) / (1 - data.cvr)  # if it did not convert
    click, conversion = data.target.to_numpy().T
    drawn = np.random.default_rng(seed).uniform(size=n_samples) < chance
    data.target.insert(1, "visit", click * np.maximum(conversion, drawn))
    return data


# Title, impressions and models of each table.
TABLES = {
    "heads": ("The weight, and the head that takes the term", two_tasks, HEADS),
    "conversion": (
        "One factor at a time, term of weight 1 on the conversion head",
        two_tasks,
        one_factor_at_a_time("conversion"),
    ),
    "click": (
        "One factor at a time, term of weight 1 on the click head",
        two_tasks,
        one_factor_at_a_time("click"),
    ),
    "funnel": ("Three tasks: which head, which pairs", three_tasks, FUNNEL),
    "family": ("The family, at its defaults", two_tasks, FAMILY),
}
# The first five are compared with BCE, in thousandths.
N_COMPARED = 5
COLUMNS = (
    *("click AUC", "interest", "conv. AUC", "click loss", "conv. loss"),
    *("click", "conv."),
)


def evaluate(params, data, seed):
    """Train on the first half of the rows; return the figures of the second half."""
    half = len(data.ctr) // 2
    model = MultiTaskCTRCVRClassifier(early_stopping=True, random_state=seed, **params)
    model.fit(data.data[:half], data.target[:half])
    click, *_, conversion = model.predict_proba(data.data[half:]).T.astype(float)
    ctr, interest = data.ctr[half:], data.interest[half:]
    ctcvr = ctr * data.cvr[half:]
    return (
        expected_auc(ctr, click),
        expected_auc(interest, click),
        expected_auc(ctcvr, conversion),
        expected_log_loss(ctr, click),
        expected_log_loss(ctcvr, conversion),
        click.mean() / ctr.mean(),
        conversion.mean() / ctcvr.mean(),
    )


def cells(figures, reference):
    """Return the cells of a row; `reference` is None in the row of BCE."""
    compared, ratios = figures[:, :N_COMPARED], figures[:, N_COMPARED:]
    if reference is None:
        found = [f"{mean:.4f}" for mean in compared.mean(axis=0)]
    else:
        changes = pd.DataFrame(1000 * (compared - reference[:, :N_COMPARED]))
        pairs = zip(changes.mean(), changes.std(), strict=True)
        found = [f"{mean:+.1f} ({deviation:.1f})" for mean, deviation in pairs]
    return [*found, *(f"{ratio:.2f}" for ratio in ratios.mean(axis=0))]


def run(report, name, arguments, known):
    """Print one table; `known` holds the figures that several tables share."""
    title, generate, models = TABLES[name]
    seeds = range(arguments.seeds)
    n_rows = 4_000 if arguments.quick else 40_000
    data_sets = [generate(n_rows, seed) for seed in seeds]
    rates = rates_of(pd.concat([data_set.target for data_set in data_sets]), 2)
    size = f"{n_rows // 2:,} rows to train on"
    report.text("", title, f"{size}; {rates}; {arguments.seeds} seeds")
    report.table(COLUMNS)
    reference = None
    for label, params in models.items():
        key = generate.__name__, repr(params)
        if key not in known:
            pairs = zip(data_sets, seeds, strict=True)
            known[key] = np.array([evaluate(params, *pair) for pair in pairs])
        figures = known[key]
        report.row(label, cells(figures, reference))
        reference = figures if reference is None else reference


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.set_defaults(threads=1)
    arguments = parse(parser, seeds=1)
    known = {}
    for name in TABLES:
        report = Report(f"pwiser_parameters_{name}", arguments)
        run(report, name, arguments, known)
        report.save()


if __name__ == "__main__":
    main()
