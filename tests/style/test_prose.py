"""The phrases that CONTRIBUTING.md asks to avoid occur nowhere."""

import check_prose
import pytest


def test_the_repository_holds_none_of_the_phrases():
    assert check_prose.check(check_prose.ROOT) == []


# An underscore stands for a space, so that this file holds none of them either.
AVOIDED = [
    *("one_tower_a_task", "one_loss_a_task", "goes_through_the_rows_once_an_epoch"),
    *("10,000_rows_a_second", "one_call_a_batch"),
    *("keyword_arguments_which_its_class_tells", "what_the_loss_has_to_tell"),
    *("rows_to_watch", "weights_that_the_last_step_spoilt", "propensities_kept_off_0"),
    *("gates_start_even", "goes_backward_once", "is_not_asked_again"),
    *("continues_on_from_what_was_learnt", "tell_whether_a_value_is_missing"),
    "added_as_they_are",
]


@pytest.mark.parametrize("phrase", AVOIDED)
def test_a_phrase_is_found_within_a_line_and_across_lines(tmp_path, phrase):
    path = tmp_path / "sk_pwiser" / "_file.py"
    path.parent.mkdir()
    for between_words in (" ", "\n", "\n    # "):
        text = phrase.replace("_", between_words)
        path.write_text(f"# First line.\n# {text}.\n", encoding="utf-8")
        (found,) = check_prose.check(tmp_path)
        assert found.startswith("sk_pwiser/_file.py:")


def test_plain_sentences_pass():
    text = """One tower per task, and one loss for every task. Errors name a parameter.
    Tests call a method. It returns whether the value is missing in the rows of a batch.
    """
    assert list(check_prose.find_phrases(text)) == []


@pytest.mark.parametrize(("text", "status"), [("one per task", 0), (AVOIDED[0], 1)])
def test_the_exit_status_is_1_if_a_phrase_is_found(
    monkeypatch, tmp_path, capsys, text, status
):
    (tmp_path / "README.md").write_text(text.replace("_", " "), encoding="utf-8")
    # Generated pages are not searched.
    generated = tmp_path / "docs" / "generated"
    generated.mkdir(parents=True)
    (generated / "page.rst").write_text(AVOIDED[0].replace("_", " "), encoding="utf-8")
    monkeypatch.setattr(check_prose, "ROOT", tmp_path)
    assert check_prose.main() == status
    printed = capsys.readouterr().out
    assert printed.startswith("README.md:1: ") == bool(status)
    assert "page.rst" not in printed
