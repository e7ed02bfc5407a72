"Every fault of the list has a test of its number, and docs/faults.md tells of all of them."
from types import SimpleNamespace

from faults_page import FAULTS, PAGE, Outcomes, fault_tests, page


def test_every_fault_has_a_test_named_by_its_number():
    assert {number for number, *_ in fault_tests().values()} == set(range(1, FAULTS + 1))


def test_the_page_is_made_of_the_tests_as_they_are():
    told, wanted = PAGE.read_text().splitlines(), page(tests := fault_tests(), dict.fromkeys(tests, '')).splitlines()
    words = lambda lines: [line.split(' | ')[:3] for line in lines if line.startswith(('| ', '## '))]
    assert words(told) == words(wanted), 'write it anew: make faults'
    assert not {'| **failed** |', '| not run |', '| skipped |'} & {line[line.rindex(' | ') + 1:] for line in told if line.startswith('| ')}


def test_of_several_outcomes_the_worst_is_told():
    outcomes = Outcomes()
    outcomes.pytest_runtest_logreport(SimpleNamespace(nodeid='tests/test_x.py::c[a/b]', when='call', failed=False, skipped=False))
    outcomes.said['a'] = ['passed', 'not yet: no code', 'passed']
    outcomes.said['b'] = ['not yet: no code', '**failed**']
    assert (outcomes.of('a'), outcomes.of('b'), outcomes.of('test_x.py::c'), outcomes.of('d')) == ('not yet: no code', '**failed**', 'passed', 'not run')
