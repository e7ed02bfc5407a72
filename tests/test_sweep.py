"A sweep is many backtests: every number of every row is that of `backtest`, however it was interrupted, remembered or counted."
import json
from dataclasses import replace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from annotated_types import Interval

from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.numbers import BETTER, METRICS
from trading_lib.backtest.run import backtest
from trading_lib.backtest.surface import best_region, heatmap, regions, stability
from trading_lib.backtest.sweep import block_of, count_sets, grid, sweep
from trading_lib.core.errors import BadInput, Damaged
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample, together
from trading_lib.market.store import read_file
from trading_lib.market.synthetic import synthetic_market
from trading_lib.risk.stops import Stops
from trading_lib.signals.indicators import bollinger, sma
from trading_lib.strategies.contract import describe, strategy
from trading_lib.strategies.trend import donchian_breakout, sma_cross

PAIRS = dict(fast='5:20:5', slow='10:40:10')


@strategy
def tilt(bars, window: Annotated[int, Interval(ge=2, le=400)] = 20, size: Annotated[float, Interval(ge=-1, le=1)] = .5, flip: bool = False):
    "Fractions both ways, in steps."
    above = sma(bars.close, window) > sma(bars.close, 3 * window)
    return (above * size - (1 - above) * size / 3 * (2 if flip else 1)).round(2)


@pytest.fixture(scope='module')
def sample(): return synthetic_market(seed=11, bars=3000, symbols=('BTC/USDT',)).samples['BTC/USDT']


def same(value, expected, name=''):
    if expected is None: assert value is None or np.isnan(value), (name, value, expected)
    else: assert value == pytest.approx(expected, rel=1e-9, abs=1e-15), (name, value, expected)


def equal_to_backtests(done, strategy, sample, costs, cash=10_000.):
    names = list(describe(strategy).parameters)
    for row in done.table[done.table.refused == ''].to_dict('records'):
        one = backtest(strategy, sample, {name: row[name] for name in names}, costs, cash).metrics
        assert list(one) == METRICS
        for name in METRICS: same(row[name], one[name], (name, row))


def test_every_row_on_real_bars_is_its_backtest(btc_hourly):
    real = read_file(btc_hourly)
    done = sweep(sma_cross, real, dict(fast='10,40', slow='50:150:50'), Costs(4, 2))
    assert done.refused == 0 and len(done.table) == 6
    equal_to_backtests(done, sma_cross, real, Costs(4, 2))


@pytest.mark.parametrize('costs', [Costs(0, 0), Costs(10, 5), Costs(75, 30)], ids=str)
def test_shorts_flips_and_fractions_are_their_backtests(sample, costs):
    equal_to_backtests(sweep(tilt, sample, dict(window='5,30', size='-1:1:0.5', flip='false,true'), costs, cash=700.), tilt, sample, costs, 700.)
    equal_to_backtests(sweep(donchian_breakout, sample, dict(entry='20,60', exit='10,20', shorts=[True, False]), costs), donchian_breakout, sample, costs)


def test_what_a_strategy_refuses_is_a_row_that_says_why(sample):
    done = sweep(sma_cross, sample, PAIRS)
    refused = done.table[done.table.refused != '']
    assert done.refused == len(refused) == 4 and refused[METRICS].isna().all(axis=None)
    assert refused.refused.iloc[0] == 'fast was 10 and slow 10; fast must be the smaller'
    assert (done.table.query('fast >= slow').index == refused.index).all()
    assert done.table.query('fast < slow')[['final_equity', 'trades']].notna().all(axis=None)
    assert sweep(sma_cross, sample, dict(fast='60,70', slow=50)).best() is None


def test_a_set_that_a_strategy_fails_on_is_a_row_that_says_why(sample, tmp_path):
    asked = []
    @strategy
    def breaks(bars, window: int = 3):
        asked.append(window)
        return sma(bars.close, 5) > 1 / (window - 4)
    @strategy
    def shouts(bars, size: int = 1): return bars.close * 0 + size
    @strategy
    def short(bars, drop: int = 0): return bars.close[drop:] > 0
    for _ in range(2): done = sweep(breaks, sample, dict(window='3:5:1'), cache=tmp_path / 'cache', ledger=Ledger(tmp_path / 'trials'))
    assert asked == [3, 4, 5, 4] and (done.refused, done.computed, done.trials) == (1, 1, 2)   # a failure is tried again, and is no trial
    assert done.table.refused[1].startswith('failed: breaks raised ZeroDivisionError (') and done.table.sharpe.notna().tolist() == [True, False, True]
    assert sweep(shouts, sample, dict(size='1,2')).table.refused[1].startswith('failed: shouts returned 2 at ')
    assert '(2999,) values for 3000 bars' in sweep(short, sample, dict(drop='0,1')).table.refused[1]


def test_one_failure_for_all_sets_is_one_error(sample, tmp_path):
    @strategy
    def breaks(bars, window: int = 3): return bars.closing
    with pytest.raises(BadInput, match=r'^breaks raised AttributeError .*; every set failed, first window=3$') as caught:
        sweep(breaks, sample, dict(window='3:5:1'), cache=tmp_path / 'cache', ledger=Ledger(tmp_path / 'trials'))
    assert '\n' not in str(caught.value) and not list(tmp_path.iterdir())


def test_every_set_failing_in_its_own_way_is_an_error_too(sample):
    @strategy
    def breaks(bars, window: int = 3): raise KeyError(window)
    with pytest.raises(BadInput, match=r'^breaks raised KeyError \(3\).*; every set failed, first window=3$'): sweep(breaks, sample, dict(window='3:5:1'))


def test_a_ladder_that_breaks_is_asked_again_and_one_that_refuses_is_not(sample, tmp_path):
    asked = []
    @strategy(orders=True)
    def ladder(bars, account, state, k: int = 1):
        if not state: asked.append(k)
        if k == 2: raise ValueError('a bug')
        if k == 3: raise BadInput('ladder on odd k is nothing')
        return [], dict(begun=True)
    small = replace(sample, bars=sample.bars[:60])
    for _ in range(2): done = sweep(ladder, small, dict(k='1:3:1'), cache=tmp_path / 'cache', ledger=Ledger(tmp_path / 'trials'))
    assert asked == [1, 2, 3, 2] and done.trials == 2
    assert done.table.refused[1].startswith('failed: ') and 'ladder on odd k is nothing' in done.table.refused[2] and 'failed' not in done.table.refused[2]


def test_a_file_of_rows_that_was_changed_is_damage(sample, tmp_path):
    sweep('sma_cross', sample, dict(fast='5,10'), cache=tmp_path)
    [path] = tmp_path.rglob('*.parquet')
    pd.read_parquet(path).assign(sharpe=99.).to_parquet(path)
    with pytest.raises(Damaged, match='is not what it was written as; delete it'): sweep('sma_cross', sample, dict(fast='5,10'), cache=tmp_path)


def test_a_column_that_is_not_declared_is_not_there(sample):
    @strategy
    def col(bars, k: float = .5): return bars.mood * k
    moody = replace(sample, bars=sample.bars.assign(mood=1.))
    with pytest.raises(BadInput, match="no attribute 'mood'"): sweep(col, moody, dict(k='0.5,1'))
    declared = strategy(needs=('mood',))(col)
    tables = [sweep(declared, replace(sample, bars=sample.bars.assign(mood=sign)), dict(k='0.5,1')).table for sign in (1., -1.)]
    assert (tables[0].total_return != tables[1].total_return).all()


def test_an_answer_without_a_number_is_flat(sample):
    @strategy
    def silent(bars, window: int = 3): return bars.close * np.nan
    row = sweep(silent, sample, {}).table.iloc[0]
    assert (row.refused, row.trades, row.total_return, row.exposure) == ('', 0, 0, 0) and np.isnan(row.sharpe)


def test_an_interrupted_sweep_keeps_what_is_done_and_goes_on(sample, tmp_path):
    def impatient(done, total):
        if done >= 6: raise KeyboardInterrupt
    call = dict(strategy=sma_cross, sample=sample, ranges=PAIRS, cache=tmp_path / 'cache', ledger=Ledger(tmp_path / 'trials'), block=3)
    with pytest.raises(KeyboardInterrupt): sweep(**call, progress=impatient)
    assert call['ledger'].count('sma_cross') == 6
    seen = []
    rest = sweep(**call, progress=lambda done, total: seen.append(done))
    assert rest.computed == 10 and seen == [9, 12, 15, 16]
    whole = sweep(sma_cross, sample, PAIRS)
    pd.testing.assert_frame_equal(rest.table, whole.table, check_exact=True)
    assert whole.computed == 16 and whole.trials is None


def test_what_is_known_is_not_asked_again(sample, tmp_path):
    asked = []
    @strategy
    def curious(bars, window: int = 5):
        asked.append(window)
        return sma(bars.close, window) > bars.close
    first = sweep(curious, sample, dict(window='5:9:1'), cache=tmp_path)
    again = sweep(curious, sample, dict(window='5:9:1'), cache=tmp_path)
    assert asked == [5, 6, 7, 8, 9] and (first.computed, again.computed) == (5, 0)
    pd.testing.assert_frame_equal(first.table, again.table, check_exact=True)
    assert sweep(curious, sample, dict(window='9:10:1'), cache=tmp_path).computed == 1
    (folder,) = tmp_path.iterdir()
    assert len(list(folder.iterdir())) == 2


def test_other_costs_cash_or_bars_are_other_answers(sample, tmp_path):
    other = Sample(sample.bars[:-1], sample.symbol, sample.timeframe, sample.source)
    for call in (dict(), dict(costs=Costs(9)), dict(cash=9e3), dict(sample=other)):
        assert sweep(**dict(strategy=sma_cross, sample=sample, ranges=PAIRS, cache=tmp_path) | call).computed == 16
    assert len(list(tmp_path.iterdir())) == 4


def test_other_facts_beside_the_same_prices_are_another_question(sample, tmp_path):
    @strategy(needs=('mood',))
    def moody(bars, floor: float = 0.): return bars.mood > floor
    rng, ledger = np.random.default_rng(3), Ledger(tmp_path / 'trials')
    for count in (1, 2):
        told = Sample(sample.bars.assign(mood=rng.normal(size=len(sample.bars))), sample.symbol, sample.timeframe, sample.source)
        done = sweep(moody, told, dict(floor='-.5:.5:.5'), cache=tmp_path / 'cache', ledger=ledger)
        assert (done.computed, done.trials) == (3, 3 * count)
        equal_to_backtests(done, moody, told, Costs())
    with pytest.raises(BadInput, match='mood'): sweep(moody, sample, dict(floor='0,1'))


def test_a_spoilt_cache_is_named(sample, tmp_path):
    sweep(sma_cross, sample, PAIRS, cache=tmp_path)
    next(tmp_path.rglob('*.parquet')).write_bytes(b'PAR1 nothing')
    with pytest.raises(Damaged, match='delete it'): sweep(sma_cross, sample, PAIRS, cache=tmp_path)


def test_every_set_is_counted_once_in_one_file(sample, tmp_path):
    ledger = Ledger(tmp_path)
    for _ in range(2): assert sweep(sma_cross, sample, PAIRS, Costs(10, 5), ledger=ledger).trials == 16
    assert len(list(tmp_path.iterdir())) == 1
    assert backtest(sma_cross, sample, dict(fast=5, slow=30), Costs(10, 5), ledger=ledger).trials == 16
    assert backtest(sma_cross, sample, dict(fast=6, slow=30), Costs(10, 5), ledger=ledger).trials == 17


def test_each_indicator_is_asked_once_and_the_strategy_cannot_tell(sample, monkeypatch):
    asked = []
    def counted(values, window): asked.append(window); return sma(values, window)
    counted.__module__ = sma.__module__
    monkeypatch.setitem(sma_cross.__globals__, 'sma', counted)
    done = sweep(sma_cross, sample, PAIRS)
    assert sorted(asked) == [5, 10, 15, 20, 30, 40]
    monkeypatch.undo()
    equal_to_backtests(done, sma_cross, sample, Costs())


def test_what_a_strategy_does_to_an_answer_or_its_bars_does_not_reach_the_next_set(sample):
    @strategy
    def vandal(bars, window: int = 5, times: int = 1):
        mean, band = sma(bars.close, window), bollinger(bars.close, window)
        long = (bars.close < mean) | (bars.close < band.lower)
        mean += 1e6; band['lower'] = 0.; mean.iloc[:] = 0.
        bars['close'] = bars.close * times
        return long & (sma(bars.close, window) > 0) & (sma(bars.close.diff(), 5) > 0)
    done = sweep(vandal, sample, dict(window='5:7:1', times='1:3:1'))
    equal_to_backtests(done, vandal, sample, Costs())


def test_a_remembered_answer_keeps_the_name_that_was_asked_about(sample):
    @strategy
    def named(bars, window: int = 5):
        whole, other = sma(bars.close, window), sma(bars.close.rename('other'), window)
        return (whole > bars.close) & (whole.name == 'close') & (other.name == 'other')
    done = sweep(named, sample, dict(window='5,6'))
    assert (done.table.trades > 0).all()
    equal_to_backtests(done, named, sample, Costs())


@pytest.mark.parametrize(('text', 'expected'), [('5:20:5', [5, 10, 15, 20]), ('5:19:5', [5, 10, 15]), ('7', [7]), ('9, 5,9', [9, 5]), ([5, '6'], [5, 6]), (8, [8]), ('5:5:1', [5])])
def test_ranges_of_whole_numbers(text, expected):
    assert [each['fast'] for each in grid('sma_cross', dict(fast=text))] == expected


def test_ranges_of_decimals_are_exact():
    assert [each['size'] for each in grid(tilt, dict(size='0.1:0.5:0.1'))] == [.1, .2, .3, .4, .5]
    assert [each['size'] for each in grid(tilt, dict(size='-.5:1:.5'))] == [-.5, 0, .5, 1]
    assert [each['flip'] for each in grid(tilt, dict(flip='true,false'))] == [True, False]
    assert list(grid(tilt, {})) == [dict(window=20, size=.5, flip=False)]


@pytest.mark.parametrize(('ranges', 'says'), [
    (dict(fats='5'), 'sma_cross has no parameter fats; did you mean fast?'),
    (dict(fast='1:5:1'), 'sma_cross: fast was 1; it must be an int from 2 to 200'),
    (dict(fast='5:6:.5'), 'sma_cross: fast was 5.5; it must be an int from 2 to 200'),
    (dict(fast='9:5:1'), 'write START:STOP:STEP'), (dict(fast='5:9:0'), 'write START:STOP:STEP'), (dict(fast='5:9:-1'), 'write START:STOP:STEP'),
    (dict(fast='5:9'), 'write START:STOP:STEP'), (dict(fast='a:b:c'), 'write START:STOP:STEP'), (dict(fast='5:inf:1'), 'write START:STOP:STEP'),
    (dict(fast='nan:9:1'), 'write START:STOP:STEP'), (dict(fast=[]), 'fast has no values'), (dict(fast='5,'), 'fast was ; it must be'),
    (dict(fast='5:5000000000:1'), '4,999,999,996 values; at most 1,000,000 sets'),
])
def test_bad_ranges_are_one_line(ranges, says):
    with pytest.raises(BadInput) as caught: grid('sma_cross', ranges)
    assert says in str(caught.value) and '\n' not in str(caught.value)


def test_too_many_sets_are_refused_before_they_are_made():
    with pytest.raises(BadInput, match='these ranges make 78,804 sets; at most 1,000 are tried at once'):
        grid('sma_cross', dict(fast='2:200:1', slow='5:400:1'), limit=1_000)


def test_the_best_region_beats_a_lucky_point():
    rows = pd.DataFrame([dict(a=a, b=b) for a in range(5) for b in range(5)])
    good = (rows.a - 1).abs().le(1) & (rows.b - 1).abs().le(1)
    rows = rows.assign(**dict.fromkeys(METRICS, 0.), refused='').assign(sharpe=good * 1.)
    rows.loc[24, 'sharpe'] = 5.
    assert rows.sharpe.idxmax() == 24
    best = best_region(rows)
    assert (best.a, best.b, best.region_mean, best.region_sets) == (1, 1, 1., 9)
    assert regions(rows)['mean'][24] == 5 / 4 and regions(rows).sets[24] == 4
    rows.loc[6, 'sharpe'] = np.nan
    assert np.isnan(regions(rows)['mean'][6]) and regions(rows).sets[0] == 3
    with pytest.raises(BadInput, match='did you mean sharpe'): best_region(rows, 'shrape')


def test_words_and_switches_have_no_neighbours(sample):
    found = regions(sweep(tilt, sample, dict(window='5:8:1', flip=[True, False])).table)
    assert set(found.sets) == {2, 3}


def test_stops_are_tried_like_parameters_and_share_one_answer(sample, tmp_path):
    asked = []
    @strategy
    def curious(bars, window: int = 5):
        asked.append(window)
        return sma(bars.close, window) > bars.close
    call = dict(strategy=curious, sample=sample, ranges=dict(stop_loss='none,0.01', window='5,30', time_stop='6:12:6'), costs=Costs(10, 5), cache=tmp_path,
                stops=Stops(trailing_stop=.02))
    done = sweep(**call)
    assert asked == [5, 30] and list(done.table)[:4] == ['window', 'stop_loss', 'time_stop', METRICS[0]] and done.names == ['window', 'stop_loss', 'time_stop']
    for row in done.table.to_dict('records'):
        stops = Stops(None if np.isnan(row['stop_loss']) else row['stop_loss'], None, .02, int(row['time_stop']))
        one = backtest(curious, sample, dict(window=row['window']), Costs(10, 5), stops=stops).metrics
        for name in METRICS: same(row[name], one[name], (name, row))
    assert sweep(**call).computed == 0 and sweep(**call | dict(stops=None)).computed == 8
    assert sweep(**call | dict(ranges=dict(window='5', trailing_stop='0.02,0.03', time_stop=6), stops=None)).computed == 1   # the other is known


def test_one_set_of_stops_is_one_trial_in_the_ledger(sample, tmp_path):
    ledger = Ledger(tmp_path)
    assert sweep(sma_cross, sample, dict(stop_loss='none,0.02', fast='5,10'), ledger=ledger).trials == 4
    assert backtest(sma_cross, sample, dict(fast=5), ledger=ledger, stops=Stops(.02)).trials == 4
    assert backtest(sma_cross, sample, dict(fast=5), ledger=ledger).trials == 4
    assert backtest(sma_cross, sample, dict(fast=5), ledger=ledger, stops=Stops(.02, time_stop=5)).trials == 5


def test_strategies_that_return_orders_are_replayed(sample):
    short = Sample(sample.bars[:300], sample.symbol, sample.timeframe, sample.source)
    done = sweep('dca', short, dict(every='12,24', share=.05), Costs(10, 5))
    for row in done.table.to_dict('records'):
        one = backtest('dca', short, {name: row[name] for name in done.names}, Costs(10, 5)).metrics
        for name in METRICS: same(row[name], one[name], (name, row))
    with pytest.raises(BadInput, match='its exits are among them'): sweep('dca', short, dict(every='12,24'), stops=Stops(.1))


def test_several_symbols_are_swept_by_the_same_call(tmp_path):
    both = together(list(synthetic_market(seed=3, bars=800).samples.values())[:2])
    done = sweep(sma_cross, both, dict(fast='5,10', slow='20,40', stop_loss='none,0.03'), Costs(10, 5), ledger=Ledger(tmp_path))
    assert done.trials == 8 and (done.table.trades > 0).all()
    for row in done.table.to_dict('records'):
        stops = Stops(None if np.isnan(row['stop_loss']) else row['stop_loss'])
        one = backtest(sma_cross, both, {name: row[name] for name in ('fast', 'slow')}, Costs(10, 5), stops=stops).metrics
        for name in METRICS: same(row[name], one[name], (name, row))


def test_every_save_adds_a_file_and_rewrites_none(sample, tmp_path, monkeypatch):
    from trading_lib.backtest import sweep as module
    monkeypatch.setattr(module, 'monotonic', iter(range(0, 10**6, 100)).__next__)   # every block is due
    call = dict(strategy=sma_cross, sample=sample, ranges=PAIRS, cache=tmp_path)
    def killed(done, total):
        if done == 9: raise SystemExit
    with pytest.raises(SystemExit): sweep(**call, block=3, progress=killed)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*.parquet')}
    assert len(before) > 1
    rest = sweep(**call)
    assert rest.computed == 7 and all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    assert len(list(tmp_path.rglob('*.parquet'))) == len(before) + 1
    pd.testing.assert_frame_equal(rest.table, sweep(sma_cross, sample, PAIRS).table, check_exact=True)


def test_a_cache_that_cannot_be_written_costs_nothing_but_itself(sample, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.warns(UserWarning, match='cannot be written .* The sweep goes on') as said: done = sweep(sma_cross, sample, PAIRS, cache=tmp_path / 'file')
    assert len(said) == 1 and '\n' not in str(said[0].message) and len(done.table) == 16 and done.table.sharpe.notna().sum() == 12


def test_a_bar_shows_how_far_it_is(sample, capsys, tmp_path):
    sweep(sma_cross, sample, PAIRS, cache=tmp_path)
    sweep(sma_cross, sample, PAIRS | dict(fast='5:25:5'), cache=tmp_path, progress=True)
    said = capsys.readouterr().err
    assert 'sma_cross: 20 sets' in said and '20/20' in said and 'set/s' in said


def test_a_grid_of_a_million_is_not_written_out():
    sets = grid('sma_cross', dict(fast='2:200:1', slow='5:400:1', stop_loss='0.001:0.012:0.001'), limit=10**6)
    assert len(sets) == 199 * 396 * 12 == count_sets('sma_cross', dict(fast='2:200:1', slow='5:400:1', stop_loss='0.001:0.012:0.001'))
    assert sets[0] == dict(fast=2, slow=5, stop_loss=.001) and sets[-1] == dict(fast=200, slow=400, stop_loss=.012) and sets[12]['slow'] == 6
    for k in (0, 12_345, 500_000, len(sets) - 1): assert {name: sets.column(name)[k].item() for name in sets.names} == sets[k]
    with pytest.raises(IndexError): sets[len(sets)]


def test_the_rows_do_not_depend_on_threads_or_on_the_order_of_blocks(sample, monkeypatch):
    from trading_lib.backtest import scale
    def shuffled(client, prepared, blocks):
        for k in reversed(range(len(blocks))): yield k, block_of(prepared, list(blocks[k]), threads=1 + k % 3)
    monkeypatch.setattr(scale, 'blocks_on', shuffled)
    seen = []
    spread = sweep(sma_cross, sample, PAIRS | dict(trailing_stop='none,0.02'), client='tcp://somewhere', block=5, progress=lambda done, total: seen.append(done))
    pd.testing.assert_frame_equal(spread.table, sweep(sma_cross, sample, PAIRS | dict(trailing_stop='none,0.02')).table, check_exact=True)
    assert seen == [2, 7, 12, 17, 22, 27, 32]


# ---- surfaces ----

def test_a_region_means_what_it_says_in_any_number_of_directions():
    rng = np.random.default_rng(2)
    rows = pd.DataFrame([dict(a=a, b=b, c=c, word=w) for a in range(4) for b in (.1, .2, .4) for c in range(3) for w in 'xy'])
    rows = rows.assign(**dict.fromkeys(METRICS, 0.), refused='').assign(sharpe=rng.normal(size=len(rows)))
    rows.loc[[5, 17], 'sharpe'] = np.nan
    place = rows.assign(b=rows.b.rank(method='dense'))
    found = regions(rows)
    for k in (0, 5, 20, 40, len(rows) - 1):
        near = (place[['a', 'b', 'c']] - place.loc[k, ['a', 'b', 'c']].astype(float)).abs().max(axis=1).le(1) & (rows.word == rows.word[k])
        same(found['mean'][k], rows.sharpe[near].mean() if k != 5 else None)
        assert found.sets[k] == rows.sharpe[near].notna().sum()


def test_a_stop_that_is_off_lies_beyond_the_farthest_one(sample):
    table = sweep(sma_cross, sample, dict(stop_loss='none,0.01:0.03:0.01')).table
    assert regions(table).sets.tolist() == [2, 2, 3, 3]
    heatmap(sweep(sma_cross, sample, dict(stop_loss='none,0.01:0.03:0.01', fast='5,10')).table, 'stop_loss', 'fast')


def test_sets_that_are_no_grid_have_no_regions():
    rng = np.random.default_rng(2)
    rows = pd.DataFrame(rng.random((500, 3)), columns=list('abc')).assign(**dict.fromkeys(METRICS, 0.), refused='')
    with pytest.raises(BadInput, match='500 sets on a grid of 500 x 500 x 500'): regions(rows)


def hill(width):
    rows = pd.DataFrame([dict(a=a, b=b) for a in range(9) for b in range(9)])
    return rows.assign(**dict.fromkeys(METRICS, 0.), refused='').assign(sharpe=np.exp(-((rows.a - 4)**2 + (rows.b - 4)**2) / width))


def test_a_broad_hill_is_stable_and_a_needle_is_not():
    broad, needle = stability(hill(30)), stability(hill(.1))
    assert broad.middle == needle.middle == dict(a=4, b=4) and broad.verdict.startswith('Stable: a step in any parameter from a=4, b=4 keeps at least 9')
    assert needle.verdict.startswith('Fragile: a step in ') and broad.kept['a'] > .9 > .5 > needle.kept['a']
    assert broad.lines['a'].value.idxmax() == 4 and (broad.lines['a'].low <= broad.lines['a'].high).all()
    assert len(np.ravel(broad.draw())) == 2


def test_less_is_better_where_it_is_and_best_takes_it(sample):
    done = sweep(sma_cross, sample, PAIRS)
    for name, better in BETTER.items():
        ends = done.table[name]
        assert done.best(name)[name] == (ends.max() if better == 'maximize' else ends.min()), name
    assert done.best('max_drawdown').max_drawdown == done.table.max_drawdown.max() and done.best('longest_drawdown').longest_drawdown == done.table.longest_drawdown.min()
    for name in ('initial_equity', 'benchmark_return'):
        for ask in (done.best, lambda by: best_region(done.table, by), lambda by: stability(done.table, by), lambda by: heatmap(done.table, 'fast', 'slow', by)):
            with pytest.raises(BadInput, match=f'there is no best {name}'): ask(name)
    turned = hill(30).assign(turnover=-hill(30).sharpe)
    assert stability(turned, 'turnover').middle == dict(a=4, b=4) and stability(turned, 'turnover').kept == stability(hill(30)).kept
    with pytest.raises(BadInput, match='no column fats; did you mean fast'): heatmap(done.table, 'fats', 'slow')


@pytest.mark.parametrize('place', [(4, 4), (3, 6), (6, 2)])
def test_the_set_itself_breaks_a_tie_of_regions(place):
    needle = hill(30).assign(sharpe=.1)
    needle.loc[(needle.a == place[0]) & (needle.b == place[1]), 'sharpe'] = 3.
    assert tuple(best_region(needle)[['a', 'b']]) == place
    assert stability(needle).verdict.startswith('Fragile')


def test_a_region_on_the_rim_is_not_called_stable():
    rising = hill(30).assign(sharpe=lambda rows: rows.b - .01 * (rows.a - 4)**2)
    found = stability(rising)
    assert found.rim == dict(b='last') and not found.verdict.startswith('Stable')
    assert found.verdict.endswith('b=8 is the last value tried; widen the range before believing it')
    assert stability(rising.assign(sharpe=-rising.sharpe)).rim['b'] == 'first' and stability(hill(30)).rim == {}


def test_where_nothing_stands_out_there_is_nothing_to_be_stable(sample):
    flat = hill(30).assign(sharpe=1.)
    for table in (flat, flat.assign(sharpe=np.nan), sweep(sma_cross, sample, dict(fast=20)).table):
        assert stability(table).verdict.endswith('so there is nothing to be stable')


def test_a_single_set_is_its_own_region(sample):
    done = sweep(sma_cross, sample, dict(fast=20))
    found = done.summary()
    assert (found['sets'], found['refused'], found['computed'], found['trials']) == (1, 0, 1, 'uncounted')
    assert found['best']['params'] == found['region']['params'] == dict(fast=20, slow=50)
    assert found['best']['value'] == found['region']['mean'] == done.table.sharpe[0]
    nothing = sweep(sma_cross, sample, dict(fast=60)).summary('calmar')
    assert nothing['best'] is None and nothing['region'] is None and nothing['refused'] == 1
    json.dumps([found, nothing], allow_nan=False)


def test_the_order_of_rows_does_not_matter_to_a_region(sample):
    done = sweep(sma_cross, sample, PAIRS).table
    shuffled = done.sample(frac=1, random_state=3)
    assert regions(shuffled).sort_index().equals(regions(done))


def test_a_parameter_may_not_have_the_name_of_a_result(sample):
    @strategy
    def twice(bars, exposure: float = .5): return bars.close * 0 + exposure
    with pytest.raises(BadInput, match='parameter exposure has the name'): sweep(twice, sample, dict(exposure='.1,.2'))


def test_the_table_survives_parquet(sample, tmp_path):
    done = sweep(tilt, sample, dict(window='5,6', flip=[True, False])).table
    done.to_parquet(tmp_path / 't.parquet')
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / 't.parquet'), done)
    assert list(done) == ['window', 'size', 'flip', *METRICS, 'refused']
