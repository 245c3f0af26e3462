"""Files of histories: one file without code, or a folder of Parquet tables."""


class HistoryFiles:
    """To come."""
