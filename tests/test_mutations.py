"""The list of mutations fits the source and the tests; `python tests/mutations.py` runs it."""

import ast
import functools
from collections import Counter

import pytest
from mutations import ROOT, mutations

ALL = mutations()


@functools.cache
def read(name):
    return (ROOT / name).read_text()


@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.breaks)
def test_a_mutation_changes_one_place_of_the_source(mutation):
    source = read(mutation.file)
    changed = mutation.apply(source)
    assert changed != source
    ast.parse(changed)


@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.breaks)
def test_a_mutation_names_tests_that_exist(mutation):
    for test in mutation.tests:
        file, _, function = test.partition("::")
        found = not function or f"def {function}(" in read(file)
        assert found, f"expected {test}, got no test of this name; give its new one"


def test_mutations_are_many_and_have_names_of_their_own():
    assert len(ALL) >= 60
    assert [name for name, count in Counter(mutation.breaks for mutation in ALL).items() if count > 1] == []
