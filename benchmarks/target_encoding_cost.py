"""Processor time that target encoding adds to a fit.

    python benchmarks/target_encoding_cost.py              # 10^6 rows, minutes

A fit of the default estimator with cross-entropy, from a DataFrame, with
`target_encoding="auto"` and without. The table has 16 category columns, of which the
ones with at least 100 values are encoded, and 63 numeric columns. One epoch is the
least favourable case: the statistics are computed once, whereas their inputs widen the
first layer in every epoch; fits with early stopping usually have more than five. The
time is measured on the processor, which other load on the machine affects less than
the time that passes.
"""

from functools import partial

import numpy as np
from _harness import at_most, begin, count, interleave, make_parser, processor_time
from _tables import impressions

from sk_pwiser import MultiTaskCTRCVRClassifier

SETTINGS = {"without": False, "auto": "auto"}


def fit(X, Y, **params):
    """Fit once; return the seconds and the number of encoded columns."""
    model = MultiTaskCTRCVRClassifier(
        loss="bce", early_stopping=False, random_state=0, **params
    )
    seconds, _ = processor_time(model.fit, X, Y)
    return {"all": seconds, "inputs": len(model.encode(X[:1]).numeric_names)}


def main():
    parser = make_parser(__doc__, rounds=3)
    parser.add_argument("--rows", type=count, default=10**6)
    arguments, report = begin("target_encoding_cost", parser, rows=5_000, rounds=2)
    X, Y = impressions(arguments.rows)
    for n_epochs in (1, 5):
        given = {"max_epochs": n_epochs, "device": arguments.device}
        runs = {
            name: partial(fit, X, Y, target_encoding=value, **given)
            for name, value in SETTINGS.items()
        }
        times = interleave(runs, arguments.rounds, arguments.device, warm_ups=0)
        without = times["without"]["all"]
        report.section(f"{arguments.rows:,} rows, epochs: {n_epochs}", "over without")
        for name, parts in times.items():
            report.line(
                f"{name}, numeric inputs: {int(parts['inputs'][0])}",
                parts["all"] / without,
                absolute=f"{np.median(parts['all']):.1f} s",
                target=at_most(1.1) if name == "auto" else None,
            )


if __name__ == "__main__":
    main()
