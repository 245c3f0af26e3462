"""Long names of code may break on narrow screens, and nothing else may."""

import line_breaks
import pytest


def code(name):
    return f'<code class="literal"><span class="pre">{name}</span></code>'


def unbroken(text):
    return f'<span class="unbroken">{text}</span>'


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sk_pwiser.metrics.ctr_scorer", "sk_pwiser.<wbr>metrics.<wbr>ctr_scorer"),
        (
            "fit(X,early_stopping=(1,2))",
            "fit(<wbr>X,<wbr>early_stopping=<wbr>(<wbr>1,<wbr>2))",
        ),
        ("params__embedding_weight_decay", "params__<wbr>embedding_weight_decay"),
        ('loss="pwiser_with_pairs"', 'loss=<wbr>"pwiser_with_pairs"'),
        ("model.score(rows)", "model.<wbr>score(<wbr>rows)"),
        ("category_embeddings()", "category_embeddings()"),
        ("0.123456789012345", "0.123456789012345"),
        ("sk_pwiser.losses", "sk_pwiser.<wbr>losses"),
        ("model.fit", "model.fit"),
    ],
)
def test_a_name_breaks_after_dots_and_signs(name, expected):
    text = code(expected)
    if "<wbr>" in expected:
        text = unbroken(text)
    assert line_breaks.allow_breaks(code(name)) == text


def test_a_comma_or_bracket_stays_beside_its_code():
    name = "sk_pwiser.metrics.ctr_scorer"
    with_breaks = code("sk_pwiser.<wbr>metrics.<wbr>ctr_scorer")
    page = f'see (<a href="x">{code(name)}</a>), {code(name)}; {code("fit")}, x'
    first = unbroken(f'(<a href="x">{with_breaks}</a>),')
    second = unbroken(f"{with_breaks};")
    expected = f"see {first} {second} {code('fit')}, x"
    assert line_breaks.allow_breaks(page) == expected


def test_blocks_of_code_and_links_stay():
    page = (
        '<pre><span class="n">sk_pwiser.metrics.scorer</span></pre>'
        '<a href="sk_pwiser.metrics.ctr_auc_scorer.html">x</a>'
    )
    assert line_breaks.allow_breaks(page) == page


def test_signatures_of_a_summary_have_spaces():
    signature = "(X,\xa0Y,\xa0*,\xa0n_select)"
    table = '<table class="autosummary longtable table"><td>{}</td></table>'
    page = f"<p>5\xa0%</p>{table.format(signature)}<p>6\xa0%</p>"
    spaced = f"<p>5\xa0%</p>{table.format('(X, Y, *, n_select)')}<p>6\xa0%</p>"
    assert line_breaks.allow_breaks(page) == spaced


def test_pages_without_a_body_stay():
    context = {"title": "Search"}
    line_breaks.allow_breaks_of_page(None, "search", "search.html", context, None)
    assert context == {"title": "Search"}
