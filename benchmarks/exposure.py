"""What an item is worth, learnt from a log that showed good items first.

    python benchmarks/exposure.py

Pages of ten items are generated with known probabilities. A click needs that the user
examines the row, with the probability 1 / position^0.7 on desktops and 1 /
position^1.3 on mobile phones, and that the item pleases. The old ranking of a page
sorts by the quality of the items plus noise ("varied": a deviation of 0.5, where the
quality has one of 1; "nearly fixed": 0.05), sorts by a taste of its own, which has
nothing to do with quality, plus the same noise ("misled"), or is random. Models are
compared on pages that nobody has ranked, all of whose rows are examined:

- "left out": fitted without the position;
- "column": fitted with position and device as columns; the position is set to 1 in
  predictions;
- "exposure": fitted with both as `exposure_features`;
- "truth": the true probabilities.

"level" is the mean predicted click rate over the true one; "as shown" is that of later
pages of the same ranking, at the positions where they were shown.
"""

import warnings

import numpy as np
import pandas as pd
from _harness import aucs, begin, make_parser, seeds_of, spread, with_changes
from scipy.special import expit

from sk_pwiser import MultiTaskCTRCVRClassifier

ROWS_OF_PAGE = 10
N_ITEMS = 300
N_TRAITS = 4
# Deviation of the noise of the old ranking, None for a random one.
RANKINGS = {"varied": 0.5, "nearly fixed": 0.05, "misled": 0.5, "random": None}
# How fast examination falls with the position.
EXPONENTS = {"desktop": 0.7, "mobile": 1.3}
FORMS = ("column", "left out", "exposure", "truth")
EXPOSURE = ["position", "device"]


class World:
    """Items with known qualities, and users who see pages of them."""

    def __init__(self, seed):
        self.generator = np.random.default_rng(seed)
        normal = self.generator.standard_normal
        self.quality = normal(N_ITEMS)
        self.conversion_quality = 0.5 * self.quality + 0.75**0.5 * normal(N_ITEMS)
        self.traits = normal((N_ITEMS, N_TRAITS))
        self.group = self.generator.integers(0, 8, N_ITEMS)
        # What a misled ranking sorts by.
        self.taste = np.random.default_rng([seed, 1]).standard_normal(N_ITEMS)
        popularity = np.arange(1, N_ITEMS + 1) ** -0.5
        self.popularity = popularity / popularity.sum()

    def pages(self, n_pages, ranking):
        """Return rows, P(click | examined), P(conversion | click), P(examined)."""
        noise = RANKINGS[ranking]
        liked = self.taste if ranking == "misled" else self.quality
        generator = self.generator
        shape = (n_pages, ROWS_OF_PAGE)
        item = generator.choice(N_ITEMS, shape, p=self.popularity)
        user = generator.standard_normal((n_pages, N_TRAITS))
        x = generator.standard_normal(shape)
        match = (user[:, None] * self.traits[item]).sum(axis=-1) / 2
        click = expit(-1 + 0.8 * self.quality[item] + 0.6 * match + 0.4 * x)
        conversion = expit(-1 + 0.6 * self.conversion_quality[item] + 0.5 * x)
        score = generator.standard_normal(shape)
        if noise is not None:
            score = liked[item] + noise * score
        position = (-score).argsort(axis=1).argsort(axis=1) + 1
        device = generator.choice(list(EXPONENTS), n_pages, p=[0.6, 0.4])
        exponent = np.vectorize(EXPONENTS.get)(device)[:, None]
        examined = position.astype(float) ** -exponent
        X = pd.DataFrame(
            {
                "item": item.ravel().astype(str),
                "group": self.group[item].ravel().astype(str),
                "x": x.ravel(),
                **{
                    f"user_{k}": user[:, k].repeat(ROWS_OF_PAGE)
                    for k in range(N_TRAITS)
                },
                "position": position.ravel(),
                "device": device.repeat(ROWS_OF_PAGE),
            }
        )
        return X, click.ravel(), conversion.ravel(), examined.ravel()

    def labels(self, click, conversion):
        """Draw the labels of rows from their probabilities."""
        clicked = self.generator.random(len(click)) < click
        converted = clicked & (self.generator.random(len(click)) < conversion)
        return pd.DataFrame({"click": clicked, "conversion": converted}).astype(int)


def fit_forms(X, Y, seed):
    """Return a function that predicts at the first position, per form, and a model."""
    column = MultiTaskCTRCVRClassifier(random_state=seed).fit(X, Y)
    left_out = MultiTaskCTRCVRClassifier(random_state=seed)
    left_out.fit(X.drop(columns="position"), Y)
    exposure = MultiTaskCTRCVRClassifier(exposure_features=EXPOSURE, random_state=seed)
    exposure.fit(X, Y)
    predictions = {
        "column": lambda rows: column.predict_proba(rows.assign(position=1)),
        "left out": lambda rows: left_out.predict_proba(rows.drop(columns="position")),
        "exposure": lambda rows: exposure.predict_proba(rows.drop(columns=EXPOSURE)),
    }
    as_shown = {
        "column": column.predict_proba,
        "left out": lambda rows: left_out.predict_proba(rows.drop(columns="position")),
        "exposure": exposure.as_shown().predict_proba,
    }
    return predictions, as_shown


def run(report, ranking, arguments):
    """Compare the forms on logs of one ranking."""
    found = {form: [] for form in FORMS}
    levels = {form: [] for form in FORMS}
    shown_levels = {form: [] for form in FORMS}
    for seed in seeds_of(arguments):
        world = World(seed)
        X, click, conversion, examined = world.pages(arguments.pages, ranking)
        Y = world.labels(click * examined, conversion)
        later, *true_later, examined_later = world.pages(arguments.pages, ranking)
        X_test, *true, _ = world.pages(2 * arguments.pages, "random")
        Y_test = world.labels(*true).to_numpy()
        truth = np.column_stack([true[0], true[0] * true[1]])
        predictions, as_shown = fit_forms(X, Y, seed)
        predictions["truth"] = lambda rows, truth=truth: truth
        shown_rate = (true_later[0] * examined_later).mean()
        for form in FORMS:
            p = predictions[form](X_test).astype(float)
            found[form].append(aucs(Y_test, p))
            levels[form].append(p[:, 0].mean() / truth[:, 0].mean())
            if form in as_shown:
                shown = as_shown[form](later)[:, 0].mean()
                shown_levels[form].append(shown / shown_rate)
        print(ranking, seed, {f: np.round(v[-1], 4).tolist() for f, v in found.items()})
    rate = Y.mean()
    report.text(
        "",
        f"{ranking}: {len(X):,} rows, click {rate['click']:.1%}, conversion "
        f"{rate['conversion']:.1%}; {arguments.seeds} seeds",
    )
    columns = ["click AUC", "to column", "conversion AUC", "to column"]
    report.table([*columns, "level", "as shown"])
    base = np.array(found["column"])
    for form in FORMS:
        cells = with_changes(np.array(found[form]), base)
        shown = "1"
        if shown_levels[form]:
            shown = spread(np.array(shown_levels[form]), digits=2)
        report.row(form, [*cells, spread(np.array(levels[form]), digits=2), shown])


def main():
    parser = make_parser(__doc__, seeds=5, rankings=RANKINGS)
    parser.add_argument("--pages", type=int, default=1_500)
    arguments, report = begin("exposure", parser, seeds=1, pages=300)
    report.text(
        "Differences are in thousandths, with the standard error over seeds; the rows "
        "that AUC and level are computed from are examined."
    )
    for ranking in arguments.rankings:
        run(report, ranking, arguments)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning)
    main()
