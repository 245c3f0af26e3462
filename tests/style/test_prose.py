"""The phrases that CONTRIBUTING.md asks to avoid occur nowhere."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "docs" / "check_prose.py"


def load_script():
    spec = importlib.util.spec_from_file_location("check_prose", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_prose = load_script()


def test_the_repository_holds_none_of_the_phrases():
    assert check_prose.check(check_prose.ROOT) == []


# An underscore stands for a space, so that this file holds none of them either.
AVOIDED = [
    "one_tower_a_task",
    "one_loss_a_task",
    "goes_through_the_rows_once_an_epoch",
    "10,000_rows_a_second",
    "one_call_a_batch",
    "keyword_arguments_which_its_class_tells",
    "what_the_loss_has_to_tell",
    "rows_to_watch",
    "weights_that_the_last_step_spoilt",
    "propensities_kept_off_0",
    "gates_start_even",
    "goes_backward_once",
    "is_not_asked_again",
    "continues_on_from_what_was_learnt",
    "tell_whether_a_value_is_missing",
    "added_as_they_are",
]


@pytest.mark.parametrize("phrase", AVOIDED)
@pytest.mark.parametrize("between_words", [" ", "\n", "\n    # "])
def test_a_phrase_is_found(tmp_path, phrase, between_words):
    path = tmp_path / "sk_pwiser" / "_file.py"
    path.parent.mkdir()
    text = phrase.replace("_", between_words)
    path.write_text(f"# First line.\n# {text}.\n", encoding="utf-8")
    (found,) = check_prose.check(tmp_path)
    assert found.startswith("sk_pwiser/_file.py:")


@pytest.mark.parametrize(
    "text",
    [
        "one tower per task",
        "one loss for every task",
        "errors name a parameter",
        "tests call a method",
        "returns whether the value is missing",
        "the rows of a batch",
    ],
)
def test_plain_sentences_pass(text):
    assert list(check_prose.find_phrases(text)) == []


def test_generated_pages_are_not_searched(tmp_path):
    path = tmp_path / "docs" / "generated" / "page.rst"
    path.parent.mkdir(parents=True)
    path.write_text(AVOIDED[0].replace("_", " "), encoding="utf-8")
    assert check_prose.check(tmp_path) == []


@pytest.mark.parametrize(("text", "status"), [("one per task", 0), (AVOIDED[0], 1)])
def test_the_exit_status_is_1_if_a_phrase_is_found(
    monkeypatch, tmp_path, capsys, text, status
):
    (tmp_path / "README.md").write_text(text.replace("_", " "), encoding="utf-8")
    monkeypatch.setattr(check_prose, "ROOT", tmp_path)
    assert check_prose.main() == status
    printed = capsys.readouterr().out
    assert printed.startswith("README.md:1: ") == bool(status)
