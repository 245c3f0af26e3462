"""Labels, row weights, groups and blocks of rows."""

from sk_pwiser._table._labels import SoftTargets, Targets

# The classes of labels in a fitted schema, which files may contain.
STATE_CLASSES = (SoftTargets, Targets)
