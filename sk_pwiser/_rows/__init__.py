"""The rows of a fit: as the user passes them, checked, encoded, and in batches."""
