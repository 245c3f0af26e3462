"""The command: a comparison, or explanations of rows."""

import argparse
import os
import sys
from collections.abc import Sequence

from sk_pwiser._command import _explain
from sk_pwiser._command._compare import compare
from sk_pwiser._command._generated_logs import show_logs
from sk_pwiser._command._log_file import date_columns, read
from sk_pwiser._command._messages import messages_in_one_line
from sk_pwiser._command._options import check, make_model, make_parser, read_value_tasks
from sk_pwiser.datasets import load_kuairand
from sk_pwiser.inspection import describe_impressions

NEXT = """
Generated logs show what can happen, not what happens on yours. Compare models,
and then the losses, on a table of your own (text and category columns are
categories; name columns of ids with --categorical, and dates with --time):

  python -m sk_pwiser --data log.csv --targets click conversion --against-others
  python -m sk_pwiser --data log.csv --targets click conversion --weights 0.1 1
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the comparison, or explain the rows of a file."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["explain"]:
        _explain.main(words[1:])
        return
    parser = make_parser()
    arguments = parser.parse_args(words)
    with messages_in_one_line(parser):
        check(arguments)
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Run the comparison that the arguments ask for."""
    if arguments.data is None:
        show_logs(arguments)
        folder = os.environ.get("SK_PWISER_DATA")  # with KuaiRand-Pure
        if folder:
            for second_task in ("engage", "long"):
                bunch = load_kuairand(folder, second_task, subset="train")
                title = f"KuaiRand, click and {second_task}"
                compare(title, bunch.data, bunch.target, arguments)
        print(NEXT)
        return
    X, Y, times, groups = read(arguments)
    dates = date_columns(X) if times is None else []
    model = make_model(arguments, value_tasks=read_value_tasks(arguments) or None)
    description = describe_impressions(X, Y, time=times, estimator=model)
    print(description)
    numbers = [*description.flagged("id"), *description.flagged("category")]
    if numbers:
        print("To read numbers as categories: --categorical", *numbers)
    for name in dates:
        print(
            f"If {name!r} orders the rows, judge and compare on later rows: --time",
            name,
        )
    compare(arguments.data.name, X, Y, arguments, times=times, groups=groups)
    if numbers:
        print("\nThese columns were read as numbers, which may mislead:", *numbers)
        print("Repeat the comparison with --categorical and their names.")
    if dates:
        print("\nThe folds are random, although these columns hold dates:", *dates)
        print("Repeat the comparison with --time and the one that orders the rows.")
