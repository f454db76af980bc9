"""The faults of tests/mutants.py can be made: their text is there, once."""

import pytest

from tests.mutants import MUTANTS, ROOT, occurrences


@pytest.mark.parametrize("name", MUTANTS)
def test_a_fault_can_be_made_in_one_place_and_named_tests_are_there(name):
    mutant = MUTANTS[name]
    assert occurrences(mutant) == 1
    assert mutant.text != mutant.instead
    for test in mutant.caught_by:
        path, _, function = test.partition("::")
        assert (
            f"def {function.partition('[')[0]}(" in (ROOT / path).read_text() if function else (ROOT / path).is_file()
        )


def test_no_two_faults_are_the_same():
    assert len({(mutant.path, mutant.text) for mutant in MUTANTS.values()}) == len(MUTANTS)
    assert len({mutant.fault for mutant in MUTANTS.values()}) == len(MUTANTS)
