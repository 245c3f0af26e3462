"""The estimator's picture in notebooks: scikit-learn's, with the fitted network."""

from sk_pwiser._estimator._summary import summary_html


class HTML:
    """The estimator's HTML.

    scikit-learn builds it for both methods; the way how has changed between its
    versions, so that the summary is appended here.
    """

    def _repr_html_inner(self):
        return super()._repr_html_inner() + self._summary_html()

    def _repr_mimebundle_(self, **kwargs):
        bundle = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] += self._summary_html()
        return bundle

    def _summary_html(self):
        """Return the summary of the fit, empty before it."""
        return summary_html(self._result) if hasattr(self, "_result") else ""
