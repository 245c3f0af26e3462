"""Amounts under an event: their order, their totals, and what they cost the events.

    pip install ".[benchmark]"
    SK_PWISER_DATA=/path/to/data python benchmarks/values.py --threads 1

The logs are those of `_value_logs.py`. A seed is another generated log, another split,
or, on KuaiRand, another fit. All models read the same training rows, from which they
take their own validation rows; the figures are those of the other rows.

`models`: "Gini, truth" is the normalised Gini of the predicted amounts per impression
and their true means, "Gini, amounts" that with the observed amounts, followed by the
mean difference to the probability times the mean amount in thousandths and its standard
error. "predicted/observed" is the ratio of the totals of the other rows,
"predicted/truth" that to the true means. Of the deciles with at least 100 events, "mean
error" and "largest error" are the relative differences of the totals to the true means,
or to the observed amounts. "seconds" is the processor time of a fit.

`events`: AUC and log loss of the events, without and with the value in the same fit,
the differences in thousandths, and the ratio of the processor time of three epochs.

`counts`: logs with few conversions, tested on 30,000 other rows. "worse" counts the
seeds in which the value orders rows worse than the probability times the mean amount.
"error" is the mean squared error of the logarithms of the predicted means given the
event, divided by that of the best constant.

`updates`: five later days of 6,000 rows, whose amounts are half as high again, in
`partial_fit`, and a fit with a `time_column` on a log whose last tenth is dearer.
Totals are compared with the true means of rows of the new level.

LightGBM has trees of 8 leaves of at least 100 rows, of 20 for the amounts given the
event, a learning rate of 0.05, and stops after 20 of at most 500 trees without a gain
on a tenth of the rows; ids of at least 100 values are replaced by their means
(`TargetEncoder`). The generalised linear model chooses its penalty in five folds.
"""

import warnings

import numpy as np
import pandas as pd
from _harness import (
    aucs,
    begin,
    in_thousandths,
    interleave,
    make_parser,
    mean_log_loss,
    processor_time,
    quartiles,
    seeds_of,
    spread,
)
from _value_logs import LOGS, N_CATEGORIES, TAILS, TITLES, generated
from _value_models import BAR, MODELS, OWN_MODELS, make_value_model

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.metrics import (
    normalized_gini,
    predicted_over_observed,
)

TABLES = ("models", "events", "counts", "updates")
# Deciles with fewer events have totals of chance.
LEAST_EVENTS = 100
N_CONVERSIONS = (25, 50, 100, 200, 500, 1_000)
CONVERSION_RATE = 0.05
N_DAYS = 5
DAY_ROWS = 6_000
NEW_PRICE = 1.5
QUICK_ROWS = 3_000


# ---------------------------------------------------------------- models


def decile_errors(log, predicted):
    """Return the relative errors of totals of deciles with enough events."""
    if np.ptp(predicted) == 0:
        return np.nan, np.nan
    reference = log.amounts_test if log.truth is None else log.truth
    happened = (log.Y_test[log.event] == 1).to_numpy()
    order = np.argsort(predicted, kind="stable")
    errors = []
    for rows in np.array_split(order, 10):
        if happened[rows].sum() >= LEAST_EVENTS:
            errors.append(abs(predicted[rows].sum() / reference[rows].sum() - 1))
    return (np.mean(errors), np.max(errors)) if errors else (np.nan, np.nan)


def figures_of_model(log, name, seed):
    """Fit a model; return its figures on the other rows."""
    seconds, model = processor_time(make_value_model(name, seed).fit, log)
    predicted = np.asarray(model.predict(log.X_test), dtype=float)
    amounts = log.amounts_test
    figures = {
        "Gini, amounts": normalized_gini(amounts, predicted),
        "predicted/observed": predicted_over_observed(amounts, predicted),
    }
    if log.truth is not None:
        figures["Gini, truth"] = normalized_gini(log.truth, predicted)
        figures["predicted/truth"] = predicted.sum() / log.truth.sum()
    mean_error, largest_error = decile_errors(log, predicted)
    return {
        **figures,
        "mean error": mean_error,
        "largest error": largest_error,
        "seconds": seconds,
    }


def compare_value_models(report, name, arguments):
    """Print the table of the models on one log."""
    records = {model: [] for model in MODELS}
    for seed in seeds_of(arguments):
        log = quick(LOGS[name](seed), arguments)
        for model, rows in records.items():
            rows.append(figures_of_model(log, model, seed))
    report.text("", caption_of(name, log, arguments))
    measures = ["Gini, truth"] if log.truth is not None else []
    measures.append("Gini, amounts")
    totals = ["predicted/truth"] if log.truth is not None else []
    totals += ["predicted/observed", "mean error", "largest error"]
    heads = [head for measure in measures for head in (measure, "to mean amount")]
    report.table([*heads, *totals, "seconds"])
    by_model = {model: pd.DataFrame(rows) for model, rows in records.items()}
    for model, figures in by_model.items():
        cells = []
        for measure in measures:
            change = figures[measure] - by_model[BAR][measure]
            is_bar = model == BAR
            cells.append(spread(figures[measure], 3))
            cells.append("" if is_bar else in_thousandths(change))
        cells += [spread(figures[total], 2) for total in totals]
        report.row(model, [*cells, spread(figures["seconds"], 1)])


def quick(log, arguments):
    """Return the log, with few training rows in a smoke run."""
    if not arguments.quick:
        return log
    fields = vars(log) | {"X": log.X[:QUICK_ROWS], "Y": log.Y[:QUICK_ROWS]}
    return type(log)(**fields)


def caption_of(name, log, arguments):
    n_events = int((log.Y[log.event] == 1).sum())
    return (
        f"{TITLES[name]}; {len(log.X):,} training rows, {n_events:,} with an amount, "
        f"{len(log.X_test):,} other rows; {arguments.seeds} seeds"
    )


# ---------------------------------------------------------------- events


def compare_events(report, names, arguments):
    """Print what a value in the same fit costs the events of each log."""
    report.text("", f"Events without and with a value; {arguments.seeds} seeds")
    heads = ["AUC", "change", "log loss", "change of loss", "time"]
    report.table(["task", *heads])
    for name in names:
        without, with_value, ratios = [], [], []
        for seed in seeds_of(arguments):
            log = quick(LOGS[name](seed), arguments)
            values = {log.value: log.event}
            without.append(event_figures(log, seed, log.Y[log.events]))
            with_value.append(event_figures(log, seed, log.Y, value_tasks=values))
            ratios += epoch_ratios(log, seed)
        without, with_value = np.array(without), np.array(with_value)
        for task, event in enumerate(log.events):
            auc, loss = with_value[:, task].T
            auc_change, loss_change = (with_value - without)[:, task].T
            report.row(
                TITLES[name] if task == 0 else "",
                [
                    event,
                    spread(auc),
                    in_thousandths(auc_change),
                    spread(loss),
                    in_thousandths(loss_change),
                    quartiles(ratios) if task == 0 else "",
                ],
            )


def event_figures(log, seed, Y, **params):
    """Return AUC and log loss of each event, `(n_events, 2)`."""
    model = MultiTaskCTRCVRClassifier(random_state=seed, **params).fit(log.X, Y)
    p = model.predict_proba(log.X_test)
    labels = log.Y_test[log.events].to_numpy()
    losses = [
        mean_log_loss(labels[:, [task]], p[:, [task]]) for task in range(p.shape[1])
    ]
    return np.column_stack([aucs(labels, p), losses])


def epoch_ratios(log, seed):
    """Return the ratio of the processor's time of three epochs with and without."""
    n_epochs = {"max_epochs": 3, "early_stopping": False, "random_state": seed}
    values = {log.value: log.event}

    def run(Y, **params):
        model = MultiTaskCTRCVRClassifier(**n_epochs, **params)
        seconds, _ = processor_time(model.fit, log.X, Y)
        return {"processor": seconds}

    runs = {
        "without": lambda: run(log.Y[log.events]),
        "with": lambda: run(log.Y, value_tasks=values),
    }
    times = interleave(runs, 2)
    return list(times["with"]["processor"] / times["without"]["processor"])


# ---------------------------------------------------------------- few events


def compare_counts(report, arguments):
    """Print from how many conversions on a value beats the mean amount."""
    n_seeds = max(arguments.seeds, 10) if not arguments.quick else arguments.seeds
    first_seed = arguments.first_seed
    for tail in TAILS:
        report.text("", f"Few conversions, {TITLES[tail]}; {n_seeds} seeds")
        report.table(
            ["Gini, mean amount", "Gini, value", "change", "worse", "error", "total"]
        )
        for n_conversions in N_CONVERSIONS:
            rows = []
            for seed in range(first_seed, first_seed + n_seeds):
                n_rows = int(n_conversions / CONVERSION_RATE)
                log = generated(tail, 500 + seed, n_train=n_rows)
                rows.append(count_figures(log, seed))
            mean, value, error, total = np.transpose(rows)
            report.row(
                f"{n_conversions:,} conversions",
                [
                    spread(mean, 3),
                    spread(value, 3),
                    in_thousandths(value - mean),
                    f"{(value < mean).sum()} of {n_seeds}",
                    spread(error, 2),
                    spread(total, 2),
                ],
            )


def count_figures(log, seed):
    """Return both Ginis, the error given the event and the total of the value."""
    mean = make_value_model(BAR, seed).fit(log)
    value = make_value_model(OWN_MODELS[0], seed).fit(log)
    predicted = value.predict(log.X_test)
    logarithms = np.log(log.truth_given_event)
    given_event = np.log(value.predict_given_event(log.X_test))
    # Over rows with the event, whatever the level of the totals is.
    weights = log.truth / log.truth_given_event
    residuals = logarithms - given_event
    error = weighted_variance(residuals, weights)
    return [
        normalized_gini(log.truth, mean.predict(log.X_test)),
        normalized_gini(log.truth, predicted),
        error / weighted_variance(logarithms, weights),
        predicted.sum() / log.truth.sum(),
    ]


def weighted_variance(values, weights):
    mean = np.average(values, weights=weights)
    return np.average((values - mean) ** 2, weights=weights)


# ---------------------------------------------------------------- later prices


def compare_levels(report, arguments):
    """Print totals after updates at another price level, and with a `time_column`."""
    report.text("", f"Amounts half as high again in later rows; {arguments.seeds} logs")
    heads = [f"day {day}" for day in range(N_DAYS + 1)]
    report.table([*heads, "time_column"])
    for tail in TAILS:
        rows = [level_figures(tail, seed) for seed in seeds_of(arguments)]
        report.row(TITLES[tail], [spread(ratio, 2) for ratio in np.transpose(rows)])


def level_figures(tail, seed):
    """Return predicted over true totals of the new level, after each day."""
    n_first = 30_000
    n_later = N_DAYS * DAY_ROWS
    n_rows = n_first + n_later
    log = make_ctr_cvr(
        n_rows + 30_000,
        n_categories=N_CATEGORIES,
        ctr=0.25,
        cvr=0.2,
        value=True,
        value_tail=TAILS[tail],
        random_state=3_000 + seed,
    )
    Y = log.target.copy()
    Y.loc[n_first:, "value"] *= NEW_PRICE
    X_test = log.data[n_rows:]
    total = NEW_PRICE * (log.ctr * log.cvr * log.value)[n_rows:].sum()
    params = {"value_tasks": {"value": "conversion"}, "random_state": seed}
    model = MultiTaskCTRCVRClassifier(**params)
    model.fit(log.data[:n_first], Y[:n_first])
    ratios = [model.predict_value(X_test).sum() / total]
    for day in range(N_DAYS):
        start = n_first + day * DAY_ROWS
        rows = slice(start, start + DAY_ROWS)
        model.partial_fit(log.data[rows], Y[rows])
        ratios.append(model.predict_value(X_test).sum() / total)
    # The last tenth of the rows, of which the fit holds out the last ones.
    X = log.data.assign(day=np.arange(len(log.data)) // DAY_ROWS)
    timed = MultiTaskCTRCVRClassifier(**params, encoding_params={"time_column": "day"})
    timed.fit(X[: n_first + DAY_ROWS], Y[: n_first + DAY_ROWS])
    later = X[n_rows:].assign(day=n_first // DAY_ROWS + 1)
    return [*ratios, timed.predict_value(later).sum() / total]


def main():
    parser = make_parser(__doc__, seeds=5, tables=TABLES, logs=LOGS)
    arguments, report = begin("values", parser, seeds=1)
    # On rare conversions, few rows, and numbers of epochs.
    warnings.simplefilter("ignore")
    if "models" in arguments.tables:
        for name in arguments.logs:
            compare_value_models(report, name, arguments)
    if "events" in arguments.tables:
        compare_events(report, arguments.logs, arguments)
    if "counts" in arguments.tables:
        compare_counts(report, arguments)
    if "updates" in arguments.tables:
        compare_levels(report, arguments)


if __name__ == "__main__":
    main()
