"""Formulas become pictures that load nothing, or errors."""

import re
from xml.etree import ElementTree

import pytest
from docs_scripts import load_script

pytest.importorskip("ziamath")
math_svg = load_script("math_svg")


def test_a_picture_has_the_colour_and_the_size_of_its_text():
    svg = math_svg.picture(r"\frac{1}{n} \sum_i w_i < 1", is_inline=True)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == r"\frac{1}{n} \sum_i w_i < 1"
    assert set(re.findall(r'fill="([^"]+)"', svg)) == {"currentColor"}
    width = float(re.search(r"width:([\d.]+)em", svg).group(1))
    assert 2 < width < 8
    # Fractions reach below the line of the text.
    assert float(re.search(r"vertical-align:([-\d.]+)em", svg).group(1)) < -0.3
    assert "id=" not in svg
    assert "href" not in svg.replace("xmlns:xlink", "")


def test_formulas_of_a_line_of_their_own_are_taller():
    def height(is_inline):
        svg = math_svg.picture(r"\sum_i \frac{a}{b}", is_inline)
        return float(re.search(r'viewBox="([^"]+)"', svg).group(1).split()[3])

    assert height(is_inline=False) > height(is_inline=True)


def test_unknown_commands_are_errors():
    with pytest.raises(math_svg.ExtensionError, match="unknown in the formula"):
        math_svg.picture(r"x + \nosuchcommand y", is_inline=True)
