"""The tables of parameters are complete, and their text is that of the docstring."""

import inspect

import pytest
from docs_scripts import load_script

from sk_pwiser import MultiTaskCTRCVRClassifier

parameter_tables = load_script("parameter_tables")
NAMES = list(inspect.signature(MultiTaskCTRCVRClassifier).parameters)


def test_every_parameter_has_one_group():
    grouped = [name for group in parameter_tables.GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(NAMES)


def test_a_parameter_without_a_group_is_an_error():
    with pytest.raises(ValueError, match=r"lacks \['new'\]"):
        parameter_tables.check_groups([*NAMES, "new"])


def test_a_group_of_a_removed_parameter_is_an_error():
    with pytest.raises(
        ValueError, match=r"no parameters of the estimator are \['verbose'\]"
    ):
        parameter_tables.check_groups(set(NAMES) - {"verbose"})


def test_the_tables_state_defaults_texts_and_entries():
    text = parameter_tables.estimator_tables()
    for name in NAMES:
        assert f"   * - `{name}=" in text
    assert "   * - `validation_fraction=0.1`\n     - Share of the rows" in text
    assert "`category_dropout='auto'`" in text
    assert "`average_decay=0.99`" in text
    assert "`task_space='entire'`" in text


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (["Largest number of epochs."], "Largest number of epochs."),
        (
            ["Share, e.g. of rows, held", "out. Not used."],
            "Share, e.g. of rows, held out.",
        ),
        (["Weight, >= 0; see :ref:`x`."], "Weight, >= 0."),
        (["Arguments of it, and", "", "- `decay`"], "Arguments of it."),
        (["How it is encoded: " + "very " * 60 + "long."], "How it is encoded."),
    ],
)
def test_first_sentences(lines, sentence):
    assert parameter_tables.first_sentence(lines) == sentence


def test_components_state_what_they_require():
    class Component:
        def __init__(self, spec, *, required, width=3, **rest):
            pass

    text = parameter_tables.component_parameters(Component)
    assert text == "`required`, `width=3`"
