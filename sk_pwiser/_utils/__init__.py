"""Shared by all folders, one file per subject; some of them need no torch."""
