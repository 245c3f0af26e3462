"""The comparison of results between two trees."""

import json

import pytest
import same_results

pytest.importorskip("pyarrow")
NAMES = ["default", "times", "saved"]


def test_two_runs_are_equal_and_a_changed_prediction_is_seen(tmp_path, capsys):
    path = tmp_path / "digests.json"
    assert same_results.main(["--save", str(path), "--only", *NAMES]) == 0
    assert same_results.main(["--compare", str(path), "--only", *NAMES]) == 0
    digests = json.loads(path.read_text(encoding="utf-8"))
    digests["times"]["predictions"] = "0"
    path.write_text(json.dumps(digests), encoding="utf-8")
    capsys.readouterr()
    assert same_results.main(["--compare", str(path), "--only", *NAMES]) == 1
    assert capsys.readouterr().out == "times: predictions\n"
