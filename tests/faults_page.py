"""Write docs/faults.md: what may break, what the bot does then, and whether a test has just shown it.

    python tests/faults_page.py [options for pytest, such as -n 2]

Numbers and words are those of the tests: their names, their docstrings, and why one of them does not pass yet.
"""
import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS.parent / 'docs' / 'faults.md'
FAULTS = 72
PARTS = {1: 'Sending an order', 26: 'Reading', 40: 'Connection, limits, clock and the state of the venue', 57: 'Process, storage and people'}


def fault_tests() -> dict[str, tuple[int, str, str]]:
    "Every test of a fault: its name, with the number, what breaks, and what the bot does."
    found = {}
    for path in sorted(TESTS.glob('test_*.py')):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or not (named := re.match(r'test_fault_(\d\d)_', node.name)): continue
            fault, arrow, does = (ast.get_docstring(node) or '').partition(' → ')
            if not arrow or '\n' in does: raise SystemExit(f'{path.name}: the docstring of {node.name} must be one line: what breaks → what the bot does')
            found[f'{path.name}::{node.name}'] = int(named[1]), fault, does
    return dict(sorted(found.items(), key=lambda each: each[1][0]))


class Outcomes:
    "What became of each test; the worst of those that differ in their parameters only."

    def __init__(self): self.said = defaultdict(list)

    def pytest_runtest_logreport(self, report):
        name = report.nodeid.partition('[')[0].rpartition('/')[2]   # a parameter may have a slash
        if hasattr(report, 'wasxfail') and report.skipped: self.said[name].append(f'not yet: {report.wasxfail.removeprefix("reason: ")}')
        elif report.failed or report.skipped: self.said[name].append('**failed**' if report.failed else 'skipped')
        elif report.when == 'call': self.said[name].append('passed')

    def of(self, name: str) -> str: return max(self.said[name] or ['not run'], key=lambda said: (said.startswith('**'), said != 'passed'))


def page(tests: dict[str, tuple[int, str, str]], outcomes: dict[str, str]) -> str:
    covered = {number for number, *_ in tests.values()}
    good, wanting = ({tests[name][0] for name, said in outcomes.items() if said.startswith(word)} for word in ('passed', 'not yet'))
    lines = ['# Faults', '', '> Written by `make faults` from the tests and what became of them; nothing here is typed in by hand.', '',
             f'**{len(covered)} of {FAULTS} faults are injected, by {len(tests)} tests. Of {len(good - wanting)} faults all of the answer is there, '
             f'of {len(good & wanting)} a part, of {len(wanting - good)} none yet.**', '',
             'A bot trades through unmodified ccxt at the local exchange while one thing breaks. Unless the table says otherwise, its books must end as in a run in '
             'which nothing broke: orders, fills, decisions, equity of every bar and balances, in `Decimal`. What is not there yet is a test that must fail, and says why.']
    for name, (number, fault, does) in tests.items():
        if parts := [part for first, part in PARTS.items() if first <= number]:
            if f'## {parts[-1]}' not in lines: lines += ['', f'## {parts[-1]}', '', '| # | fault | what the bot does | test |', '| ---: | --- | --- | --- |']
        lines.append(f'| {number} | {fault} | {does[:1].upper() + does[1:]} | {outcomes[name]} |'.replace('{}', '`{}`'))
    return '\n'.join(lines) + '\n'


def main() -> int:
    tests, outcomes = fault_tests(), Outcomes()
    files = sorted({str(TESTS / name.partition('::')[0]) for name in tests})
    code = pytest.main(['-q', '-k', 'test_fault_', *sys.argv[1:], *files], plugins=[outcomes])
    PAGE.write_text(page(tests, {name: outcomes.of(name) for name in tests}))
    print(f'{PAGE.relative_to(TESTS.parent)} is written')
    return int(code)


if __name__ == '__main__': sys.exit(main())
