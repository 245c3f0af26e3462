"""Links from estimators to the API reference."""

from functools import cache
from importlib.metadata import PackageNotFoundError, metadata


@cache
def documentation_address() -> str:
    try:
        lines: list[str] = metadata("sk_pwiser").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    urls = dict(line.split(", ", 1) for line in lines)
    return urls.get("Documentation", "").rstrip("/")


class DocLink:
    """Mixin class of estimators with a page in the API reference."""

    _doc_link_module = "sk_pwiser"

    @property
    def _doc_link_template(self) -> str:
        address = documentation_address()
        page = "/generated/{estimator_module}.{estimator_name}.html"
        return address and address + page
