"""Seconds and errors of `explain_rows`, and of the package SHAP on the same rows.

    pip install ".[benchmark]" shap
    python benchmarks/explain_rows.py

All explain the log-odds of rows of 20 numeric and 20 category columns against a
background of 12 rows by the same number of predictions, `explain_rows` both tasks and
the CVR, SHAP's permutation explainer one task: "table" passes it the table and
`decision_function`, "encoded" the numbers of rows whose columns are recombined after
they were encoded once. An error is the root mean square difference to the mean over
1,000 permutations. The runs alternate; a figure is the time on the processor, of one
thread.
"""

import numpy as np
from _harness import begin, make_parser, processor_time, quartiles, require

from sk_pwiser import MultiTaskCTRCVRClassifier
from sk_pwiser.datasets import make_ctr_cvr
from sk_pwiser.inspection import _shapley, explain_rows

COLUMNS = {"n_numeric": 20, "n_categorical": 20}
N_COLUMNS = 40
RATES = {"ctr": 0.2, "cvr": 0.2}
BACKGROUND_ROWS = 12
# Permutations with an error that does not matter beside those that are measured.
LONG_RUN = 1_000
# Evaluations of SHAP per row: two permutations, each forwards and backwards.
SHAP_EVALUATIONS = 2 * (2 * N_COLUMNS + 1)


def by_sk_pwiser(model, X, background):
    found = explain_rows(model, X, background=background, random_state=0)
    return found.contributions[:, :, 1]


def by_shap_on_tables(model, X, background):
    import shap

    conversion = model.task("conversion").decision_function
    explainer = shap.explainers.Permutation(conversion, background, seed=0)
    return explainer(X, max_evals=SHAP_EVALUATIONS, silent=True).values


def by_shap_on_encoded_rows(model, X, background):
    import shap

    _, _, logits = model._recombined_logits(X, background)
    numbers = np.arange(len(X) + len(background), dtype=float)
    sources = np.repeat(numbers[:, np.newaxis], N_COLUMNS, axis=1)
    explainer = shap.explainers.Permutation(
        lambda rows: logits(rows.astype(np.int64))[:, 1],
        shap.maskers.Independent(sources[len(X) :], max_samples=len(background)),
        seed=0,
    )
    found = explainer(sources[: len(X)], max_evals=SHAP_EVALUATIONS, silent=True)
    return found.values


FORMS = {
    "explain_rows": by_sk_pwiser,
    "SHAP, encoded": by_shap_on_encoded_rows,
    "SHAP, table": by_shap_on_tables,
}


def main():
    parser = make_parser(__doc__, rounds=3, device=False)
    parser.set_defaults(threads=1)
    arguments, report = begin("explain_rows", parser, rounds=1)
    require("shap", "SHAP", "pip install shap")
    n_rows = 3 if arguments.quick else 50
    data = make_ctr_cvr(6_000, **COLUMNS, **RATES, random_state=0)
    model = MultiTaskCTRCVRClassifier(max_epochs=3, random_state=0)
    model.fit(data.data, data.target)
    X = data.data[:n_rows]
    background = data.data[n_rows : n_rows + BACKGROUND_ROWS]
    seconds = {name: [] for name in FORMS}
    values = {}
    for _ in range(arguments.rounds):
        for name, explain in FORMS.items():
            time, values[name] = processor_time(explain, model, X, background)
            seconds[name].append(time)
    fewest = _shapley.FEWEST_PERMUTATIONS
    _shapley.FEWEST_PERMUTATIONS = LONG_RUN
    expected = by_sk_pwiser(model, X, background)
    _shapley.FEWEST_PERMUTATIONS = fewest
    report.text("", f"{n_rows} rows of {N_COLUMNS} columns, log-odds of conversions")
    report.table(["ms per row", "over explain_rows", "error"])
    for name in FORMS:
        ratios = np.divide(seconds[name], seconds["explain_rows"])
        error = np.sqrt(np.mean((values[name] - expected) ** 2))
        per_row = f"{1000 * np.median(seconds[name]) / n_rows:.1f}"
        report.row(name, [per_row, quartiles(ratios), f"{error:.4f}"])


if __name__ == "__main__":
    main()
