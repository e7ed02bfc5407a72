"The ledger: every trial once, whatever happens to the processes that write it."
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from trading_lib.backtest import ledger as under_test
from trading_lib.backtest.ledger import Ledger, Trial
from trading_lib.core.errors import BadInput, Damaged
from trading_lib.execution.costs import Costs

ROOT = Path(__file__).resolve().parents[1]
TRIAL = Trial('dip', 'c0de', 'da7a', dict(window=20, depth=.02), Costs(10, 5), .1, 1.5, 100)


@pytest.fixture
def ledger(tmp_path) -> Ledger: return Ledger(tmp_path / 'trials')


def tried(count: int, start: int = 0, **other) -> list[Trial]:
    return [replace(TRIAL, params=dict(window=start + k, depth=.02), **other) for k in range(count)]


def segments(ledger: Ledger) -> list[Path]: return sorted(path for path in ledger.root.iterdir() if not path.name.startswith('.'))


def test_an_empty_ledger_counts_nothing(ledger):
    assert ledger.count('dip') == 0 and ledger.trials().empty and ledger.by_kind().empty and ledger.compact() is None
    assert ledger.record([]) is None and ledger.record_table(pd.DataFrame(dict(window=[])), TRIAL) is None and not ledger.root.exists()


def test_a_repeated_trial_counts_once_in_one_run_and_across_runs(ledger):
    ledger.record([TRIAL, TRIAL])
    ledger.record([TRIAL, replace(TRIAL, params=dict(depth=.02, window=20))])
    assert ledger.count('dip') == 1 and len(ledger.trials()) == 1 and len(segments(ledger)) == 1


@pytest.mark.parametrize('change', [dict(code='other'), dict(fingerprint='other'), dict(params=dict(window=21, depth=.02)),
                                    dict(costs=Costs(10, 6)), dict(costs=Costs(9, 5)), dict(feeds=dict(forecast='f00d')),
                                    dict(stops=dict(stop_loss=.05))], ids=lambda change: next(iter(change)))
def test_whatever_identifies_a_trial_makes_another_one(ledger, change):
    ledger.record([TRIAL, replace(TRIAL, **change)])
    assert ledger.count('dip') == 2
    ledger.record([replace(TRIAL, **change)])
    ledger.compact()
    assert ledger.count('dip') == 2


def test_neither_the_outcome_nor_who_asked_is_part_of_the_identity(ledger):
    ledger.record([TRIAL])
    ledger.record([replace(TRIAL, total_return=.1 + 1e-13, sharpe=None, bars=100, kind='search')])
    assert ledger.count('dip') == 1


def test_a_kind_of_work_that_there_is_not_is_refused():
    with pytest.raises(BadInput, match='kind was sweeep; did you mean sweep'): replace(TRIAL, kind='sweeep')


def test_numpy_values_are_written_as_plain_ones(ledger):
    same = dict(params=dict(window=np.int64(20), depth=np.float64(.02)), total_return=np.float64(.1), costs=Costs(np.int64(10), 5.))
    ledger.record([replace(TRIAL, **same), TRIAL])
    assert ledger.count('dip') == 1


def test_what_was_recorded_is_what_is_read(ledger):
    ledger.record([replace(TRIAL, stops=dict(time_stop=5, stop_loss=.1), feeds=dict(mood='f00d'), sharpe=None, total_return=float('nan'))])
    before = pd.Timestamp.now('UTC')
    for _ in range(2):
        (row,) = ledger.trials().to_dict('records')
        assert row.pop('recorded') <= before and np.isnan(row.pop('sharpe')) and np.isnan(row.pop('total_return'))
        assert row == dict(strategy='dip', code='c0de', fingerprint='da7a', params=TRIAL.params, feeds=dict(mood='f00d'), fee_bps=10.,
                           slippage_bps=5., stops=dict(stop_loss=.1, time_stop=5), kind='backtest', bars=100)
        ledger.compact()


# ── a million at once ──

def test_a_table_says_the_same_as_its_trials_one_by_one(ledger, tmp_path):
    rng = np.random.default_rng(3)
    n = 500
    table = pd.DataFrame(dict(window=rng.integers(2, 200, n), depth=rng.choice([.1, 1e-7, 5., 1 / 3, 1e22], n), calm=rng.random(n) < .5,
                              mode=rng.choice(['a"b', 'c'], n), stop_loss=np.where(rng.random(n) < .3, np.nan, rng.choice([.05, .1], n)),
                              time_stop=np.where(rng.random(n) < .5, np.nan, 7.), sharpe=rng.normal(size=n),
                              total_return=np.where(rng.random(n) < .1, np.nan, .5), trades=3, refused=''))
    like = replace(TRIAL, params=dict(window=1, depth=1., calm=True, mode='c', left=4), stops=dict(take_profit=.2), kind='sweep')
    ledger.record_table(table, like)
    apart = Ledger(tmp_path / 'apart')
    some = lambda row: {name: row[name] for name in ('window', 'depth', 'calm', 'mode')}
    stops = lambda row: {name: kind(row[name]) for name, kind in (('stop_loss', float), ('time_stop', int)) if row[name] == row[name]}
    apart.record(replace(like, params=like.params | some(row), stops=like.stops | stops(row), sharpe=row['sharpe'],
                         total_return=None if np.isnan(row['total_return']) else row['total_return']) for row in table.to_dict('records'))
    pd.testing.assert_frame_equal(ledger.trials().drop(columns='recorded'), apart.trials().drop(columns='recorded'))
    assert segments(ledger)[0].name == segments(apart)[0].name


def test_a_hundred_thousand_rows_are_one_segment_and_one_count(ledger):
    n = 100_000
    ledger.record_table(pd.DataFrame(dict(window=np.arange(n), sharpe=np.arange(n) / n)), TRIAL)
    ledger.record_table(pd.DataFrame(dict(window=np.arange(n // 2, n + 10), sharpe=0.)), replace(TRIAL, kind='search'))
    assert ledger.count('dip') == n + 10 and len(segments(ledger)) == 2
    assert ledger.compact() == segments(ledger)[0] and ledger.count('dip') == n + 10
    assert ledger.by_kind().kinds[0] == dict(backtest=n, search=10)


def test_costs_and_bars_may_differ_down_a_table(ledger):
    ledger.record_table(pd.DataFrame(dict(fee_bps=[10, 20, 10.], slippage_bps=[5., 5, 5], fingerprint=['a', 'a', 'b'], bars=[5, 5, 6])), TRIAL)
    ledger.record([replace(TRIAL, fingerprint='a', costs=Costs(20, 5))])
    assert ledger.count('dip') == 3


# ── reading ──

def test_the_latest_trials_come_first(ledger):
    for k in range(3):
        path = ledger.record(tried(2, 10 * k))
        os.utime(path, (1e9 + k, 1e9 + k))
    assert [p['window'] for p in ledger.trials(limit=3).params][:2] in ([20, 21], [21, 20]) and len(ledger.trials(limit=3)) == 3
    ledger.compact()
    assert sorted(p['window'] for p in ledger.trials('dip', limit=4).params) == [10, 11, 20, 21]
    assert len(ledger.trials(limit=100)) == 6 and ledger.trials('other').empty


def test_counts_by_kind_say_what_was_tried_and_when(ledger):
    os.utime(ledger.record(tried(3, sharpe=.5)), (1e9, 1e9))
    os.utime(ledger.record(tried(40, 100, sharpe=None, kind='sweep')), (2e9, 2e9))
    ledger.record([replace(TRIAL, strategy='trend', code='d' * 64)])
    for _ in range(2):
        dip, trend = ledger.by_kind().to_dict('records')
        assert dip == dict(strategy='dip', code='c0de', data='da7a', trials=43, kinds=dict(backtest=3, sweep=40), best_sharpe=.5,
                           first=pd.Timestamp(1e9, unit='s', tz='UTC'), last=pd.Timestamp(2e9, unit='s', tz='UTC'))
        assert trend['code'] == 'd' * 12 and trend['trials'] == 1
        ledger.compact()
    assert ledger.by_kind('trend').strategy.tolist() == ['trend'] and ledger.by_kind('never').empty


def former(ledger: Ledger, trials: list[Trial]) -> Path:
    "A segment as it was written before there were stops."
    rows = [{name: value for name, value in trial.row().items() if name not in ('stops', 'kind')} for trial in trials]
    content = '\n'.join(sorted({json.dumps(row, sort_keys=True, separators=(',', ':')) for row in rows})).encode() + b'\n'
    ledger.root.mkdir(exist_ok=True)
    path = ledger.root / f'{sha256(content).hexdigest()[:32]}.jsonl'
    path.write_bytes(content)
    return path


def test_the_former_lines_are_read_and_folded(ledger):
    os.utime(former(ledger, tried(3)), (1e9, 1e9))
    os.utime(former(ledger, tried(4, 1)), (2e9, 2e9))
    assert ledger.count('dip') == 5 and ledger.trials().stops.tolist() == [{}] * 5
    assert ledger.by_kind().iloc[0][['first', 'last']].tolist() == [pd.Timestamp(when, unit='s', tz='UTC') for when in (1e9, 2e9)]
    ledger.record(tried(3, 4, costs=Costs(10., 5.)))
    assert ledger.count('dip') == 7
    ledger.compact()
    assert ledger.count('dip') == 7 and [path.suffix for path in segments(ledger)] == ['.parquet']
    damaged = former(ledger, tried(2, 50))
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises(Damaged, match=damaged.name): ledger.count('dip')


@pytest.mark.parametrize('harm', [lambda b: b[:-1], lambda b: b'', lambda b: b.replace(b'c0de', b'c0d3'), lambda b: b + b'\n{}'])
def test_a_damaged_file_is_named_and_left_alone(ledger, harm):
    path = ledger.record([TRIAL])
    ledger.record(tried(3, 100))
    path.write_bytes(harm(path.read_bytes()))
    for question in (ledger.trials, ledger.by_kind, ledger.compact, lambda: ledger.count('dip')):
        with pytest.raises(Damaged, match=path.name): question()
    assert len(segments(ledger)) == 2


def test_what_a_dead_writer_left_behind_is_ignored(ledger):
    ledger.record([TRIAL])
    for name in ('.tmpabc', '.0123.parquet.77.99.tmp', '.fold.tmp'): (ledger.root / name).write_text('{"half": ')
    assert ledger.count('dip') == 1
    ledger.record(tried(2, 50))
    os.utime(ledger.root / '.0123.parquet.77.99.tmp', (1e9, 1e9))
    (ledger.root / '.4567.parquet.78.99.tmp').write_text('this one is being written')
    ledger.compact()
    assert ledger.count('dip') == 3 and {path.name for path in ledger.root.glob('.*tmp*')} == {'.tmpabc', '.4567.parquet.78.99.tmp'}


# ── folding ──

def test_many_small_runs_become_few_segments_by_themselves(ledger):
    for k in range(100):
        ledger.record(tried(1, k // 2))
        assert len(segments(ledger)) <= 33
    assert ledger.count('dip') == 50 and pq.ParquetFile(max(segments(ledger), key=lambda p: p.stat().st_size)).num_row_groups == 1


def test_a_damaged_segment_does_not_stop_the_next_recording(ledger):
    path = ledger.record([TRIAL])
    path.write_bytes(b'PAR1')
    for k in range(40): ledger.record(tried(1, 100 + k))
    assert len(segments(ledger)) == 41
    path.unlink()
    ledger.compact()
    assert ledger.count('dip') == 40 and len(segments(ledger)) == 1


@pytest.mark.parametrize('place, name, call', [(os, 'replace', 1), (under_test, 'write_whole', 1), (Path, 'unlink', 3)])
def test_a_fold_that_dies_at_any_step_loses_and_doubles_nothing(ledger, monkeypatch, place, name, call):
    for k in range(4): ledger.record(tried(10, 5 * k))
    expected = ledger.trials().params.map(str).sort_values().tolist()
    real, calls = getattr(place, name), []

    def dies(*args, **kwargs):
        calls.append(args)
        if len(calls) == call: raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(place, name, dies)
        with pytest.raises(KeyboardInterrupt): ledger.compact()
    for _ in range(2):
        assert ledger.count('dip') == 25 and ledger.trials().params.map(str).sort_values().tolist() == expected
        ledger.compact()
    assert len(segments(ledger)) == 1


def test_a_reader_who_is_overtaken_by_a_fold_misses_nothing(ledger, monkeypatch):
    for k in range(4): ledger.record(tried(10, 5 * k))
    real, folds = Ledger._paths, []

    def torn(self):
        "A listing that has passed the place of the new segment, and not yet come to the old ones, when the fold happens."
        found = real(self)
        if folds: return found
        folds.append(1)
        Ledger(self.root).compact()
        return found

    monkeypatch.setattr(Ledger, '_paths', torn)
    assert ledger.count('dip') == 25 and len(segments(ledger)) == 1
    monkeypatch.setattr(Ledger, '_mark', lambda self: b'')
    for k in range(4, 6): ledger.record(tried(10, 5 * k))
    folds.clear()
    assert ledger.count('dip') < 35   # what the mark is there for


def test_two_folds_at_once_take_turns(ledger):
    ledger.record(tried(3)); ledger.record(tried(3, 10))
    with ledger._alone(0), pytest.raises(BadInput, match='another process is folding'):
        with Ledger(ledger.root)._alone(0): pass
    for k in range(40): ledger.record(tried(1, 100 + k))
    assert ledger.count('dip') == 46


# ── processes ──

WORK = """
import os, sys
from trading_lib.backtest.ledger import Ledger, Trial
from trading_lib.execution.costs import Costs
ledger, me = Ledger(sys.argv[1]), int(sys.argv[2])
for i in range(int(sys.argv[3])):
    ledger.record([Trial('dip', 'c', 'd', dict(x=x), Costs(), 0., 0., 1) for x in (i, 10_000 * me + i)])
    print(i, flush=True)
    if i % 5 == me % 5: ledger.compact()
"""


def test_processes_record_fold_and_die_together_and_nothing_is_lost_or_doubled(ledger):
    def start(me, rounds):
        command = [sys.executable, '-c', WORK, str(ledger.root), str(me), str(rounds)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    rounds, doomed = 25, start(9, 100_000)
    running = [start(me, rounds) for me in (1, 2)]
    counts, done = [], 0
    for line in doomed.stdout:
        counts.append(ledger.count('dip'))
        done = int(line) + 1
        if done >= 15: break
    doomed.send_signal(signal.SIGKILL)
    while any(each.poll() is None for each in running): counts.append(ledger.count('dip')); time.sleep(.01)
    done += len(doomed.stdout.readlines())
    assert [each.wait(60) for each in running] == [0] * 2 and doomed.wait() == -signal.SIGKILL
    assert counts == sorted(counts)   # a reader never sees fewer than before
    for _ in range(2):
        seen = {params['x'] for params in ledger.trials().params}
        kept = {10_000 * 9 + i for i in range(done + 1)} & seen
        assert len(kept) >= done and ledger.count('dip') == len(seen)
        assert seen == {*range(max(rounds, len(kept))), *(10_000 * me + i for me in (1, 2) for i in range(rounds)), *kept}
        ledger.compact()
    assert len(segments(ledger)) == 1


# ── what the disk says ──

LIMITED = """
import resource, sys
from trading_lib.backtest.ledger import Ledger, Trial
from trading_lib.core.errors import BadInput
from trading_lib.execution.costs import Costs
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
ledger = Ledger(sys.argv[1])
for act in (lambda: ledger.record([Trial("dip", "c", "d", {}, Costs(), 0., 0., 1)]), ledger.compact):
    try: act()
    except BadInput as error: print(error)
"""


def test_a_full_disk_is_one_line_and_leaves_all_as_it_was(ledger):
    for k in range(3): ledger.record(tried(10, 5 * k))
    before = {path.name: path.read_bytes() for path in segments(ledger)}
    done = subprocess.run([sys.executable, '-B', '-c', LIMITED, str(ledger.root)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count('cannot be written (File too large); nothing was changed') == len(done.stdout.splitlines()) == 2
    assert {path.name: path.read_bytes() for path in ledger.root.iterdir() if path.name != '.lock'} == before and ledger.count('dip') == 20


def test_a_ledger_where_a_file_stands_is_refused(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(BadInput, match='cannot be written'): Ledger(tmp_path / 'file').record([TRIAL])
