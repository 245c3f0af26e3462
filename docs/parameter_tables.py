"""Write the tables of parameters: the estimator's by subject, and those of components.

The estimator's parameters stand in `GROUPS`, which `check_groups` compares with its
signature. Defaults are read from the signatures, and the text of a parameter is the
first sentence of its description, so that no table is kept by hand.
"""

import inspect
import re

from numpydoc.docscrape import ClassDoc

from sk_pwiser import MultiTaskCTRCVRClassifier, _settings
from sk_pwiser.networks import SHARED_PARAMS, NetworkSpec

GROUPS = {
    "Data": (
        "categorical_features",
        "numeric_encoding",
        "target_encoding",
        "embedding_dim",
        "encoding_params",
        "exposure_features",
        "missing_labels",
        "task_parents",
        "value_tasks",
        "value_loss",
        "negative_sampling_rate",
        "task_names",
    ),
    "Network": ("network", "network_params"),
    "Loss": ("loss", "loss_params", "pwiser_weight"),
    "Weighting of the tasks": ("weighting", "weighting_params"),
    "Optimisation": (
        "optimizer",
        "optimizer_params",
        "lr",
        "lr_schedule",
        "weight_decay",
        "batch_size",
        "stratified_batches",
        "max_epochs",
        "early_stopping",
        "validation_fraction",
        "n_iter_no_change",
        "refit",
    ),
    "Running": (
        "device",
        "precision",
        "compile",
        "callbacks",
        "checkpoint_dir",
        "warm_start",
        "verbose",
        "random_state",
    ),
}

# Entries of the dictionaries that no component's signature holds, all of which the page
# of parameters describes.
ENTRIES = {
    "network_params": {name: getattr(NetworkSpec, name) for name in SHARED_PARAMS},
    "encoding_params": _settings.ENCODING_PARAMS,
    "optimizer_params": _settings.LOOP_PARAMS,
}


def check_groups(names):
    """Raise an error if a parameter has no group, or a group holds another name."""
    grouped = {name for group in GROUPS.values() for name in group}
    if grouped != set(names):
        raise ValueError(
            f"GROUPS of parameter_tables.py lacks {sorted(set(names) - grouped)}; no "
            f"parameters of the estimator are {sorted(grouped - set(names))}."
        )


def write(path):
    """Write the sections of the estimator's parameters to a file."""
    write_if_changed(path, estimator_tables())


def write_if_changed(path, text):
    """Write a file, unless it has the text: its time decides what Sphinx rebuilds."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def estimator_tables():
    """Return one section of reStructuredText per group of parameters."""
    defaults = parameter_defaults(MultiTaskCTRCVRClassifier)
    check_groups(defaults)
    documented = ClassDoc(MultiTaskCTRCVRClassifier)["Parameters"]
    texts = {name: first_sentence(text) for name, _, text in documented}
    parts = []
    for title, names in GROUPS.items():
        rows = [(f"`{name}={defaults[name]!r}`", texts[name]) for name in names]
        table = list_table(("Parameter and default", "Meaning"), rows, (40, 60))
        parts.append(f"{title}\n{'-' * len(title)}\n\n{table}")
    return "\n".join(parts)


def parameter_defaults(cls, n_skipped=0):
    """Map a class's keyword parameters to their defaults.

    The first `n_skipped` are those that every component of its kind takes.
    """
    parameters = list(inspect.signature(cls).parameters.values())[n_skipped:]
    return {p.name: p.default for p in parameters if p.kind != p.VAR_KEYWORD}


def component_parameters(cls):
    """Return the parameters of a component as text, with their defaults.

    Parameters that belong to the estimator itself are left out.
    """
    of_estimator = getattr(cls, "estimator_parameters", ())
    return ", ".join(
        f"`{name}`" if default is inspect.Parameter.empty else f"`{name}={default!r}`"
        for name, default in parameter_defaults(cls, n_skipped=1).items()
        if name not in of_estimator
    )


def first_sentence(lines):
    """Return the first sentence of a description; of a long one, its first clause."""
    paragraph = " ".join(inspect.cleandoc("\n".join(lines)).split("\n\n")[0].split())
    sentence = re.split(r"\. (?=[A-Z`\"\d])|; see |, and$", paragraph)[0]
    if len(sentence) > 240:
        sentence = sentence.split(": ")[0]
    return sentence.rstrip(".:") + "."


def list_table(head, rows, widths):
    """Return a table in reStructuredText, whose cells stack on narrow screens."""
    lines = [".. list-table::", "   :class: stacks", "   :header-rows: 1"]
    lines.append(f"   :widths: {' '.join(map(str, widths))}")
    for row in (head, *rows):
        cells = [f"     - {cell}" for cell in row]
        cells[0] = "   *" + cells[0][4:]
        lines += ["", *cells]
    return "\n".join([*lines, "", ""])
