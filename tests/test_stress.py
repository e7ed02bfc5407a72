"Every stress test is the backtest it says it is, and every crash on the list was one."
import json
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import pandas as pd
import pytest
from annotated_types import Interval

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.measure import Prepared
from trading_lib.backtest.run import backtest
from trading_lib.backtest.stress import (
    CRASHES,
    MOST_BPS,
    around,
    break_even,
    cost_stress,
    crash_overlay,
    crashes_in,
    delay_stress,
    historical_crashes,
    missing_bar_stress,
    parameter_stress,
    stress,
    with_crash,
)
from trading_lib.core.errors import BadInput
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import check_bars, together
from trading_lib.market.store import read_file
from trading_lib.market.synthetic import synthetic_market
from trading_lib.risk.stops import Stops
from trading_lib.strategies.contract import describe, strategy
from trading_lib.strategies.reversion import bollinger_reversion
from trading_lib.strategies.trend import sma_cross

SET = dict(fast=20, slow=60)


@pytest.fixture(scope='module')
def market(): return synthetic_market(seed=11, bars=3000)


@pytest.fixture(scope='module')
def sample(market): return market.samples['BTC/USDT']


@pytest.fixture(scope='module')
def prepared(sample): return Prepared(sma_cross, sample, Costs(8, 2))


@strategy
def hold(bars): return np.ones(len(bars))


@strategy
def picky(bars, part: Annotated[float, Interval(ge=0, le=1)] = 0., n: Annotated[int, Interval(ge=2, le=4)] = 3, way: Literal['up', 'down', 'none'] = 'up',
          on: bool = True):
    return np.full(len(bars), on * (part + n / 8) / 2 * dict(up=1, down=-1, none=0)[way])


def test_neighbours_keep_to_bounds_and_kinds():
    part, n, way, on = describe(picky).parameters.values()
    assert around(part, 0., 2) == [.1, .2] and around(part, .95, 3) == [.665, .76, .855]
    assert around(n, 3) == [2, 4] and around(way, 'up') == ['down', 'none'] and around(on, True) == [False]


def test_every_neighbour_is_its_backtest_and_counted(sample, prepared, tmp_path):
    found = parameter_stress(prepared, SET, steps=2, ledger=Ledger(tmp_path))
    assert list(found.table.case) == ['fast=16', 'fast=18', 'fast=22', 'fast=24', 'slow=48', 'slow=54', 'slow=66', 'slow=72']
    for row in found.table.itertuples():
        name, value = row.case.split('=')
        made = backtest(sma_cross, sample, SET | {name: int(value)}, Costs(8, 2)).metrics
        assert (row.total_return, row.trades) == (pytest.approx(made['total_return'], rel=1e-9), made['trades'])
    chosen = backtest(sma_cross, sample, SET, Costs(8, 2)).metrics['total_return']
    assert list(found.table.keeps_sign) == list(np.sign(found.table.total_return) == np.sign(chosen))
    assert Ledger(tmp_path).count('sma_cross') == 8 and f'{found.table.keeps_sign.sum()} of 8 neighbours' in found.sentence


def test_refused_neighbours_do_not_count_and_stops_are_moved_too(sample):
    tight = parameter_stress(Prepared(sma_cross, sample), dict(fast=49, slow=50), steps=3)
    assert list(tight.table.case) == ['fast=34', 'fast=39', 'fast=44', 'slow=55', 'slow=60', 'slow=65']
    stopped = Prepared(sma_cross, sample, stops=Stops(stop_loss=.02, time_stop=5))
    cases = parameter_stress(stopped, SET, steps=1).table.set_index('case')
    assert list(cases.index[4:]) == ['stop_loss=0.018', 'stop_loss=0.022', 'time_stop=4', 'time_stop=6']
    wider = backtest(sma_cross, sample, SET, stops=Stops(stop_loss=.022, time_stop=5)).metrics
    assert cases.total_return['stop_loss=0.022'] == pytest.approx(wider['total_return'], rel=1e-9)
    assert parameter_stress(Prepared(hold, sample), {}).sentence == 'hold has no parameter to move.'


def test_costs_are_multiplied_and_the_fee_that_takes_all_is_found(sample, prepared, tmp_path):
    found = cost_stress(prepared, SET, ledger=Ledger(tmp_path))
    for factor, row in zip((.5, 1, 2, 3, 5), found.table.itertuples(), strict=True):
        assert row.total_return == pytest.approx(backtest(sma_cross, sample, SET, Costs(8 * factor, 2 * factor)).metrics['total_return'], rel=1e-9)
    assert found.table.total_return.is_monotonic_decreasing and Ledger(tmp_path).count('sma_cross') == 5
    earning = next(Prepared(sma_cross, sample, Costs(0, 1)).target(dict(fast=fast, slow=90)) for fast in range(5, 60)
                   if backtest(sma_cross, sample, dict(fast=fast, slow=90), Costs(0, 1)).metrics['total_return'] > .02)
    fee = break_even(prepared, earning)
    assert prepared.metrics(earning, costs=Costs(fee, 2))['total_return'] > 0 > prepared.metrics(earning, costs=Costs(fee + .02, 2))['total_return']
    losing = Prepared(hold, replace(sample, bars=sample.bars[::-1].set_axis(sample.bars.index)))
    ends = sample.bars.close.iloc[-1] > sample.bars.close.iloc[0]
    assert break_even(losing if ends else Prepared(hold, sample), np.ones(3000)) is None
    rich = Prepared(hold, replace(sample, bars=sample.bars * np.linspace(1, 9, 3000)[:, None]), Costs(0, 0))
    assert break_even(rich, np.ones(3000)) == MOST_BPS and 'no fee' in cost_stress(rich, {}).sentence


def test_late_orders_are_a_shifted_target(sample, prepared):
    found = delay_stress(prepared, SET, (1, 3))
    target = sma_cross(sample.bars, **SET).astype(float)
    for late, row in zip((1, 3), found.table.itertuples(), strict=True):
        equity = simulate(sample.bars, target.shift(late, fill_value=0.), Costs(8, 2)).equity
        assert row.total_return == pytest.approx(equity.iloc[-1] / 10_000 - 1, rel=1e-9)
    assert list(found.table.case) == ['1 bar late', '3 bars late']


def test_missing_bars_are_gone_for_the_strategy_too_and_the_same_for_a_seed(sample, prepared):
    found = missing_bar_stress(prepared, SET, (.02, .2), times=2, seed=5)
    assert list(found.table.case) == ['2% missing, 1', '2% missing, 2', '20% missing, 1', '20% missing, 2'] and found.table.total_return.nunique() == 4
    assert found.table.equals(missing_bar_stress(prepared, SET, (.02, .2), times=2, seed=5).table) and not found.table.equals(missing_bar_stress(prepared, SET, (.02, .2), times=2).table)
    seen = []
    @strategy
    def spy(bars): seen.append(bars.index); return np.ones(len(bars))
    missing_bar_stress(Prepared(spy, sample), {}, (.1,), times=1)
    shown = min(seen, key=len)
    assert .85 * 3000 < len(shown) < .95 * 3000 and shown[0] == sample.bars.index[0] and shown[-1] == sample.bars.index[-1]


def test_columns_that_a_strategy_needs_come_along(sample):
    @strategy(needs=('mood',))
    def moody(bars): return bars.mood > 0
    moods = replace(sample, bars=sample.bars.assign(mood=np.sin(np.arange(3000) / 40)))
    found = stress(moody, moods)
    assert len(found.tests['missing bars'].table) == 15 and len(found.tests['crash overlay'].table) == 12


def test_a_fall_is_laid_over_valid_bars_and_leaves_the_past_alone(market):
    bars = together([market.samples[name] for name in ('BTC/USDT', 'ETH/USDT')]).bars
    for length in (1, 30, 200):
        fallen = with_crash(bars, 1000, .4, length)
        assert fallen[:1000].equals(bars[:1000]) and (fallen[:999].index == bars[:999].index).all()
        for symbol in ('BTC/USDT', 'ETH/USDT'):
            check_bars(fallen[symbol], symbol)
            factor = fallen[symbol].close / bars[symbol].close
            assert factor.min() == pytest.approx(.6) and factor.idxmin() == bars.index[1000 + length - 1]
            assert factor.iloc[-1] == pytest.approx(.6**.6) and factor.iloc[1000 + length + max(round(length / 4), 1):].nunique() <= 3
            assert np.allclose(fallen[symbol].open[1:] / bars[symbol].open[1:], factor[:-1])


def test_a_holder_falls_like_the_market_and_the_absent_do_not(sample):
    @strategy
    def absent(bars): return np.zeros(len(bars))
    held = crash_overlay(Prepared(hold, sample, Costs(0, 0)), {}, places=3).table
    assert np.allclose(held.total_return, held.buy_and_hold, atol=1e-9) and (held.worst < 0).all() and not held.spared.any()
    assert (crash_overlay(Prepared(absent, sample), {}, places=2).table.total_return == 0).all()
    assert len(crash_overlay(Prepared(hold, replace(sample, bars=sample.bars[:100])), {}, places=1).table) < 12


def test_a_market_that_was_made_up_holds_no_dated_crash(sample, prepared):
    assert crashes_in(sample) == [] and len(crashes_in(replace(sample, synthetic=False))) == 1   # 2023 has the banks
    assert 'made up' in historical_crashes(prepared, SET).sentence


def test_dated_crashes_are_replayed_on_real_hours(btc_hourly):
    real = read_file(btc_hourly)
    prepared, params = Prepared(sma_cross, real, Costs(5, 2)), dict(fast=20, slow=100)
    table = historical_crashes(prepared, params).table
    assert list(table.case) == ['xinjiang', 'china ban', 'el salvador', 'december', 'luna', 'celsius', 'ftx', 'banks']
    run = backtest(sma_cross, real, params, Costs(5, 2))
    for row, crash in zip(table.itertuples(), CRASHES[2:10], strict=True):
        start, end = pd.Timestamp(crash.start, tz='UTC') - pd.Timedelta('1h'), pd.Timestamp(crash.end, tz='UTC') - pd.Timedelta('1h')
        equity, close = run.equity[start:end], real.bars.close[start:end]
        assert row.total_return == pytest.approx(equity.iloc[-1] / equity.iloc[0] - 1) and row.buy_and_hold == pytest.approx(close.iloc[-1] / close.iloc[0] - 1)
        assert row.max_drawdown == pytest.approx((equity / equity.cummax() - 1).min())
        assert row.exposure == pytest.approx((run.simulation.position * run.close / run.equity)[start])


def fell(bars):
    "How deep, and in how many hours."
    fall = bars.low / bars.high.cummax() - 1
    low = fall.idxmin()
    return -fall.min(), (low - bars.high[:low].idxmax()) / pd.Timedelta('1h')


def test_bitcoin_fell_as_deep_and_as_fast_as_the_list_says_on_the_perpetual_and_before_2021_on_spot(shared_data, btc_hourly):
    early = pd.read_parquet(shared_data / 'ohlcv/misc/binance_btcusdt_4h_ohlcv_to2023.parquet')
    early = early.set_index(pd.to_datetime(early['timestamp'], utc=True))
    for crash in CRASHES[:10]:
        bars, hours = (early, 4) if crash.start < '2021' else (read_file(btc_hourly).bars, 1)
        deep, fast = fell(bars[(bars.index >= pd.Timestamp(crash.start, tz='UTC')) & (bars.index < pd.Timestamp(crash.end, tz='UTC'))])
        assert deep == pytest.approx(crash.fall, abs=.006), crash.name
        assert abs(fast - crash.hours) <= hours - 1, (crash.name, fast)


def test_crashes_are_in_order_and_told_in_a_sentence():
    assert list(CRASHES) == sorted(CRASHES, key=lambda crash: crash.start)
    for crash in CRASHES: assert crash.start < crash.end and 0 < crash.fall < 1 and crash.what.endswith('.')


def test_everything_is_one_table_and_plain(market, tmp_path):
    several = together([market.samples[name] for name in ('BTC/USDT', 'SOL/USDT')])
    seen = []
    found = stress(bollinger_reversion, several, dict(window=30), Costs(5, 2), stops=Stops(stop_loss=.05), ledger=Ledger(tmp_path),
                   progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6) and set(found.table.test) == set(found.tests) - {'historical crashes'}
    said = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert said['params'] == dict(window=30, width=2., shorts=False) and len(said['missing_bars']['cases']) == 15
    assert found.chosen['total_return'] == pytest.approx(backtest(bollinger_reversion, several, dict(window=30), Costs(5, 2), stops=Stops(stop_loss=.05)).metrics['total_return'])
    assert len(found.sentence.splitlines()) == 6


def test_bad_questions_are_refused_with_a_remedy(sample):
    with pytest.raises(BadInput, match='take at least 100'): stress(sma_cross, replace(sample, bars=sample.bars[:99]))
    with pytest.raises(BadInput, match='did you mean fast'): stress(sma_cross, sample, dict(fats=3))
    with pytest.raises(BadInput, match='fast must be the smaller'): stress(sma_cross, sample, dict(fast=50, slow=50))
    prepared = Prepared(sma_cross, sample)
    for how in (dict(steps=0), dict(share=0.), dict(share=1.)):
        with pytest.raises(BadInput, match='at least 1 step'): parameter_stress(prepared, SET, **how)
    for fall in (0., 1., 53):
        with pytest.raises(BadInput, match='above 0 and below 1'): with_crash(sample.bars, 1000, fall, 26)
