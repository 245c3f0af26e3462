"""Rows that are not drawn one by one: users who come back, counts, copies, drift.

    pip install ".[benchmark]"
    python benchmarks/row_structure.py                # sixteen forms of one log
    python benchmarks/row_structure.py --counts       # rows and their counts
    python benchmarks/row_structure.py --drift        # a log in the order of time
    python benchmarks/row_structure.py --persons      # several rows of each person
    python benchmarks/row_structure.py --clock        # a log with an integer day

The first table has 20,000 impressions of users whose activity is that of Zipf's law;
active users click less. The same log is fitted in all combinations of

- "times": the day is the `time_column`;
- "groups": the users are `groups` of `fit`;
- "counts": one row per cell and outcome, with the count as `sample_weight`;
- "copies": 6,000 rows are copies of others.

The columns are user, item and hour, 40,000 further impressions are the test rows. Each
row has the AUC of both tasks and the predicted over the observed number of events.

With `--counts`, 100,000 impressions of 500 items in 2, 5 or 20 segments, at two pairs
of rates of clicks and conversions, are fitted as they are, and as a table of counts
with one row per cell and outcome. 200,000 further impressions are the test rows.

With `--drift`, a log of bookings is in the order of time: 30 % of the rows are copies,
as several rows of one booking, the level moves, and the effects of agents change. The
last fifth is tested. The models are the defaults with

- "date": the date among the columns, and nothing else;
- "named": the same, with the date named as `time_column`;
- "without copies": the same as "date" on the distinct rows;
- "no date": the rows without the date, so that random rows are held out;
- "date, refit": `refit=True`;

and boosted trees with small leaves that read the rates of both tasks, without the date.

With `--persons`, 3,000 persons have one to eight rows each, whose labels share an
effect of the person that no column holds. The rows of a person stand together, or all
rows are in the order of their years, or shuffled. They are fitted as they are, with
the persons as `groups`, and with each row as a group, so that validation rows are
random. The test rows are those of other persons or, in the last three models, a random
fifth of the rows that stand together, taken out of them.

With `--clock`, a log of 20,000 rows is in the order of an integer day, along which the
level and the effects of items move; the last fifth is tested. The days are a number as
they are, dates, or a number under a name that says nothing, so that it is a feature.
The log loss is shown over that of logistic regression on the same columns.
All settings were chosen beforehand. Cells are means over seeds (standard deviation).
"""

import warnings
from itertools import product

import numpy as np
import pandas as pd
from _harness import aucs, begin, make_parser, mean_log_loss, seeds_of, spread
from _peers import OF_ALL, SMALL, peer_models
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sk_pwiser import MultiTaskCTRCVRClassifier

TASKS = ["click", "conversion"]
N_TRAIN, N_TEST, N_COPIES = 20_000, 40_000, 6_000
N_USERS, N_ITEMS, N_HOURS, N_DAYS = 2_000, 50, 4, 30
COLUMNS = ["user", "item", "hour"]
FORMS = ("times", "groups", "counts", "copies")
N_COUNTED, N_COUNTED_TEST = 100_000, 200_000
N_COUNTED_ITEMS, N_SEGMENTS = 500, (2, 5, 20)
RATES_OF_TASKS = ((0.02, 0.001), (0.05, 0.01))
N_BOOKINGS = 40_000
N_PERSONS, N_TEST_PERSONS = 3_000, 6_000
N_CLOCK, FIRST_DAY, N_LOG_DAYS = 20_000, 4, 104
TREES = f"LightGBM, {SMALL}, {OF_ALL}"


def impressions(n_rows, seed):
    """Return impressions of users who come back, with the day and the labels."""
    effects = np.random.default_rng(5)
    activity = 1 / np.arange(1, N_USERS + 1)
    activity /= activity.sum()
    user_effects = 0.3 * effects.normal(size=N_USERS)
    user_effects -= 0.25 * np.log(activity * N_USERS)
    item_effects = 0.5 * effects.normal(size=N_ITEMS)
    hour_effects = 0.3 * effects.normal(size=N_HOURS)
    rng = np.random.default_rng(seed)
    user = rng.choice(N_USERS, n_rows, p=activity)
    item = rng.integers(0, N_ITEMS, n_rows)
    hour = rng.integers(0, N_HOURS, n_rows)
    click_odds = -2 + user_effects[user] + item_effects[item] + hour_effects[hour]
    click = rng.random(n_rows) < expit(click_odds)
    conversion = click & (rng.random(n_rows) < expit(-1 + item_effects[item]))
    log = pd.DataFrame({"user": user, "item": item, "hour": hour}).astype(str)
    log["day"] = np.arange(n_rows) * N_DAYS // n_rows
    return log.assign(click=click.astype(int), conversion=conversion.astype(int))


def in_form(log, seed, *, times, groups, counts, copies):
    """Return parameters of the estimator, and arguments of `fit`."""
    if copies:
        rng = np.random.default_rng(seed)
        repeated = rng.choice(len(log), min(N_COPIES, len(log) // 3))
        rows = np.sort(np.concatenate([np.arange(len(log)), repeated]))
        log = log.iloc[rows].reset_index(drop=True)
    columns = [*COLUMNS, "day"] if times else COLUMNS
    arguments = {}
    if counts:
        sizes = log.groupby([*columns, *TASKS]).size().rename("count").reset_index()
        log = sizes.sample(frac=1.0, random_state=seed)
        if times:
            log = log.sort_values("day", kind="stable")
        arguments["sample_weight"] = log["count"]
    if groups:
        arguments["groups"] = log["user"]
    params = {"encoding_params": {"time_column": "day"}} if times else {}
    return params, {"X": log[columns], "Y": log[TASKS], **arguments}


def figures(Y, p):
    y, p = Y.to_numpy(), p.astype(float)
    return [*aucs(y, p), *(p.mean(axis=0) / y.mean(axis=0))]


def compare_forms(report, arguments):
    """Print the table of the sixteen forms."""
    n_rows = 2_000 if arguments.quick else N_TRAIN
    later = impressions(N_TEST, 999)
    report.text("", f"{n_rows:,} impressions; {arguments.seeds} seeds")
    report.table([*(f"{t} AUC" for t in TASKS), *(f"{t} pred/obs" for t in TASKS)])
    for choice in product([False, True], repeat=4):
        form = dict(zip(FORMS, choice, strict=True))
        results = []
        for seed in seeds_of(arguments):
            params, data = in_form(impressions(n_rows, seed), seed, **form)
            model = MultiTaskCTRCVRClassifier(random_state=seed, **params).fit(**data)
            results.append(figures(later[TASKS], model.predict_proba(later[COLUMNS])))
        name = ", ".join(part for part in FORMS if form[part]) or "plain"
        columns = enumerate(np.transpose(results))
        cells = [spread(values, digits=4 if k < 2 else 2) for k, values in columns]
        report.row(name, cells)


def intercept(log_odds, weights, rate):
    """Return what to add to log-odds so that the mean probability is a rate."""
    return brentq(
        lambda shift: np.average(expit(log_odds + shift), weights=weights) - rate,
        -20,
        20,
    )


def cells(n_rows, seed, rates, n_segments):
    """Return impressions of items in segments, whose effects on the log-odds add up."""
    effects = np.random.default_rng(5)
    click_effects = 0.5 * effects.normal(size=(N_COUNTED_ITEMS, 1))
    click_effects = click_effects + 0.3 * effects.normal(size=n_segments)
    conversion_effects = 0.5 * effects.normal(size=(N_COUNTED_ITEMS, 1))
    conversion_effects = conversion_effects + np.zeros(n_segments)
    click_rate, conversion_rate = rates
    p_click = expit(click_effects + intercept(click_effects, None, click_rate))
    given_click = conversion_rate / click_rate
    shift = intercept(conversion_effects, p_click, given_click)
    p_given_click = expit(conversion_effects + shift)
    rng = np.random.default_rng(seed)
    item = rng.integers(0, N_COUNTED_ITEMS, n_rows)
    segment = rng.integers(0, n_segments, n_rows)
    click = rng.random(n_rows) < p_click[item, segment]
    conversion = click & (rng.random(n_rows) < p_given_click[item, segment])
    log = pd.DataFrame({"item": item, "segment": segment}).astype(str)
    return log.assign(click=click.astype(int), conversion=conversion.astype(int))


def compare_counts(report, arguments):
    """Print the table of logs as rows and as counts."""
    columns = ["item", "segment"]
    n_rows = 5_000 if arguments.quick else N_COUNTED
    report.text("", f"{n_rows:,} impressions; {arguments.seeds} seeds")
    report.table([*(f"{t} AUC" for t in TASKS), *(f"{t} pred/obs" for t in TASKS)])
    for rates, n_segments in product(RATES_OF_TASKS, N_SEGMENTS):
        of_rows, of_counts = [], []
        for seed in seeds_of(arguments):
            log = cells(n_rows, seed, rates, n_segments)
            later = cells(N_COUNTED_TEST, 1_000 + seed, rates, n_segments)
            counts = log.groupby([*columns, *TASKS]).size().rename("count")
            counts = counts.reset_index().sample(frac=1.0, random_state=seed)
            model = MultiTaskCTRCVRClassifier(random_state=seed)
            model.fit(log[columns], log[TASKS])
            of_rows.append(figures(later[TASKS], model.predict_proba(later[columns])))
            weights = counts["count"]
            model.fit(counts[columns], counts[TASKS], sample_weight=weights)
            of_counts.append(figures(later[TASKS], model.predict_proba(later[columns])))
        of_log = "{:.0%} clicks, {:.1%} conversions, ".format(*rates)
        of_log += f"{n_segments} cells per item"
        for form, results in (("rows", of_rows), ("counts", of_counts)):
            values = enumerate(np.transpose(results))
            texts = [spread(v, digits=4 if k < 2 else 2) for k, v in values]
            report.row(f"{of_log}: {form}", texts)


def bookings(seed, n_rows=N_BOOKINGS):
    """Return bookings in the order of time, a third of them rows of several."""
    rng = np.random.default_rng(seed)
    sizes = np.where(rng.random(n_rows) < 0.85, 1, rng.geometric(0.25, n_rows))
    sizes = sizes[np.cumsum(sizes) <= n_rows]
    n_bookings = len(sizes)
    time = np.arange(n_bookings) / n_bookings
    lead = np.floor(rng.exponential(90, n_bookings)).clip(0, 500)
    price = (60 + 40 * rng.random(n_bookings) + 30 * time).round(1)
    agent = rng.integers(0, 80, n_bookings)
    first_effects = rng.normal(0, 0.8, 80)
    last_effects = rng.normal(0, 0.8, 80)
    country = rng.choice(40, n_bookings, p=rng.dirichlet(np.ones(40)))
    country_effects = rng.normal(0, 0.4, 40)
    log_odds = -1 + 0.004 * lead - 0.01 * (price - 100) + country_effects[country]
    log_odds += first_effects[agent] * (1 - time) + last_effects[agent] * time
    log_odds += np.sin(4 * time) - 0.6 * time
    click = rng.random(n_bookings) < expit(log_odds)
    is_rare = rng.random(n_bookings) < expit(-3 + country_effects[country])
    date = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.floor(365 * time), unit="D")
    # Agents come and go.
    names = [
        f"a{a}.{int(6 * t) if a % 4 == 0 else 0}"
        for a, t in zip(agent, time, strict=True)
    ]
    log = pd.DataFrame(
        {
            "lead": lead,
            "price": price,
            "agent": names,
            "country": country.astype(str),
            "date": date,
            "click": click.astype(int),
            "conversion": (click & is_rare).astype(int),
        }
    )
    return log.iloc[np.repeat(np.arange(n_bookings), sizes)].reset_index(drop=True)


def fitted(name, log, seed):
    """Fit a model by its name in the table, and return it with the columns it reads."""
    without_date = [c for c in log if c not in ("date", *TASKS)]
    if name == TREES:
        model = next(peer_models(name, [seed]))
        return model.fit(log[without_date], log[TASKS]), without_date
    params, columns = {}, [*without_date, "date"]
    if name == "named":
        params["encoding_params"] = {"time_column": "date"}
    elif name == "without copies":
        log = log.drop_duplicates()
    elif name == "no date":
        columns = without_date
    elif name == "date, refit":
        params["refit"] = True
    model = MultiTaskCTRCVRClassifier(random_state=seed, **params)
    return model.fit(log[columns], log[TASKS]), columns


def compare_drift(report, arguments):
    """Print the table of the log with drift."""
    names = ["date", "named", "without copies", "no date", "date, refit", TREES]
    n_rows = 4_000 if arguments.quick else N_BOOKINGS
    results = {name: [] for name in names}
    repeats = []
    for seed in seeds_of(arguments):
        log = bookings(seed, n_rows)
        cut = int(0.8 * len(log))
        repeats.append(log.drop(columns=TASKS).duplicated().mean())
        later = log[cut:]
        for name in names:
            model, columns = fitted(name, log[:cut], seed)
            p = model.predict_proba(later[columns]).astype(float)
            loss = mean_log_loss(later[TASKS].to_numpy(), p)
            results[name].append(
                [
                    *figures(later[TASKS], p)[:2],
                    loss,
                    *p.mean(axis=0) / later[TASKS].to_numpy().mean(axis=0),
                ]
            )
    report.text(
        "",
        f"{n_rows:,} rows, {np.mean(repeats):.0%} of which repeat; "
        f"{arguments.seeds} seeds",
    )
    report.table(
        [
            *(f"{task} AUC" for task in TASKS),
            "log loss",
            *(f"{task} pred/obs" for task in TASKS),
        ]
    )
    for name, rows in results.items():
        columns = enumerate(np.transpose(rows))
        cells = [spread(values, digits=4 if k < 3 else 2) for k, values in columns]
        report.row(name, cells)


def rows_of_persons(n_persons, seed):
    """Return rows of persons who stand together, with the labels and the person."""
    effects = np.random.default_rng(5)
    region_effects = 0.4 * effects.normal(size=12)
    job_effects = 0.3 * effects.normal(size=20)
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, n_persons)
    person = np.repeat(np.arange(n_persons), sizes)
    n_rows = len(person)
    nth = np.arange(n_rows) - np.repeat(sizes.cumsum() - sizes, sizes)
    sex = rng.integers(0, 2, n_persons)[person]
    region = rng.integers(0, 12, n_persons)[person]
    birth = rng.integers(1930, 1990, n_persons)[person]
    score = rng.normal(size=n_persons)[person].round(2)
    year = rng.integers(2000, 2010, n_persons)[person] + nth
    income = 10 + 2 * rng.normal(size=n_persons)[person]
    income += 0.4 * rng.normal(size=n_rows)
    changes = rng.random(n_rows) < 0.1
    job = rng.integers(0, 20, n_persons)[person]
    job = np.where(changes, rng.integers(0, 20, n_rows), job)
    visits = rng.poisson(2, n_rows)
    unknown = 1.5 * rng.normal(size=n_persons)[person]
    log_odds = -1 + region_effects[region] + job_effects[job] + 0.4 * sex + 0.3 * score
    log_odds += 0.02 * (year - birth - 45) + 0.15 * (visits - 2) - 0.1 * (income - 10)
    click = rng.random(n_rows) < expit(log_odds + unknown)
    further = -1 + region_effects[region] + 0.4 * score + 0.5 * unknown
    conversion = click & (rng.random(n_rows) < expit(further))
    columns = {
        "sex": sex.astype(str),
        "region": region.astype(str),
        "birth": birth,
        "score": score,
        "age": year - birth,
        "income": income.round(1),
        "job": job.astype(str),
        "visits": visits,
        "year": year,
        "person": person,
        "click": click.astype(int),
        "conversion": conversion.astype(int),
    }
    return pd.DataFrame(columns)


PERSON_ORDERS = {
    "persons together": lambda rows, seed: rows,
    "by year": lambda rows, seed: rows.sample(frac=1, random_state=seed).sort_values(
        "year", kind="stable"
    ),
    "shuffled": lambda rows, seed: rows.sample(frac=1, random_state=seed),
}


def compare_persons(report, arguments):
    """Print the table of rows of persons."""
    n_persons = 300 if arguments.quick else N_PERSONS
    report.text("", f"{n_persons:,} persons; {arguments.seeds} seeds")
    report.table([*(f"{t} AUC" for t in TASKS), "log loss"])
    results = {}
    for seed in seeds_of(arguments):
        together = rows_of_persons(n_persons, seed)
        new = rows_of_persons(N_TEST_PERSONS, 1_000 + seed)
        splits = {
            name: (order(together, seed), new) for name, order in PERSON_ORDERS.items()
        }
        is_test = np.random.default_rng(seed).random(len(together)) < 0.2
        splits["the same persons tested"] = together[~is_test], together[is_test]
        for name, (rows, test) in splits.items():
            columns = [c for c in rows if c not in ("person", *TASKS)]
            forms = {
                "as they are": None,
                "groups": rows["person"],
                "single rows": np.arange(len(rows)),
            }
            for form, groups in forms.items():
                model = MultiTaskCTRCVRClassifier(random_state=seed)
                model.fit(rows[columns], rows[TASKS], groups=groups)
                p = model.predict_proba(test[columns]).astype(float)
                y = test[TASKS].to_numpy()
                row = [*aucs(y, p), mean_log_loss(y, p)]
                results.setdefault(f"{name}: {form}", []).append(row)
    for name, rows in results.items():
        report.row(name, [spread(values, digits=4) for values in np.transpose(rows)])


def log_of_days(seed, n_rows=N_CLOCK):
    """Return impressions in the order of an integer day, and the labels."""
    effects = np.random.default_rng(5)
    first_effects = 0.7 * effects.normal(size=200)
    last_effects = 0.7 * effects.normal(size=200)
    shocks = 0.6 * effects.normal(size=N_LOG_DAYS)
    rng = np.random.default_rng(seed)
    day = np.sort(rng.integers(0, N_LOG_DAYS, n_rows))
    time = day / N_LOG_DAYS
    item = rng.integers(0, 200, n_rows)
    x = rng.normal(size=(n_rows, 3))
    log_odds = -2.8 + first_effects[item] * (1 - time) + last_effects[item] * time
    log_odds += 0.4 * x[:, 0] - 0.3 * x[:, 1] + np.sin(5 * time) + shocks[day]
    click = rng.random(n_rows) < expit(log_odds)
    conversion = click & (rng.random(n_rows) < expit(-1.5 + last_effects[item]))
    log = pd.DataFrame(x, columns=["x0", "x1", "x2"])
    return log.assign(
        item=item.astype(str),
        day=day + FIRST_DAY,
        click=click.astype(int),
        conversion=conversion.astype(int),
    )


CLOCKS = {
    "as it is": lambda log: log,
    "dates": lambda log: log.assign(
        day=pd.Timestamp("2026-01-01") + pd.to_timedelta(log["day"], unit="D")
    ),
    "an unknown name": lambda log: log.rename(columns={"day": "x3"}),
}


def compare_clocks(report, arguments):
    """Print the table of a log with an integer day."""
    n_rows = 4_000 if arguments.quick else N_CLOCK
    report.text("", f"{n_rows:,} impressions; {arguments.seeds} seeds")
    report.table(
        [
            *(f"{t} AUC" for t in TASKS),
            *(f"{t} log loss, ratio" for t in TASKS),
            *(f"{t} pred/obs" for t in TASKS),
        ]
    )
    results = {name: [] for name in CLOCKS}
    for seed in seeds_of(arguments):
        log = log_of_days(seed, n_rows)
        numbers = ["x0", "x1", "x2", "day"]
        cut = int(0.8 * n_rows)
        encoding = make_column_transformer(
            (OneHotEncoder(handle_unknown="ignore"), ["item"]),
            (StandardScaler(), numbers),
        )
        linear = make_pipeline(encoding, LogisticRegression(max_iter=1_000))
        expected = []
        for task in TASKS:
            linear.fit(log[:cut], log[task][:cut])
            expected.append(linear.predict_proba(log[cut:])[:, 1])
        y = log[TASKS][cut:].to_numpy()
        for name, form in CLOCKS.items():
            table = form(log).drop(columns=TASKS)
            model = MultiTaskCTRCVRClassifier(random_state=seed)
            model.fit(table[:cut], log[TASKS][:cut])
            p = model.predict_proba(table[cut:]).astype(float)
            ratios = [
                mean_log_loss(y[:, [k]], p[:, [k]])
                / mean_log_loss(y[:, [k]], expected[k][:, np.newaxis])
                for k in range(2)
            ]
            row = [*aucs(y, p), *ratios, *(p.mean(axis=0) / y.mean(axis=0))]
            results[name].append(row)
    for name, rows in results.items():
        columns = enumerate(np.transpose(rows))
        cells = [spread(values, digits=4 if k < 2 else 3) for k, values in columns]
        report.row(name, cells)


def main():
    parser = make_parser(__doc__, seeds=5)
    parser.add_argument("--drift", action="store_true", help="a log in order of time")
    parser.add_argument("--counts", action="store_true", help="rows and their counts")
    parser.add_argument("--persons", action="store_true", help="rows of persons")
    parser.add_argument("--clock", action="store_true", help="a log with a day")
    arguments, report = begin("row_structure", parser, seeds=1)
    # The table shows what warnings would name.
    warnings.simplefilter("ignore")
    compare = compare_forms
    if arguments.drift:
        compare = compare_drift
    elif arguments.counts:
        compare = compare_counts
    elif arguments.persons:
        compare = compare_persons
    elif arguments.clock:
        compare = compare_clocks
    compare(report, arguments)


if __name__ == "__main__":
    main()
