"Numbers that people compare: each against the sentence that defines it."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_lib.backtest.kernel import simulate
from trading_lib.core.errors import BadInput
from trading_lib.core.metrics import (
    TRADE_COLUMNS,
    drawdown,
    expected_shortfall,
    headline,
    kelly,
    longest_drawdown,
    recovery_factor,
    returns,
    round_trips,
    value_at_risk,
)
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import field
from trading_lib.risk.stops import Stops

curves = st.lists(st.sampled_from([90., 95, 100, 105, 110]), min_size=1, max_size=25).map(pd.Series)


def both(seed):
    "Two symbols that share an account."
    rng = np.random.default_rng(seed)
    index = pd.date_range('2024', periods=200, freq='h', tz='UTC', name='time')
    def one():
        close = 100 * np.exp(rng.normal(0, .02, 200).cumsum())
        return pd.DataFrame(dict(open=close, high=close * 1.01, low=close * .99, close=close, volume=1.), index)
    bars = pd.concat({'B': one(), 'A': one()}, axis=1)
    target = pd.DataFrame({name: np.repeat(rng.choice([-.5, 0, .3], 20), 10) for name in 'BA'}, index)
    return bars, simulate(bars, target, Costs(10, 5), stops=Stops(.03))


@given(curves)
@settings(max_examples=100, deadline=None)
def test_the_longest_drawdown_is_the_longest_wait(equity):
    values, waits = equity.tolist(), [0]
    for start, peak in enumerate(values):
        if peak < max(values[:start + 1]): continue
        back = next((t for t in range(start + 1, len(values)) if values[t] >= peak), None)
        if back is None: waits.append(len(values) - 1 - start)
        elif back > start + 1: waits.append(back - start)
    assert longest_drawdown(equity) == max(waits)


def test_a_curve_that_only_rises_or_rests_is_never_under_water():
    assert longest_drawdown(pd.Series([1., 2, 2, 2, 3])) == 0 and longest_drawdown(pd.Series([5., 5, 5])) == 0


def test_losses_beyond_the_value_at_risk_are_worse_on_average():
    equity = pd.Series(100 * np.exp(np.random.default_rng(1).normal(0, .02, 2000).cumsum()))
    r = returns(equity)
    assert value_at_risk(equity, .9) == pytest.approx(-np.quantile(r, .1)) and expected_shortfall(equity, .9) > value_at_risk(equity, .9)
    assert expected_shortfall(equity, .9) == pytest.approx(-r[r <= -value_at_risk(equity, .9)].mean())
    assert value_at_risk(equity[:1]) is None and expected_shortfall(equity[:1]) is None


def test_recovery_is_profit_over_the_deepest_fall_in_money():
    assert recovery_factor(pd.Series([100., 200, 150, 260, 250])) == pytest.approx(150 / 50)
    assert recovery_factor(pd.Series([100., 200])) is None and drawdown(pd.Series([100., 200])).min() == 0


def test_kelly_needs_both_wins_and_losses():
    trades = pd.DataFrame(dict(pnl=[30., -10, -10, 99], quantity=1., entry_price=100., is_open=[False, False, False, True]))
    assert kelly(trades) == pytest.approx(1 / 3 - 2 / 3 / 3)
    assert kelly(trades[1:]) is None and kelly(trades[:1]) is None and kelly(trades[:0]) is None


@pytest.mark.parametrize('seed', range(5))
def test_trades_of_several_symbols_are_those_of_each(seed):
    bars, run = both(seed)
    close = field(bars, 'close')
    trades = round_trips(run.fills, close.iloc[-1])
    assert list(trades) == [*TRADE_COLUMNS, 'symbol'] and trades.entry_time.is_monotonic_increasing
    for name in 'AB':
        own = round_trips(run.fills[run.fills.symbol == name].drop(columns='symbol'), float(close[name].iloc[-1]))
        pd.testing.assert_frame_equal(trades[trades.symbol == name][TRADE_COLUMNS].reset_index(drop=True), own, check_dtype=False)
    open_cost = trades[trades.is_open.astype(bool)]
    assert run.equity.iloc[-1] - 10_000 == pytest.approx(trades.pnl.sum()) and len(open_cost) <= 2


def test_a_trade_says_why_it_ended():
    bars, run = both(1)
    trades = round_trips(run.fills, field(bars, 'close').iloc[-1])
    ended = trades[~trades.is_open.astype(bool)]
    assert set(ended.reason) == {'target', 'stop_loss'} and (trades.reason[trades.is_open.astype(bool)] == '').all()
    assert (ended.reason == 'stop_loss').sum() == (run.fills.reason == 'stop_loss').sum()


def test_the_headline_of_several_symbols():
    bars, run = both(2)
    close = field(bars, 'close')
    found = headline(run.equity, run.position, close, run.fills, 8760.)
    assert found['benchmark_return'] == pytest.approx((close.iloc[-1] / close.iloc[0] - 1).mean())
    assert found['exposure'] == pytest.approx(((run.position * close).abs().sum(axis=1) / run.equity).mean())
    flow = pd.Series([0., -3, 1], run.equity.index[:3])
    assert headline(run.equity, run.position, close, run.fills, 8760., flow)['funding_paid'] == 2 and found['funding_paid'] == 0


@pytest.mark.parametrize(('what', 'says'), [
    (dict(stop_loss=0), 'stop_loss was 0; it must be a fraction between 0 and 1'), (dict(stop_loss=1), 'between 0 and 1'), (dict(trailing_stop=5), 'such as 0.05 for 5%'),
    (dict(take_profit=-.1), 'take_profit was -0.1; it must be a fraction above 0'), (dict(take_profit=float('nan')), 'above 0'), (dict(stop_loss='.05'), 'fraction'),
    (dict(time_stop=0), 'time_stop was 0; it must be a whole number of bars, at least 1'), (dict(time_stop=2.5), 'whole number'), (dict(time_stop=True), 'whole number')])
def test_stops_that_mean_nothing_are_one_line(what, says):
    with pytest.raises(BadInput) as caught: Stops(**what)
    assert says in str(caught.value) and '\n' not in str(caught.value)


def test_stops_are_what_is_set():
    assert Stops(np.float64(.05), time_stop=np.int64(3)).json() == dict(stop_loss=.05, time_stop=3) and Stops(take_profit=4).json() == dict(take_profit=4.)
    assert Stops() == Stops(None) and not Stops() and Stops(time_stop=1) and hash(Stops(.1)) == hash(Stops(.1))
