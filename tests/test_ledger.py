"The ledger: every trial once, whatever happens to the processes that write it."
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from trading_lib.backtest.ledger import Ledger, Trial
from trading_lib.core.errors import BadInput, Damaged
from trading_lib.execution.costs import Costs

ROOT = Path(__file__).resolve().parents[1]
TRIAL = Trial('dip', 'c0de', 'da7a', dict(window=20, depth=.02), Costs(10, 5), .1, 1.5, 100)


@pytest.fixture
def ledger(tmp_path) -> Ledger: return Ledger(tmp_path / 'trials')


def test_an_empty_ledger_counts_nothing(ledger):
    assert ledger.count('dip') == 0 and ledger.trials().empty
    assert ledger.record([]) is None and not ledger.root.exists()


def test_a_repeated_trial_counts_once_in_one_run_and_across_runs(ledger):
    ledger.record([TRIAL, TRIAL])
    ledger.record([TRIAL, replace(TRIAL, params=dict(depth=.02, window=20))])
    assert ledger.count('dip') == 1 and len(ledger.trials()) == 1


@pytest.mark.parametrize('change', [dict(code='other'), dict(fingerprint='other'), dict(params=dict(window=21, depth=.02)),
                                    dict(costs=Costs(10, 6)), dict(costs=Costs(9, 5)), dict(feeds=dict(forecast='f00d'))], ids=lambda c: next(iter(c)))
def test_whatever_identifies_a_trial_makes_another_one(ledger, change):
    ledger.record([TRIAL, replace(TRIAL, **change)])
    assert ledger.count('dip') == 2


def test_the_outcome_is_no_part_of_the_identity(ledger):
    ledger.record([TRIAL])
    ledger.record([replace(TRIAL, total_return=.1 + 1e-13, sharpe=None, bars=100)])
    assert ledger.count('dip') == 1


def test_numpy_values_are_written_as_plain_ones(ledger):
    ledger.record([replace(TRIAL, params=dict(window=np.int64(20), depth=np.float64(.02)), total_return=np.float64(.1)), TRIAL])
    assert ledger.count('dip') == 1


def test_many_processes_write_at_once_and_nothing_is_lost(ledger):
    program = ('import sys; from trading_lib.backtest.ledger import Ledger, Trial; from trading_lib.execution.costs import Costs\n'
               'for i in range(20): Ledger(sys.argv[1]).record([Trial("dip", "c", "d", dict(x=i // 2 if i % 2 else int(sys.argv[2]) * 100 + i), Costs(), 0., 0., 1)])')
    running = [subprocess.Popen([sys.executable, '-c', program, str(ledger.root), str(k)], cwd=ROOT) for k in range(1, 5)]
    assert [p.wait(60) for p in running] == [0] * 4
    assert ledger.count('dip') == 4 * 10 + 10
    assert all(p.suffix == '.jsonl' for p in ledger.root.iterdir())


@pytest.mark.parametrize('harm', [lambda b: b[:-1], lambda b: b'', lambda b: b.replace(b'0.1', b'0.2'), lambda b: b + b'\n{}'])
def test_a_damaged_file_is_named(ledger, harm):
    path = ledger.record([TRIAL])
    path.write_bytes(harm(path.read_bytes()))
    for question in (ledger.trials, lambda: ledger.count('dip')):
        with pytest.raises(Damaged, match=path.name): question()


def test_what_a_dead_writer_left_behind_is_ignored(ledger):
    ledger.record([TRIAL])
    (ledger.root / '.tmpabc').write_text('{"half": ')
    assert ledger.count('dip') == 1


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    program = ('import resource, sys; from trading_lib.backtest.ledger import Ledger, Trial; from trading_lib.execution.costs import Costs\n'
               'from trading_lib.core.errors import BadInput\n'
               'resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n'
               'try: Ledger(sys.argv[1]).record([Trial("dip", "c", "d", {}, Costs(), 0., 0., 1)])\n'
               'except BadInput as error: sys.exit(str(error))')
    done = subprocess.run([sys.executable, '-B', '-c', program, str(tmp_path / 'trials')], cwd=ROOT, capture_output=True, text=True)
    assert 'cannot be written' in done.stderr and len(done.stderr.splitlines()) == 1
    assert list((tmp_path / 'trials').iterdir()) == []


def test_a_ledger_where_a_file_stands_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(BadInput, match='cannot be written'): Ledger(tmp_path / 'file').record([TRIAL])


def test_each_line_is_one_json_object(ledger):
    path = ledger.record(replace(TRIAL, params=dict(window=w)) for w in range(2, 12))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 10 and {row['strategy'] for row in rows} == {'dip'}
