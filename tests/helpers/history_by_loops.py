"""Features of the past by a loop over rows and over the rows before each."""

import math

import numpy as np


def stretch_of(past, t, max_age):
    """Return the impressions, in order of time, since the last long silence."""
    if max_age is None:
        return past
    kept = []
    following = t
    for row in reversed(past):
        if following - row["t"] > max_age:
            break
        kept.insert(0, row)
        following = row["t"]
    return kept


def log_odds(k, n, rate, smoothing):
    a = smoothing / min(rate, 1 - rate)
    p = (k + a * rate) / (n + a)
    return math.log(p / (1 - p)) - math.log(rate / (1 - rate))


def features_of(row, log, params, tasks):
    """Return the new columns of a row; `log` holds dicts, in the order of arrival."""
    t = row["t"]
    delays = params.get("label_delay", 0)
    delays = [delays[k] if isinstance(delays, dict) else delays for k in tasks]
    # What a state of this age holds.
    age = params.get("state_delay", 0)
    delays = [delay + age for delay in delays]
    rates = []
    for k, delay in enumerate(delays):
        labels = [
            r["y"][k] for r in log if r["t"] < t - delay and r["y"][k] is not None
        ]
        rates.append((sum(labels) + 0.5) / (len(labels) + 1))
    values = []
    for name, task in (params.get("values") or {}).items():
        k = tasks.index(task)
        values.append((name, k, *amounts_of(log, k, name, t - delays[k])))
    features = {}
    stretches = {}
    for key in params["keys"]:
        names = key if isinstance(key, tuple) else (key,)
        own = [row[name] for name in names]
        past = [r for r in log if r["t"] < t - age and [r[n] for n in names] == own]
        past = [] if None in own else sorted(past, key=lambda r: r["t"])
        past = stretch_of(past, t, params.get("max_age"))
        stretches[names] = past
        prefix = "_x_".join(names)
        add_numbers(features, prefix, past, t, delays, rates, params, tasks)
        for name, k, n_all, total in values:
            mean = total / n_all if n_all else 0.0
            seen = known_amounts(past, k, name, t - delays[k])
            add_amounts(features, (prefix, name), seen, t, mean, params)
    for entry in params.get("lists", ()):
        key = entry.get("key", params["keys"][0])
        names = key if isinstance(key, tuple) else (key,)
        task = entry.get("task")
        past = [r for r in stretches[names] if r[entry["column"]] is not None]
        if task is not None:
            k = tasks.index(task)
            past = [r for r in past if r["t"] < t - delays[k] and r["y"][k] == 1]
            past.sort(key=lambda r: (r["t"], r[entry["column"]]))
        past = past[-entry.get("n", 20) :]
        name = f"{'_x_'.join(names)}__last_{entry['column']}"
        name += f"_{task}" if task is not None else ""
        features[name] = [r[entry["column"]] for r in past]
        if entry.get("ages"):
            features[f"{name}_ages"] = [t - r["t"] for r in past]
    return features


def weights_of_horizons(params):
    """Return, per horizon, the end of the names and the weight of an age."""
    horizons = [("", lambda age: 1.0)]
    for window in params.get("windows", ()):
        weight = lambda age, window=window: float(age <= window)  # noqa: E731
        horizons.append((f"_{window:g}", weight))
    for half_life in params.get("half_lives", ()):
        weight = lambda age, h=half_life: 2.0 ** (-age / h)  # noqa: E731
        horizons.append((f"_decay_{half_life:g}", weight))
    return horizons


def known_amounts(rows, k, name, bound):
    """Return times and amounts of the events of a task that are known at a bound."""
    return [
        (r["t"], r[name])
        for r in rows
        if r["t"] < bound and r["y"][k] == 1 and r[name] is not None
    ]


def amounts_of(log, k, name, bound):
    """Return the number and the sum of the amounts of all keys."""
    amounts = [amount for _, amount in known_amounts(log, k, name, bound)]
    return len(amounts), sum(amounts)


def add_amounts(features, prefix_and_name, seen, t, mean, params):
    """Add the sums and the shrunk means of amounts, relative to those of all keys."""
    prefix, name = prefix_and_name
    smoothing = params.get("smoothing", 2.0)
    for horizon, weight in weights_of_horizons(params):
        n = sum(weight(t - time) for time, _ in seen)
        total = sum(weight(t - time) * amount for time, amount in seen)
        # As long as all amounts are 0, each of them is the mean.
        relative = total / mean if mean else n
        features[f"{prefix}__log_{name}{horizon}"] = math.log1p(relative)
        shrunk_mean = (relative + smoothing) / (n + smoothing)
        features[f"{prefix}__{name}_log_mean{horizon}"] = math.log(shrunk_mean)


def add_numbers(features, prefix, past, t, delays, rates, params, tasks):
    features[f"{prefix}__since_impression"] = t - past[-1]["t"] if past else np.nan
    seen = [
        [r for r in past if r["t"] < t - delay and r["y"][k] is not None]
        for k, delay in enumerate(delays)
    ]
    for task, rows, k in zip(tasks, seen, range(len(tasks)), strict=True):
        ages = [t - r["t"] for r in rows if r["y"][k] == 1]
        features[f"{prefix}__since_{task}"] = min(ages, default=np.nan)
    for name, weight in weights_of_horizons(params):
        n = sum(weight(t - r["t"]) for r in past)
        features[f"{prefix}__log_impressions{name}"] = math.log1p(n)
        for k, (task, rows) in enumerate(zip(tasks, seen, strict=True)):
            n = sum(weight(t - r["t"]) for r in rows)
            events = sum(weight(t - r["t"]) * r["y"][k] for r in rows)
            features[f"{prefix}__log_{task}{name}"] = math.log1p(events)
            logit = log_odds(events, n, rates[k], params.get("smoothing", 2.0))
            features[f"{prefix}__{task}_logit{name}"] = logit


def replayed(rows, params, tasks, earlier=()):
    """Return the columns of rows, whose log is all of them and the earlier ones."""
    log = [*earlier, *rows]
    found = [features_of(row, log, params, tasks) for row in rows]
    return {name: [each[name] for each in found] for name in found[0]} if found else {}
