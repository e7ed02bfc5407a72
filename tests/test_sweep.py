"A sweep is many backtests: every number of every row is that of `backtest`, however it was interrupted, remembered or counted."
import json
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from annotated_types import Interval

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.run import backtest
from trading_lib.backtest.sweep import METRICS, _metrics, best_region, grid, regions, sweep
from trading_lib.core.errors import BadInput, Damaged
from trading_lib.core.metrics import headline
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample
from trading_lib.market.store import read_file
from trading_lib.market.synthetic import synthetic_market
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


def measured(bars, target, costs=Costs(), cash=10_000.):
    "Both ways to the numbers, compared."
    target = pd.Series(target, bars.index, dtype=float)
    run = simulate(bars, target, costs, cash)
    expected = headline(run.equity, run.position, bars.close, run.fills, 8760.)
    found = _metrics(bars, target.to_numpy(), costs, cash, 8760.)
    for name in METRICS: same(found[name], expected[name], name)
    return run, found


def table(opens, closes):
    index = pd.date_range('2024', periods=len(closes), freq='h', tz='UTC', name='time')
    opens, closes = np.asarray(opens, float), np.asarray(closes, float)
    return pd.DataFrame(dict(open=opens, high=np.maximum(opens, closes), low=np.minimum(opens, closes), close=closes, volume=1.), index)


@pytest.mark.parametrize('closes', [[100, 190, 320, 300, 310], [100, 190, 199.8001998001998, 300, 310], [100, 100, 100, 190, 320], [100, 100, 200, 100, 100]])
def test_ruin_ends_a_row_where_it_ends_the_backtest(closes):
    run, found = measured(table([100, 100, 100, 190, 300], closes), [-1., -1, -1, -1, -1])
    assert (run.ruined is None) == (found['final_equity'] > 0)


@pytest.mark.filterwarnings('ignore:invalid value')
def test_equity_of_exactly_nothing_has_the_same_undefined_numbers():
    for closes in ([100., 100, 200, 300, 300], [100., 100, 100, 100, 200]):
        run, found = measured(table([100.] * 5, closes), [-1.] * 5, Costs(0, 0))
        assert run.ruined is not None and found['final_equity'] == 0


@pytest.mark.parametrize('target', [[0.], [1.], [0., 1.], [1., 1.], [0., 0., 0.], [1., 0., 1., 0., 0.], [1., 1., 1., 1., 1., -1., 1.]])
def test_short_and_idle_samples_have_the_same_undefined_numbers(target):
    prices = 100 * 1.01**np.arange(len(target))
    measured(table(prices, prices), target)
    measured(table(prices, prices), target, Costs(0, 0))


def test_random_markets_give_the_same_numbers():
    rng = np.random.default_rng(5)
    for _ in range(150):
        n = int(rng.integers(2, 120))
        closes = rng.choice([.5, 100., 30_000.]) * np.exp(rng.normal(0, rng.choice([.002, .05, .3]), n).cumsum())
        opens = closes * np.exp(rng.normal(0, .01, n))
        target = rng.choice([-1., -.35, 0, .2, 1], n)[np.maximum.accumulate(np.where(rng.random(n) < .4, np.arange(n), 0))]
        measured(table(opens, closes), target, Costs(float(rng.choice([0, 10])), float(rng.choice([0, 5]))))


def test_what_a_strategy_refuses_is_a_row_that_says_why(sample):
    done = sweep(sma_cross, sample, PAIRS)
    refused = done.table[done.table.refused != '']
    assert done.refused == len(refused) == 4 and refused[METRICS].isna().all(axis=None)
    assert refused.refused.iloc[0] == 'fast was 10 and slow 10; fast must be the smaller'
    assert (done.table.query('fast >= slow').index == refused.index).all()
    assert done.table.query('fast < slow')[['final_equity', 'trades']].notna().all(axis=None)
    assert sweep(sma_cross, sample, dict(fast='60,70', slow=50)).best() is None


def test_a_strategy_that_fails_otherwise_stops_the_sweep_with_its_set(sample):
    @strategy
    def breaks(bars, window: int = 3): return sma(bars.close, 5) > 1 / (window - 4)
    @strategy
    def shouts(bars, size: int = 1): return bars.close * 0 + size
    with pytest.raises(BadInput, match=r'breaks raised ZeroDivisionError .*; this was with window=4$'): sweep(breaks, sample, dict(window='3:5:1'))
    with pytest.raises(BadInput, match=r'shouts returned 2 at .*; this was with size=2$'): sweep(shouts, sample, dict(size='1,2'))


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
    assert len(list(tmp_path.iterdir())) == 1


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
    next(tmp_path.iterdir()).write_bytes(b'PAR1 nothing')
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
    assert grid(tilt, {}) == [dict(window=20, size=.5, flip=False)]


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
    with pytest.raises(BadInput, match='parameter exposure has the name of a result'): sweep(twice, sample, dict(exposure='.1,.2'))


def test_the_table_survives_parquet(sample, tmp_path):
    done = sweep(tilt, sample, dict(window='5,6', flip=[True, False])).table
    done.to_parquet(tmp_path / 't.parquet')
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / 't.parquet'), done)
    assert list(done) == ['window', 'size', 'flip', *METRICS, 'refused']
