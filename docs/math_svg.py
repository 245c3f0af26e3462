"""Formulas as SVG pictures, drawn when the pages are built.

Pages load neither a script nor a font for them, so that formulas also appear without a
network. Pictures have the colour of the text around them, in light and dark.
"""

import html
import re

import ziamath
from docutils.nodes import SkipNode
from sphinx.errors import ExtensionError

SIZE = 24  # of the font, in units of the pictures
ziamath.config.svg2 = False  # outlines in place of ids, which a page would repeat


def setup(app):
    """Register the renderer under the name "svg"."""
    app.add_html_math_renderer("svg", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def visit_inline(translator, node):
    """Write a formula within the text."""
    translator.body.append(picture(node.astext(), is_inline=True))
    raise SkipNode


def visit_block(translator, node):
    """Write a formula of its own line, which scrolls on narrow screens."""
    formula = picture(node.astext(), is_inline=False)
    translator.body.append(f'<div class="formula">{formula}</div>\n')
    raise SkipNode


def picture(tex, is_inline):
    """Return the SVG element of a formula.

    Its size is in units of the font around it, and its baseline is that of the text.

    Raises
    ------
    ExtensionError
        If the formula has a command that would appear by its name.
    """
    tex = " ".join(tex.split())
    formula = ziamath.Latex(tex, size=SIZE, color="currentColor", inline=is_inline)
    if "\\" in re.sub("<[^>]*>", "", formula.mathmlstr()):
        raise ExtensionError(f"A command is unknown in the formula {tex!r}.")
    head, shapes = formula.svg().split(">", 1)
    box = re.search(r'viewBox="([^"]+)"', head).group(1)
    _, top, width, height = (float(number) / SIZE for number in box.split())
    return (
        f'<svg role="img" aria-label="{html.escape(tex)}" viewBox="{box}" '
        f'style="width:{width:.3f}em;vertical-align:{-(height + top):.3f}em">{shapes}'
    )
