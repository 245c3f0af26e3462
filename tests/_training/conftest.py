import pytest

from sk_pwiser._columns._encoder import TableEncoder


@pytest.fixture
def encodings(monkeypatch):
    """Return a list with the name of each method of the encoder that was called."""
    calls = []

    def counted(name):
        method = getattr(TableEncoder, name)

        def call(self, *args, **kwargs):
            calls.append(name)
            return method(self, *args, **kwargs)

        return call

    for name in ("fit", "transform"):
        monkeypatch.setattr(TableEncoder, name, counted(name))
    return calls
