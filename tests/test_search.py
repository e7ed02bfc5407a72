"A search is a function of its question: killed, interrupted, shared or continued, its trials are the same."
import itertools
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Annotated, Literal
from uuid import uuid4

import cloudpickle
import numpy as np
import pandas as pd
import pytest
from annotated_types import Interval
from optuna.trial import TrialState
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.run import backtest
from trading_lib.backtest.search import (
    BETTER,
    METRICS,
    ask,
    floors,
    front,
    neighbourly,
    objectives_of,
    read_queue,
    search,
    slices,
    work_off,
)
from trading_lib.backtest.study import Plan, _values, axis_of, opened, proposals, space
from trading_lib.backtest.sweep import sweep
from trading_lib.core.errors import BadInput, Damaged, Unreachable
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample, together
from trading_lib.market.synthetic import synthetic_market
from trading_lib.risk.stops import Stops
from trading_lib.signals.indicators import sma
from trading_lib.strategies.contract import describe, find, strategy
from trading_lib.strategies.trend import donchian_breakout, sma_cross

SLOW = '''
import time
from typing import Annotated
from annotated_types import Interval
from trading_lib.core.errors import BadInput
from trading_lib.signals.indicators import sma
from trading_lib.strategies import strategy

@strategy
def patient(bars, fast: Annotated[int, Interval(ge=2, le=40)] = 10, slow: Annotated[int, Interval(ge=5, le=80)] = 30):
    with open(__file__ + '.tried', 'a') as file: file.write(f'{fast} {slow}\\n')
    time.sleep(.005)
    if fast >= slow: raise BadInput(f'fast was {fast} and slow {slow}; fast must be the smaller')
    return sma(bars.close, fast) > sma(bars.close, slow)
'''


@pytest.fixture(scope='module')
def sample():
    made = synthetic_market(seed=11, bars=1200, symbols=('BTC/USDT',)).samples['BTC/USDT']
    search(sma_cross, made, 1)   # so that processes that are killed need not compile first
    return made


@pytest.fixture
def patient(tmp_path) -> str:
    "A strategy that takes its time, and writes down what it was asked."
    (tmp_path / 'slow.py').write_text(SLOW)
    return f'{tmp_path / "slow.py"}:patient'


def asked(patient: str) -> list[str]:
    file = Path(patient.rpartition(':')[0] + '.tried')
    return file.read_text().splitlines() if file.exists() else []


@pytest.fixture(params=['folder', 'postgresql'])
def storage(request, tmp_path):
    "Where a study is kept: a folder, or an empty schema of a database; skipped where there is no server."
    if request.param == 'folder': yield tmp_path / 'studies'; return
    address = os.environ.get('TRADING_TEST_POSTGRES', 'postgresql+psycopg://postgres@127.0.0.1:5432/test')
    try: server = create_engine(address, connect_args={'connect_timeout': 2}, isolation_level='AUTOCOMMIT').connect()
    except OperationalError as error:
        pytest.skip(f'no PostgreSQL at {address} (name one with TRADING_TEST_POSTGRES): {str(error).splitlines()[0]}')
    schema = f'search_{uuid4().hex[:12]}'
    with server:
        server.execute(text(f'create schema {schema}'))
        try: yield f'{address.replace("+psycopg", "")}?options=-csearch_path%3D{schema}'
        finally: server.execute(text(f'drop schema {schema} cascade'))


def same(found, expected):
    pd.testing.assert_frame_equal(found.table, expected.table, check_exact=True)
    facts = lambda one: [(t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs, t.constraints) for t in one.study.get_trials()]
    assert facts(found) == facts(expected)


def another(function, *args, **kwargs) -> multiprocessing.Process:
    "The same in a process of its own."
    process = multiprocessing.get_context('fork').Process(target=function, args=args, kwargs=kwargs)
    process.start()
    return process


def until(true, patience_s: float = 30.):
    end = monotonic() + patience_s
    while not true():
        assert monotonic() < end, 'it never happened'
        sleep(.002)


@pytest.mark.parametrize(('storage', 'kill', 'trials', 'counts'), indirect=['storage'], argvalues=[
    ('folder', signal.SIGKILL, 14, (3, 11)), ('folder', signal.SIGINT, 14, (3, 11)), ('postgresql', signal.SIGKILL, 10, (5,))])
def test_a_killed_search_goes_on_and_equals_one_that_was_not(patient, sample, storage, kill, trials, counts):
    call = dict(strategy=patient, sample=sample, trials=trials, costs=Costs(10, 5))
    for count in counts:
        victim = another(search, **call, storage=storage)
        until(lambda count=count: len(asked(patient)) >= count)
        os.kill(victim.pid, kill)
        victim.join()
        assert victim.exitcode
    found = search(**call, storage=storage)
    times = len(asked(patient))
    assert 0 < found.computed <= trials - counts[-1] + len(counts)
    assert trials <= times <= trials + len(counts)   # what it was at is tried again, and nothing else
    same(found, search(**call))
    assert search(**call, storage=storage).computed == 0 and len(asked(patient)) == times + trials


def test_several_processes_do_nothing_twice_and_one_may_die(patient, sample, storage):
    call = dict(strategy=patient, sample=sample, trials=16)
    others = [another(search, **call, storage=storage) for _ in range(2)]
    until(lambda: len(asked(patient)) > 4)
    os.kill(others[0].pid, signal.SIGKILL)
    for each in others: each.join()
    assert [each.exitcode for each in others] == [-signal.SIGKILL, 0]
    tried = asked(patient)
    lost = len(tried) - 16
    assert len(set(tried)) == 16 and 0 <= lost <= 8   # what the victim had not written down yet, and nothing else
    found = search(**call, storage=storage)
    assert found.computed == 0
    same(found, search(**call))


def test_more_workers_are_more_processes_and_the_same_search(patient, sample, tmp_path, capfd):
    call = dict(strategy=patient, sample=sample, trials=16)
    found = search(**call, storage=tmp_path, workers=2)
    assert len(asked(patient)) == 16
    same(found, search(**call))
    assert capfd.readouterr().err == ''
    def here(bars, fast: Annotated[int, Interval(ge=2, le=40)] = 10): return sma(bars.close, fast) > bars.close   # nobody can import it
    same(search(strategy(here), sample, 8, storage=tmp_path, workers=2), search(strategy(here), sample, 8))


BUSY = '''
import os, time
from typing import Annotated
from annotated_types import Interval
from beside import FOLDER
from trading_lib.signals.indicators import sma
from trading_lib.strategies import strategy

@strategy
def busy(bars, fast: Annotated[int, Interval(ge=2, le=90)] = 10):
    (FOLDER / f'{os.getpid()}.pid').touch()
    end = time.monotonic() + 30
    while len([*FOLDER.glob('*.pid')]) < 2 and time.monotonic() < end: time.sleep(.02)   # until somebody helps
    return sma(bars.close, fast) > bars.close
'''


@pytest.mark.parametrize('edited', [False, True])
def test_the_others_of_a_crew_read_a_users_file_and_what_lies_beside_it(sample, tmp_path, capfd, edited):
    (tmp_path / 'beside.py').write_text(f'from pathlib import Path\nFOLDER = Path({str(tmp_path)!r})\n')
    (tmp_path / 'busy.py').write_text(BUSY)
    chosen = find(f'{tmp_path / "busy.py"}:busy')
    if edited: (tmp_path / 'busy.py').write_text(BUSY.replace('> bars', '< bars'))
    found = search(chosen, sample, 16, storage=tmp_path / 'studies', workers=2)
    assert len([*tmp_path.glob('*.pid')]) == 2, 'nobody helped'
    assert capfd.readouterr().err == ''
    same(found, search(chosen, sample, 16))


def test_what_ends_another_worker_is_one_line():
    def errand(still): raise Unreachable('no answer')
    code = 'from trading_lib.backtest.study import _joined; _joined()'
    done = subprocess.run([sys.executable, '-c', code], input=cloudpickle.dumps((errand, (), os.getpid())), capture_output=True)
    assert (done.stderr.decode(), done.returncode) == ('a worker ended: no answer\n', 1)


@pytest.mark.parametrize('sampler', ['tpe', 'nsga2', 'random'])
def test_stopping_anywhere_and_wanting_more_gives_the_same_trials(sample, tmp_path, sampler):
    objective = ('sharpe', 'turnover') if sampler == 'nsga2' else 'sharpe'
    call = dict(strategy=donchian_breakout, sample=sample, sampler=sampler, objective=objective)
    whole = search(**call, trials=36)
    for trials in (1, 8, 13, 27, 36): found = search(**call, trials=trials, storage=tmp_path)
    same(found, whole)
    assert found.computed == 9
    short = search(**call, trials=13, storage=tmp_path)
    facts = lambda table: table[:13].filter(regex='^(?!.*steady)')
    pd.testing.assert_frame_equal(facts(short.table), facts(whole.table), check_exact=True)


def test_another_seed_is_another_search(sample):
    one, two = (search(sma_cross, sample, 12, seed=seed).table for seed in (0, 1))
    assert not one[['fast', 'slow']].equals(two[['fast', 'slow']])


def test_a_finished_trial_is_its_backtest(btc_hourly):
    from trading_lib.market.store import read_file
    real = read_file(btc_hourly)
    found = search(sma_cross, real, 12, costs=Costs(4, 2), drop=0)
    done = found.table[found.table.state == 'complete']
    assert len(done) > 3 and not (found.table.state == 'pruned').any()
    for row in done.to_dict('records'):
        one = backtest(sma_cross, real, dict(fast=row['fast'], slow=row['slow']), Costs(4, 2)).metrics
        for name in METRICS:
            assert row[name] == pytest.approx(one[name], rel=1e-9) if one[name] is not None else math.isnan(row[name]), name


def test_a_value_is_the_mean_over_folds_that_are_backtests_of_their_own(sample):
    found = search(sma_cross, sample, 9, folds=3, drop=0, ranges=dict(fast='5:20', slow='30:60'), costs=Costs(0, 0))
    for number, row in found.table.iterrows():
        target = describe(sma_cross).exposures(sample.bars, dict(fast=row.fast, slow=row.slow))
        from trading_lib.backtest.kernel import simulate
        from trading_lib.core.metrics import sharpe
        one = lambda a, b, target=target: sharpe(simulate(sample.bars[a:b], target[a:b], Costs(0, 0)).equity, 8760.) or 0.
        folds = [one(a, b) for a, b in itertools.pairwise((0, 400, 800, 1200))]
        assert row.sharpe_folds == pytest.approx(np.mean(folds), rel=1e-9) and row.sharpe_worst == pytest.approx(min(folds), rel=1e-9)
        assert found.study.trials[number].value == row.sharpe_folds


@pytest.mark.parametrize('sampler', ['tpe', 'nsga2', 'random'])
def test_no_set_is_tried_twice_and_a_small_space_is_tried_whole(sample, sampler):
    ranges = dict(fast='5:20:5', slow='10:40:10')
    found = search(sma_cross, sample, 100, ranges=ranges, sampler=sampler)
    pairs = set(zip(found.table.fast, found.table.slow, strict=True))
    assert len(found.table) == len(pairs) == found.computed == 16
    grid = sweep(sma_cross, sample, ranges).table
    assert set(zip(grid.fast, grid.slow, strict=True)) == pairs
    assert (found.table.state == 'refused').sum() == (grid.refused != '').sum() == 4


def test_what_a_strategy_refuses_is_a_trial_and_is_learnt(sample):
    share = np.mean([[fast >= slow for slow in range(5, 401)] for fast in range(2, 201)])
    found = search(sma_cross, sample, 96, sampler='random')
    assert 0 < (found.table.state == 'refused').sum() < .6 * share * 96
    found = search(sma_cross, sample, 8, dict(fast='60:70', slow='20:50'))
    assert (found.table.state == 'refused').all() and found.best is None and found.pareto.empty
    assert found.table.refused[0].endswith('fast must be the smaller') and found.summary()['best'] is None
    assert all(trial.state == TrialState.PRUNED for trial in found.study.trials)


def test_a_strategy_that_fails_otherwise_stops_the_search_with_its_set(sample, tmp_path):
    @strategy
    def breaks(bars, window: Annotated[int, Interval(ge=2, le=9)] = 3): return sma(bars.close, 5) > 1 / (window - 4)
    with pytest.raises(BadInput, match=r'breaks raised ZeroDivisionError .*; this was with window=4$'):
        search(breaks, sample, storage=tmp_path)
    with pytest.raises(BadInput, match='window=4'): search(breaks, sample, storage=tmp_path)


def test_the_worst_are_dropped_early_and_only_by_what_was_known(sample):
    found = search(sma_cross, sample, 64)
    dropped = found.table[found.table.state == 'pruned']
    assert 5 < len(dropped) < 40 and dropped[METRICS].isna().all(axis=None) and dropped.sharpe_folds.notna().all()
    question, trials = found.question, found.study.trials
    for number in dropped.index:
        after, value = max(trials[number].intermediate_values.items())
        assert after < 3 and value < floors(question, trials[:number // 8 * 8])[after]
    assert floors(question, trials[:7]) == []


def test_every_trial_is_in_the_ledger_also_of_an_interrupted_search(sample, tmp_path):
    ledger = Ledger(tmp_path / 'trials')
    def impatient(done, total):
        if done == 21: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): search(sma_cross, sample, 40, ledger=ledger, storage=tmp_path, progress=impatient)
    assert ledger.count('sma_cross') == 21
    told = []
    found = search(sma_cross, sample, 40, ledger=ledger, storage=tmp_path, progress=lambda done, total: told.append((done, total)))
    assert found.trials == ledger.count('sma_cross') == 40 and found.computed == 19
    assert told[-1] == (40, 40) and sorted(told) == told
    rows = ledger.trials()
    assert set(rows.kind) == {'search'} and set(rows.fingerprint) == {sample.fingerprint}
    states = found.table.state.value_counts()
    assert rows.sharpe.isna().sum() == states['refused'] and (rows.bars < len(sample.bars)).sum() == states['pruned']
    complete = found.table[found.table.state == 'complete'].iloc[0]
    assert backtest(sma_cross, sample, dict(fast=int(complete.fast), slow=int(complete.slow)), ledger=ledger).trials == 40


def test_what_was_good_elsewhere_is_tried_first(sample):
    ranges = dict(fast='5:40', slow='50:90')
    found = search(sma_cross, sample, 8, ranges, warm_start=[dict(fast=7, slow=77), dict(slow=66), dict(fast=7, slow=77)])
    assert found.table.loc[:1, ['fast', 'slow']].to_numpy().tolist() == [[7, 77], [10, 66]]
    swept = sweep(sma_cross, sample, dict(fast='5:60:5', slow='50:100:10'))
    inside = swept.table.query('fast <= 40 and slow <= 90').sort_values('sharpe', ascending=False)
    best = swept.table.sort_values('sharpe', ascending=False).head(10)
    expected = [pair for pair in best[['fast', 'slow']].to_numpy().tolist() if pair[0] <= 40 and pair[1] <= 90]
    warm = search(sma_cross, sample, 16, ranges, warm_start=swept)
    assert warm.table[['fast', 'slow']].to_numpy().tolist()[:len(expected)] == expected
    assert expected[0] == inside[['fast', 'slow']].iloc[0].tolist()
    again = search(sma_cross, sample, 8, ranges, sampler='nsga2', warm_start=found)
    highest = found.table.loc[found.table.sharpe.idxmax()]
    assert again.table.loc[0, ['fast', 'slow']].tolist() == highest[['fast', 'slow']].tolist()


def test_stops_are_searched_like_parameters(sample):
    ranges = dict(fast=10, slow=40, stop_loss='0.01:0.1:0.01', time_stop='5:50')
    found = search(sma_cross, sample, 16, ranges, drop=0, stops=Stops(take_profit=.5))
    assert list(found.table)[:4] == ['fast', 'slow', 'stop_loss', 'time_stop'] and found.table.stop_loss.nunique() > 3
    assert set(found.table.stop_loss) <= {k / 100 for k in range(1, 11)}
    for number, row in found.table.iloc[:4].iterrows():
        params, stops = found.params(number)
        assert params == dict(fast=10, slow=40) and stops == Stops(row.stop_loss, .5, None, int(row.time_stop))
        assert row.sharpe == pytest.approx(backtest(sma_cross, sample, params, stops=stops).metrics['sharpe'], rel=1e-9)


def test_a_stop_that_is_off_is_searched_beside_levels(sample):
    found = search(sma_cross, sample, 24, dict(fast='5:20', stop_loss='none,.05', time_stop=[None, 10, 20]))
    off, table = found.table.stop_loss.isna(), found.table
    assert 0 < off.sum() < 24 and 0 < table.time_stop.isna().sum() < 24
    for trial in (off.idxmax(), (~off).idxmax()):
        params, stops = found.params(trial)
        assert (stops.stop_loss is None) == off[trial] and (found.told(table.loc[trial])['stops'].get('stop_loss') is None) == off[trial]
        made = backtest(sma_cross, sample, params, stops=stops).metrics
        assert table.sharpe[trial] != table.sharpe[trial] or abs(made['sharpe'] - table.sharpe[trial]) < 1e-9
    slices(found)
    warm = search(sma_cross, sample, 8, dict(fast='5:20', stop_loss='none,.05', time_stop=[None, 10, 20]), warm_start=found)
    assert [each['stop_loss'] for each in warm.question.plan.warm].count(None) + [each['stop_loss'] for each in warm.question.plan.warm].count(.05) >= 8
    assert search(sma_cross, sample, 4, dict(fast='5:20', stop_loss='none'), stops=Stops(.05)).params(0)[1] == Stops()


def test_of_several_objectives_nothing_on_the_front_is_beaten(sample):
    found = search(donchian_breakout, sample, 32, objective=['sharpe', 'max_drawdown', 'turnover'])
    done = found.table[found.table.state == 'complete']
    points = done[['sharpe_folds', 'max_drawdown_folds', 'turnover_folds']].to_numpy() * [1, 1, -1]
    beaten = lambda p: any((q >= p).all() and (q > p).any() for q in points)
    assert list(found.pareto.index) == [i for i, p in zip(done.index, points, strict=True) if not beaten(p)]
    assert set(found.pareto.index) == {trial.number for trial in found.study.best_trials}
    json.dumps(found.summary(), allow_nan=False)
    assert front(found).get_xlabel() == 'sharpe'


def test_several_symbols_are_searched_like_one():
    market = synthetic_market(seed=11, bars=600)
    found = search(sma_cross, together([*market.samples.values()]), 9, dict(fast='5:20', slow='30:60', stop_loss='0.05:0.2'), drop=0)
    row = found.table.iloc[0]
    one = backtest(sma_cross, found.question.prepared.sample, dict(fast=int(row.fast), slow=int(row.slow)), stops=Stops(row.stop_loss))
    assert row.sharpe == pytest.approx(one.metrics['sharpe'], rel=1e-9) and found.best.trades > 0


def test_the_best_is_not_a_lucky_peak():
    where = space(describe(sma_cross), dict(fast='2:41', slow='50:89'))
    rng = np.random.default_rng(3)
    sets = [dict(fast=int(f), slow=int(s)) for f, s in zip(rng.integers(2, 42, 300), rng.integers(50, 90, 300), strict=True)]
    hill = np.array([2 - abs(p['fast'] - 30) / 10 - abs(p['slow'] - 80) / 10 for p in sets])
    lucky = min(range(300), key=lambda k: sets[k]['fast'] + sets[k]['slow'])
    hill[lucky] = 9.
    around = np.minimum(hill, neighbourly(where, sets, hill))
    best = sets[int(np.argmax(around))]
    assert int(np.argmax(hill)) == lucky and abs(best['fast'] - 30) < 6 and abs(best['slow'] - 80) < 6
    hill[5] = np.nan
    assert np.isnan(neighbourly(where, sets, hill)[5]) and np.isfinite(np.delete(neighbourly(where, sets, hill), 5)).all()


def test_words_and_switches_are_searched_too(sample):
    @strategy
    def mixed(bars, window: Annotated[int, Interval(ge=2, lt=30)] = 5, when: Literal['plain', 'late'] = 'plain', flip: bool = False,
              size: Annotated[float, Interval(gt=0, le=1)] = 1.):
        long = sma(bars.close, window) > bars.close
        return (long if when == 'plain' else long.shift(1, fill_value=False)) * (-size if flip else size)
    found = search(mixed, sample, 16)
    assert set(found.table.when) == {'plain', 'late'} and set(found.table.flip) == {True, False} and found.table['window'].max() < 30
    assert found.table['size'].between(0, 1, inclusive='right').all()
    json.dumps(found.summary(), allow_nan=False)


def test_ranges_are_exact():
    knob = describe(sma_cross).parameters['fast']
    values = lambda wanted: _values(axis_of(knob, wanted))
    assert (values('5:19:5'), values('7'), values([5, '6', 5]), values('5,9')) == ([5, 10, 15], [7], [5, 6], [5, 9])
    @strategy
    def sized(bars, size: Annotated[float, Interval(ge=-1, le=1)] = .5): return bars.close * 0 + size
    assert _values(space(describe(sized), dict(size='-.3:.3:.1')).varies['size']) == [-.3, -.2, -.1, 0, .1, .2, .3]
    plan = Plan(space(describe(sized), dict(size='0.1:0.9:0.1')), ('maximize',))
    assert {each.params['size'] for each in proposals(plan, [], 9)} == {k / 10 for k in range(1, 10)}


@pytest.mark.parametrize(('call', 'says'), [
    (dict(objective='shrape'), 'there is no metric shrape; did you mean sharpe?'),
    (dict(objective='benchmark_return'), 'there is no best benchmark_return'),
    (dict(objective=[]), 'objective was empty'), (dict(objective=['sharpe', 'sharpe']), 'several different ones'),
    (dict(trials=0), 'trials was 0'), (dict(workers=0), 'workers was 0'), (dict(workers=2), 'name a folder where they can meet'),
    (dict(sampler='nsga'), 'there is no sampler nsga; did you mean nsga2?'), (dict(seed=-1), 'seed was -1'),
    (dict(folds=0), 'folds was 0'), (dict(folds=500), 'folds was 500 on 1200 bars'), (dict(drop=1), 'drop was 1'),
    (dict(ranges=dict(fats='5:9')), 'sma_cross has no parameter fats; did you mean fast?'),
    (dict(ranges=dict(fast='1:9')), 'sma_cross: fast was 1; it must be an int from 2 to 200'),
    (dict(ranges=dict(fast='5:9.5')), 'fast was 9.5; it must be an int'), (dict(ranges=dict(fast='5:9:.5')), 'fast was 5.5; it must be an int'),
    (dict(ranges=dict(fast='9:5')), 'write LOW:HIGH'), (dict(ranges=dict(fast='a:b')), 'write LOW:HIGH'),
    (dict(ranges=dict(fast='5:nan')), 'write LOW:HIGH'), (dict(ranges=dict(fast='5:9:0')), 'write LOW:HIGH'),
    (dict(ranges=dict(fast='5:6:7:8')), 'write LOW:HIGH'), (dict(ranges=dict(fast=[])), 'fast has no values'),
    (dict(ranges=dict(fast='5:inf')), 'fast was Infinity'), (dict(ranges=dict(stop_loss='0.5:2')), 'stop_loss was 2'),
    (dict(ranges={}), 'nothing varies'), (dict(ranges=dict(fast=5, slow='90')), 'nothing varies'),
    (dict(warm_start=[dict(fats=3)]), 'warm_start: sma_cross has no parameter fats'), (dict(warm_start=[dict(fast=999)]), 'fast was 999'),
    (dict(ranges=dict(fast='5:9'), warm_start=[dict(fast=20)]), 'fast=20 is not among the sets to try'),
    (dict(ranges=dict(fast='5:9'), warm_start=[dict(fast=6, slow=99)]), 'slow=99 is not among the sets to try'),
    (dict(name='a/b', storage='x'), "name was 'a/b'"), (dict(cash=-1), 'cash was -1'),
    (dict(ranges=['fast']), "ranges was ['fast']"), (dict(ranges='fast=5:9'), 'a range for each name'), (dict(objective=3), 'objective was 3'),
    (dict(warm_start=[5]), 'warm_start was [5]'), (dict(warm_start=5), 'warm_start was 5'), (dict(folds=2.5), 'folds was 2.5'),
    (dict(trials=3.7), 'trials was 3.7'), (dict(cash='x'), "cash was 'x'"), (dict(cash=math.inf), 'cash was inf'), (dict(seed='a'), "seed was 'a'"),
    (dict(drop='x'), "drop was 'x'"), (dict(sampler=1), 'sampler was 1; it must be one of tpe, nsga2, random'), (dict(name=5), 'name was 5'),
    (dict(ranges=dict(time_stop='5:10000000000')), 'at most 1e9'), (dict(ranges=dict(time_stop='5,100000000000000000000')), 'at most 1e9'),
    (dict(ranges=dict(time_stop='5:1e20')), 'take numbers between'), (dict(ranges=dict(fast='5:1e999999999')), 'take numbers between'),
    (dict(strategy='grid'), 'grid returns orders'),
    (dict(storage='sqlite:///x.db'), 'name a folder, or postgresql://'), (dict(storage='nonsense://'), 'name a folder, or postgresql://'),
])
def test_bad_questions_are_one_line(sample, call, says):
    with pytest.raises(BadInput) as caught: search(**dict(strategy=sma_cross, sample=sample) | call)
    assert says in str(caught.value) and '\n' not in str(caught.value)


def test_a_strategy_without_ends_or_knobs_says_so(sample):
    @strategy
    def endless(bars, window: int = 5): return sma(bars.close, window) > bars.close
    @strategy
    def fixed(bars): return bars.close > bars.open
    @strategy
    def clash(bars, sharpe: Annotated[float, Interval(ge=0, le=1)] = .5): return bars.close * 0 + sharpe
    with pytest.raises(BadInput, match='endless: window is an int, which has no end; give it a range such as window=5:60'):
        search(endless, sample)
    with pytest.raises(BadInput, match='fixed: nothing varies'): search(fixed, sample)
    with pytest.raises(BadInput, match='parameter sharpe has the name'): search(clash, sample)
    assert len(search(endless, sample, 3, dict(window='5:60')).table) == 3


def test_every_metric_is_an_objective_or_depends_on_nothing():
    assert set(METRICS) - set(BETTER) == {'initial_equity', 'benchmark_return'}
    assert objectives_of('calmar') == dict(calmar='maximize')


def test_another_question_is_kept_out_of_a_study(sample, tmp_path):
    call = dict(strategy=sma_cross, sample=sample, trials=3, storage=tmp_path, name='mine')
    search(**call)
    other = Sample(sample.bars[:-1], sample.symbol, sample.timeframe, sample.source)
    for changed, what in ((dict(costs=Costs(9)), 'costs'), (dict(sample=other), 'fingerprint'), (dict(seed=1), 'seed'),
                          (dict(ranges=dict(fast='5:9')), 'space'), (dict(objective='calmar'), 'objective'), (dict(strategy=donchian_breakout), 'strategy'), (dict(stops=Stops(.1)), 'stops')):
        with pytest.raises(BadInput, match=f'study mine was begun with other .*{what}') as caught: search(**call | changed)
        assert '\n' not in str(caught.value)
    assert search(**call).computed == 0 and search(**call | dict(costs=Costs(9), name=None)).computed == 3


def test_a_database_that_does_not_answer_is_one_line_without_its_password(sample):
    with pytest.raises(Unreachable) as caught: search(sma_cross, sample, 3, storage='postgresql://somebody:s3cret@127.0.0.1:1/x')
    assert 's3cret' not in str(caught.value) and 'PostgreSQL did not answer' in str(caught.value) and '\n' not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_line(sample, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(BadInput, match='a study cannot be kept there'): search(sma_cross, sample, 3, storage=tmp_path / 'file')


def test_a_line_that_was_never_finished_is_cut_off_and_a_spoilt_journal_is_named(sample, tmp_path):
    call = dict(strategy=sma_cross, sample=sample, trials=20, storage=tmp_path, name='torn')
    search(**call)
    journal = tmp_path / 'torn' / 'journal.jsonl'
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-40])
    found = search(**call)
    assert found.computed == 1
    same(found, search(**call | dict(storage=None)))
    journal.write_bytes(whole.replace(b'{', b'', 1))
    with pytest.raises(Damaged, match='journal.jsonl is not what was written'): search(**call)


def test_a_study_can_be_read_by_optunas_own_tools(sample, tmp_path):
    import optuna
    found = search(sma_cross, sample, 20, storage=tmp_path)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / found.name / 'journal.jsonl'))
    study = optuna.load_study(study_name=found.name, storage=optuna.storages.JournalStorage(backend))
    assert len(study.trials) == 20 and study.best_value == found.table.sharpe_folds[found.table.state == 'complete'].max()


QUEUE = '''
[[search]]
strategy = '{patient}'
data = 'A'
trials = 16
sampler = 'random'

[[search]]
strategy = '{patient}'
data = 'A'
ranges = {{fast = '2:20', slow = '30:60'}}
objective = ['sharpe', 'turnover']
trials = 12
fee_bps = 4
stop_loss = 0.05
'''


def test_two_processes_share_a_queue_and_do_nothing_twice(patient, sample, tmp_path):
    storage = tmp_path / 'studies'
    (tmp_path / 'queue.toml').write_text(QUEUE.format(patient=patient))
    requests = read_queue(tmp_path / 'queue.toml')
    others = [another(work_off, requests, lambda data: sample, storage) for _ in range(2)]
    for each in others: each.join()
    assert [each.exitcode for each in others] == [0, 0] and len(asked(patient)) == 28
    told = []
    done = work_off(requests, lambda data: sample, storage, ledger=Ledger(tmp_path / 'trials'), progress=lambda *now: told.append(now))
    assert [each.computed for each in done] == [0, 0] and [len(each.table) for each in done] == [16, 12] and len(asked(patient)) == 28
    assert done[0].trials == 16 and done[1].trials == 28 and done[1].question.prepared.stops == Stops(stop_loss=.05)
    same(done[1], search(patient, sample, 12, dict(fast='2:20', slow='30:60'), ['sharpe', 'turnover'], costs=Costs(4), stops=Stops(.05)))


@pytest.mark.parametrize(('text', 'says'), [
    ('', 'asks for nothing'), ('search = 3', 'asks for nothing'), ('[[search]]\nstrategy = "x"', 'search 1 has no data'),
    ('[[search', 'is no TOML'),
    ('[[search]]\nstrategy = "x"\ndata = "y"\nobjetive = "sharpe"', 'search 1 says objetive, which is not known; did you mean objective?'),
])
def test_a_bad_queue_is_one_line(tmp_path, text, says):
    (tmp_path / 'q.toml').write_text(text)
    with pytest.raises(BadInput) as caught: read_queue(tmp_path / 'q.toml')
    assert says in str(caught.value) and '\n' not in str(caught.value)
    with pytest.raises(BadInput, match='there is no file'): read_queue(tmp_path / 'none.toml')
    with pytest.raises(BadInput, match='search 1 says trails, which is not known; did you mean trials'):
        work_off([dict(strategy='sma_cross', data='A', trails=3)], lambda data: None, tmp_path)


@pytest.mark.parametrize(('line', 'says'), [
    ('trials = "many"', "trials was 'many'; it must be a whole number, at least 1"), ('trials = 3.7', 'trials was 3.7'), ('trials = true', 'trials was True'),
    ('fee_bps = "ten"', "fee_bps was 'ten'; it must be a number of basis points"), ('folds = 2.5', 'folds was 2.5'), ('cash = "x"', "cash was 'x'"),
    ('cash = inf', 'cash was inf'), ('seed = "a"', "seed was 'a'"), ('objective = 3', 'objective was 3; it must be a metric, or a list of them'),
    ('warm_start = [5]', 'warm_start was [5]'), ('drop = "x"', "drop was 'x'"), ('sampler = 1', 'sampler was 1'), ('name = 5', 'name was 5'),
    ('ranges = "fast"', "ranges was 'fast'"), ('stop_loss = "far"', "stop_loss was 'far'"), ('time_stop = 2.5', 'time_stop was 2.5')])
def test_a_wrong_kind_in_a_queue_names_file_search_key_and_value(tmp_path, line, says):
    file = tmp_path / 'q.toml'
    file.write_text(f'[[search]]\nstrategy = "sma_cross"\ndata = "A"\n[[search]]\nstrategy = "sma_cross"\ndata = "A"\n{line}\n')
    with pytest.raises(BadInput) as caught: read_queue(file)
    assert str(caught.value).startswith(f'{file}: search 2: {says}') and '\n' not in str(caught.value)


@pytest.mark.parametrize('wrong', [dict(ranges=dict(fats='5:9')), dict(drop=1), dict(stop_loss=2.), dict(fee_bps=-1), dict(strategy='sma_cros'),
                                   dict(folds=500), dict(objective='shrape'), dict(sampler='tep'), dict(cash=0)])
def test_a_bad_second_search_is_found_before_the_first_has_run(sample, tmp_path, wrong):
    good = dict(strategy='sma_cross', data='A', trials=4)
    with pytest.raises(BadInput, match='^search 2: '): work_off([good, good | wrong], lambda data: sample, tmp_path / 'studies')
    assert not (tmp_path / 'studies').exists()


def test_a_queue_takes_the_costs_it_is_handed_where_it_names_none(sample, tmp_path):
    plain = dict(strategy='sma_cross', data='A', trials=2)
    read = []
    done = work_off([plain, plain | dict(slippage_bps=3)], lambda data: read.append(data) or sample, tmp_path, costs=Costs(50, 1))
    assert [each.question.prepared.costs for each in done] == [Costs(50, 1), Costs(50, 3)] and read == ['A']
    same(done[0], search(sma_cross, sample, 2, costs=Costs(50, 1)))


def test_a_study_is_found_again_by_its_question_alone(sample, tmp_path):
    first = search(sma_cross, sample, 4, storage=tmp_path)
    question = ask('sma_cross', sample)
    with opened(question.plan, tmp_path) as store: assert len(store.trials()) == 4
    assert first.name == question.plan.name and [each.name for each in tmp_path.iterdir()] == [first.name]


@pytest.mark.parametrize('objective', ['profit_factor', 'calmar', 'sortino'])
def test_a_set_that_never_loses_is_not_the_worst(objective):
    close = 100 * np.exp(np.cumsum(np.tile([.01, .01, -.012], 400)))
    open_ = np.r_[100., close[:-1]]
    index = pd.date_range('2024', periods=len(close), freq='h', tz='UTC', name='time')
    bars = pd.DataFrame(dict(open=open_, high=np.maximum(open_, close), low=np.minimum(open_, close), close=close, volume=1.), index)
    @strategy
    def knowing(bars, mood: Annotated[int, Interval(ge=0, le=2)] = 0):
        "In for the hours that rise, for the wrong ones, or never."
        return np.resize([[1., 1., 0.], [1., 0., 1.], [0., 0., 0.]][mood], len(bars) + 1)[1:]
    found = search(knowing, Sample(bars, 'X', '1h', 'made up', synthetic=True), 3, objective=objective, drop=0, costs=Costs(0))
    by = found.table.set_index('mood')[f'{objective}_folds']
    assert by[0] == 10 and by[2] == 0 and by[0] > by[1] and found.pareto.mood.item() == 0
