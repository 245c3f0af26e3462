"""`python -m sk_pwiser` on a few epochs."""

import re

import pytest

from sk_pwiser import __main__ as command


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_table_holds_a_row_per_loss(monkeypatch, capsys, seeds):
    pytest.importorskip("pandas")
    monkeypatch.delenv("SK_PWISER_DATA", raising=False)
    small = command.make_ctr_cvr(1_000, ctr=0.4, cvr=0.4, random_state=0)
    monkeypatch.setattr(command, "make_ctr_cvr", lambda *args, **kwargs: small)
    command.main(["--seeds", str(seeds), "--max-epochs", "1"])
    out = capsys.readouterr().out
    assert re.search(r"500 training rows, 500 test rows; click 4\d\.\d%, conv", out)
    assert len(re.findall(r"seed \d: 1 epochs", out)) == 2 * seeds
    assert "SK_PWISER_DATA is not set" in out
    number = r" +(\d\.\d{4})"
    for loss in command.LOSSES:
        row = re.search(rf"^{loss}{number * 4} +\d+\.\d$", out, re.MULTILINE)
        *aucs, log_loss = map(float, row.groups())
        assert all(0.3 < auc < 1 for auc in aucs)
        assert 0.2 < log_loss < 1
