"""The tasks of a fit, and which of them presupposes which."""
