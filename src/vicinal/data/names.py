"""The names by which files, dictionaries and tables are recognised to hold inputs, targets and the like."""

KEYS = ("x_train", "y_train", "x_test", "y_test")
INPUTS = ("x", "X", "data", "inputs", "image", "images")
TARGETS = ("y", "Y", "target", "targets", "label", "labels")
CLASS_NAMES = ("class_names", "target_names")
SPLIT = ("split", "test")
"""Which examples are for testing."""

TARGET_COLUMNS = frozenset((*map(str.lower, TARGETS), "class"))
"""Columns of a table, in lower case, that are the target if no other is named."""
