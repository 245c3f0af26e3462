"""Places at which long names of code break on narrow screens.

A browser breaks a name such as `sk_pwiser.metrics.grouped_auc_score`, where it must,
after any letter. The pages allow it to break after the dots and the signs of code in
between; `site.css` keeps whole what fits into a line.
"""

import re

# A name of code, as Sphinx writes it, that may be wider than the column of a phone.
LONG_NAME = re.compile(r'(?<=<span class="pre">)[^<\s]{16,}(?=</span>)')
# Behind a dot after a name, the two underscores of a parameter of a step and the signs
# of a call; not within numbers.
BREAK = re.compile(r"(?<=[A-Za-z_)\]]\.|__|.[(=,])(?=[A-Za-z\d&\"'(\[])")
# Code with such a place, its link, and the signs without a space before and behind it.
CODE = r"<code [^>]*>(?:(?!</code>).)*<wbr>(?:(?!</code>).)*</code>"
CODE_AND_SIGNS = re.compile(rf"[(“]?(?:<a [^>]*>{CODE}</a>|{CODE})[^\s<]*", re.DOTALL)
# In the tables of the reference, Sphinx has no space at which a signature may break.
SUMMARY = re.compile(r'<table class="autosummary.*?</table>', re.DOTALL)
NO_BREAK_SPACE = "\xa0"


def setup(app):
    """Change each page before its template is filled."""
    app.connect("html-page-context", allow_breaks_of_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def allow_breaks_of_page(app, name, template, context, doctree):
    """Allow the breaks in the body of a page, if it has one."""
    if "body" in context:
        context["body"] = allow_breaks(context["body"])


def allow_breaks(page):
    """Return the HTML of a page in which long names and signatures may break."""
    page = SUMMARY.sub(lambda table: table[0].replace(NO_BREAK_SPACE, " "), page)
    page = LONG_NAME.sub(lambda name: BREAK.sub("<wbr>", name[0]), page)
    return CODE_AND_SIGNS.sub(r'<span class="unbroken">\g<0></span>', page)
