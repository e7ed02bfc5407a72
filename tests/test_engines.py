"The model, example by example and on real bars: the plain loop of `oracle` says what is right, and kernel, vectorbt and replay have to say the same."
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import tell
from test_agreement import ENGINES, check, sensible

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.replay import replay, replay_venue
from trading_lib.core.errors import BadInput
from trading_lib.execution.costs import Costs
from trading_lib.execution.matching import MarketRules, spot_rules
from trading_lib.market.bars import tidy
from trading_lib.risk.stops import Stops
from trading_lib.strategies.contract import find
from trading_lib.strategies.feeds import decider


def table(opens, closes, start='2024'):
    index = pd.date_range(start, periods=len(closes), freq='h', tz='UTC', name='time')
    opens, closes = np.asarray(opens, float), np.asarray(closes, float)
    return pd.DataFrame(dict(open=opens, high=np.maximum(opens, closes), low=np.minimum(opens, closes), close=closes, volume=1.), index)


@pytest.fixture(scope='module')
def real(btc_hourly): return tidy(pd.read_parquet(btc_hourly))


def exposures(bars, kind):
    trend = bars.close.rolling(10).mean() > bars.close.rolling(50).mean()
    if kind == 'long only': return trend.astype(float)
    if kind == 'flips': return trend * 2. - 1
    return (trend * .37 + (bars.close.rolling(7).mean() > bars.close.rolling(90).mean()) * .41).round(2) - (.3 if kind == 'fractions both ways' else 0)


@pytest.mark.parametrize('costs', [Costs(0, 0), Costs(10, 5), Costs(4, 0)], ids=str)
@pytest.mark.parametrize('kind', ['long only', 'flips', 'fractions', 'fractions both ways'])
def test_every_engine_equals_the_plain_loop_on_real_bars(real, kind, costs):
    check((real[-12_000:], exposures(real[-12_000:], kind), costs, Stops()), tolerance=1e-11)


@pytest.mark.parametrize('stops', [Stops(stop_loss=.02), Stops(take_profit=.03), Stops(trailing_stop=.02), Stops(time_stop=24), Stops(.02, .05, .03, 48)], ids=str)
@pytest.mark.parametrize('kind', ['flips', 'fractions both ways'])
def test_every_engine_equals_the_plain_loop_on_real_bars_with_stops(real, kind, stops):
    story = check((real[-6000:], exposures(real[-6000:], kind), Costs(5, 2), stops), tolerance=1e-11)
    assert {f.reason for f in story.fills} == {'target', *stops.json()}


def test_every_engine_equals_the_plain_loop_across_gaps(real):
    holey = real.drop(real.index[[100, 101, 555, *range(2000, 2100)]])[:4000]
    check((holey, exposures(holey, 'flips'), Costs(10, 5), Stops()))


# ---- the model, rule by rule ----

FLAT, CALM = (100, 100, 100, 100), [(100, 100, 100, 100)] * 2   # a decision is made at the close of the first, and filled at the open of the next


def bars_of(*rows):
    "Rows of open, high, low, close."
    index = pd.date_range('2024', periods=len(rows), freq='h', tz='UTC', name='time')
    return pd.DataFrame(rows, index, ['open', 'high', 'low', 'close'], dtype=float).assign(volume=1.)


LONG, SHORT = 1., -.5
RULES = {
    'a touch is enough': (Stops(.05), LONG, [*CALM, (100, 100, 95, 97)], [(2, -1, 95, 'stop_loss')]),
    'almost is not': (Stops(.05), LONG, [*CALM, (100, 100, 95.001, 97)], []),
    'a gap through the stop fills at the open': (Stops(.05), LONG, [*CALM, (90, 96, 90, 95)], [(2, -1, 90, 'stop_loss')]),
    'so does one for a short': (Stops(.05), SHORT, [*CALM, (110, 110, 104, 106)], [(2, 1, 110, 'stop_loss')]),
    'a target is met at its level': (Stops(take_profit=.05), LONG, [*CALM, (100, 106, 99, 100)], [(2, -1, 105, 'take_profit')]),
    'a gap beyond the target is a gift': (Stops(take_profit=.05), LONG, [*CALM, (108, 109, 104, 106)], [(2, -1, 108, 'take_profit')]),
    'of both in one bar the worse': (Stops(.05, .05), LONG, [*CALM, (100, 106, 94, 105)], [(2, -1, 95, 'stop_loss')]),
    'unless the open has decided': (Stops(.05, .05), LONG, [*CALM, (106, 107, 94, 95)], [(2, -1, 106, 'take_profit')]),
    'and for a short': (Stops(.05, .05), SHORT, [*CALM, (100, 106, 94, 95)], [(2, 1, 105, 'stop_loss')]),
    'the bar of the entry counts': (Stops(.05), LONG, [FLAT, (100, 100, 94, 97), FLAT], [(1, -1, 95, 'stop_loss')]),
    'a trailing stop follows the highs': (Stops(trailing_stop=.1), LONG, [FLAT, (100, 120, 100, 120), (119, 119, 105, 110)], [(2, -1, 108, 'trailing_stop')]),
    'but not that of its own bar': (Stops(trailing_stop=.1), LONG, [FLAT, (100, 120, 100, 120), (119, 130, 109, 128), (128, 128, 118, 120)], []),
    'and begins at the entry': (Stops(trailing_stop=.1), LONG, [FLAT, (100, 120, 91, 120), FLAT], [(2, -1, 100, 'trailing_stop')]),
    'for shorts it follows the lows': (Stops(trailing_stop=.1), SHORT, [FLAT, (100, 100, 80, 80), (81, 90, 81, 85)], [(2, 1, 88, 'trailing_stop')]),
    'the nearer stop is the stop': (Stops(.05, trailing_stop=.1), LONG, [*CALM, (100, 100, 80, 90)], [(2, -1, 95, 'stop_loss')]),
    'of two equally near the fixed one': (Stops(.1, trailing_stop=.1), LONG, [*CALM, (100, 100, 80, 90)], [(2, -1, 90, 'stop_loss')]),
    'later the trailing one is nearer': (Stops(.1, trailing_stop=.1), LONG, [*CALM, (100, 110, 100, 110), (110, 110, 98, 99)], [(3, -1, 99, 'trailing_stop')]),
    'a trade may last so many bars': (Stops(time_stop=2), LONG, [*CALM, FLAT, (101, 102, 101, 102), FLAT], [(3, -1, 101, 'time_stop')]),
    'a stop comes first where it is touched first': (Stops(.05, time_stop=2), LONG, [*CALM, (100, 100, 90, 90), FLAT], [(2, -1, 95, 'stop_loss')]),
    'time is up before the bar is looked at': (Stops(.05, time_stop=1), LONG, [*CALM, (90, 100, 90, 90), FLAT], [(2, -1, 90, 'time_stop')]),
    'a target for a short below nothing is never met': (Stops(take_profit=1.5), SHORT, [*CALM, (100, 100, .001, .001), FLAT], []),
}


@pytest.mark.parametrize('rule', RULES)
def test_a_rule(rule):
    stops, share, rows, expected = RULES[rule]
    bars = bars_of(*rows)
    target = pd.Series(share, bars.index)
    fills = check((bars, target, Costs(0), stops)).fills
    assert [(f.bar, f.quantity > 0, f.price, f.reason) for f in fills[1:]] == [(t, side > 0, pytest.approx(price), why) for t, side, price, why in expected]


def fills_of(bars, target, costs=Costs(0), stops=Stops()):
    "Of the oracle, with which every engine agrees."
    engines = [name for name in ENGINES if name != 'vectorbt' or 'funding' not in bars.columns.get_level_values(-1)]
    return check((bars, target, costs, stops), engines, cash=1000.).fills


def test_after_a_stop_it_is_flat_until_the_target_changes():
    bars = bars_of(*CALM, (100, 100, 94, 100), *[FLAT] * 4)
    told = lambda *target: [(f.bar, f.reason) for f in fills_of(bars, pd.Series(target, bars.index), stops=Stops(.05))]
    assert told(1., 1, 1, 1, 1, 1, 1) == [(1, 'target'), (2, 'stop_loss')]
    assert told(1., 1, 1, 1, .5, .5, .5) == [(1, 'target'), (2, 'stop_loss'), (5, 'target')]


def test_a_stop_on_the_bar_of_a_new_order_comes_after_it():
    bars = bars_of(*CALM, (96, 97, 90, 92), FLAT)
    fills = fills_of(bars, pd.Series([.5, 1, 1, 1], bars.index), stops=Stops(.05))
    assert [(f.bar, f.reason) for f in fills] == [(1, 'target'), (2, 'target'), (2, 'stop_loss')] and fills[2].quantity == -fills[0].quantity - fills[1].quantity


def test_a_changed_target_is_obeyed_where_time_is_up_too_and_then_time_is_still_up():
    bars = bars_of(*[FLAT] * 5)
    fills = fills_of(bars, pd.Series([1., 1, .5, .5, .5], bars.index), stops=Stops(time_stop=2))
    assert [(f.bar, f.quantity, f.reason) for f in fills] == [(1, 10, 'target'), (3, -5, 'target'), (4, -5, 'time_stop')]


def test_what_is_added_moves_the_entry_and_what_is_sold_does_not():
    bars = bars_of(FLAT, (100, 110, 100, 110), (110, 110, 110, 110), (110, 110, 90, 90))
    bought = 1050 / 110 - 5
    entry = (5 * 100 + bought * 110) / (5 + bought)
    fills = fills_of(bars, pd.Series([.5, 1, 1, 1], bars.index), stops=Stops(.1))
    assert [f.quantity for f in fills] == pytest.approx([5, bought, -5 - bought]) and fills[-1].price == pytest.approx(entry * .9)
    fills = fills_of(bars, pd.Series([1, .5, .5, .5], bars.index), stops=Stops(.08))
    assert [f.bar for f in fills] == [1, 2, 3] and fills[-1].price == pytest.approx(92)


def test_a_flip_begins_a_new_trade():
    bars = bars_of(FLAT, (100, 130, 100, 120), (120, 120, 118, 119), (119, 132.5, 119, 130), FLAT)
    fills = fills_of(bars, pd.Series([.5, -.4, -.4, -.4, -.4], bars.index), stops=Stops(.1, trailing_stop=.2, time_stop=2))
    assert [(f.bar, f.reason) for f in fills] == [(1, 'target'), (2, 'target'), (3, 'stop_loss')] and fills[-1].price == pytest.approx(132)


def test_slippage_and_fee_are_paid_on_stops_too():
    bars = bars_of(*CALM, (100, 100, 90, 90))
    entry, stop = fills_of(bars, pd.Series(.5, bars.index), Costs(10, 100), Stops(.05))
    assert entry.price == 101 and stop.price == pytest.approx(101 * .95 * .99) and stop.fee == pytest.approx(5 * stop.price * .001)


def test_longs_pay_a_positive_rate_and_shorts_receive_it_on_the_position_carried_into_the_open():
    bars = bars_of(*CALM, FLAT, FLAT).assign(funding=[.01, .01, .01, np.nan])
    for share, flow in ((.5, -5), (-.5, 5)):
        target = pd.Series([share, share, 0, 0], bars.index)
        story = tell(bars, target, Costs(0), 1000.)
        assert story.funding == [0, 0, flow, 0] and story.equity == [1000, 1000, 1000 + flow, 1000 + flow]
        fills_of(bars, target)


def test_funding_may_take_cash_below_zero_and_then_nothing_more_is_bought():
    bars = bars_of(*[FLAT] * 5).assign(funding=[0, 0, .01, 0, 0])
    story = tell(bars, pd.Series([.5, 1, 1, .2, .2], bars.index), Costs(0), 1000.)
    assert story.cash[2] == pytest.approx(0) and [f.quantity for f in story.fills] == pytest.approx([5, 4.95, -9.95 + .2 * 9.95])
    fills_of(bars, pd.Series([.5, 1, 1, .2, .2], bars.index))
    whole = pd.Series([1., 1, 1, -1, -1], bars.index)
    assert tell(bars, whole, Costs(0), 1000.).cash[2] == pytest.approx(-10)
    fills_of(bars, whole)


def test_costs_may_be_numbers_of_numpy_as_tables_and_grids_hold_them():
    bars = bars_of(*CALM, (100, 100, 90, 90))
    for engine in ENGINES.values():
        same = [engine(bars, pd.Series(.5, bars.index), Costs(fee, fee), stops=Stops(.05)) for fee in (10, np.int64(10), np.float64(10))]
        assert all(each.equity.equals(same[0].equity) and each.fills.equals(same[0].fills) for each in same)


def several(**tables): return pd.concat(tables, axis=1, names=['symbol', None])


def test_sales_come_before_buys_and_pay_for_them():
    bars = several(A=bars_of(*[FLAT] * 4), B=bars_of(*[FLAT] * 4), C=bars_of(*[FLAT] * 4))
    target = pd.DataFrame(dict(A=[0, 0, .6, .6], B=[1, .5, 0, 0], C=[0, .5, .4, .4]), bars.index, dtype=float)
    assert [(f.bar, f.symbol, f.quantity) for f in fills_of(bars, target)] == [
        (1, 'B', 10), (2, 'B', -5), (2, 'C', 5), (3, 'B', -5), (3, 'C', pytest.approx(-1)), (3, 'A', pytest.approx(6))]


def test_the_largest_buy_comes_last_and_is_the_one_that_is_cut():
    bars = several(A=bars_of(FLAT, (110, 110, 100, 100)), B=bars_of(FLAT, (110, 110, 100, 100)))
    fills = fills_of(bars, pd.DataFrame(dict(A=.6, B=.4), bars.index))
    assert [(f.symbol, f.quantity) for f in fills] == [('B', 4), ('A', pytest.approx((1000 - 440) / 110))]


def test_equal_buys_go_in_the_order_of_the_columns_so_that_no_rounding_decides_which_is_cut():
    prices = dict(A=3., B=7., C=11., D=13.)
    bars = several(**{name: bars_of((p, p, p, p), (p * 1.1, p * 1.1, p, p)) for name, p in prices.items()})
    for share in (.25, 1 / 7, 15 / 64):
        fills = fills_of(bars, pd.DataFrame(dict.fromkeys(prices, share), bars.index))
        assert [f.symbol for f in fills] == list(prices)


def test_stops_are_looked_at_in_the_order_of_the_columns_after_all_orders():
    fall = bars_of(*CALM, (100, 100, 90, 90))
    bars = several(A=fall, B=fall, C=bars_of(*[FLAT] * 3))
    fills = fills_of(bars, pd.DataFrame(dict(A=[.2] * 3, B=[.3] * 3, C=[0, .4, .4]), bars.index), stops=Stops(.05))
    assert [(f.bar, f.symbol, f.reason) for f in fills] == [(1, 'A', 'target'), (1, 'B', 'target'), (2, 'C', 'target'), (2, 'A', 'stop_loss'), (2, 'B', 'stop_loss')]


def test_one_of_several_symbols_alone_is_that_symbol(real):
    bars, target = real[:800], exposures(real[:800], 'fractions both ways')
    other = real[5000:5800].set_axis(bars.index)
    both = several(BTC=bars, OTHER=other)
    for stops in (Stops(), Stops(.02, .04, .03, 24)):
        for engine in ENGINES.values():
            alone, one = engine(bars, target, Costs(10, 5), stops=stops), engine(both, pd.DataFrame(dict(BTC=target, OTHER=0.)), Costs(10, 5), stops=stops)
            assert np.allclose(one.equity, alone.equity, rtol=1e-12) and len(one.fills) == len(alone.fills) and set(one.fills.symbol) == {'BTC'}


# ---- properties ----

walks = st.tuples(st.integers(0, 2**32), st.integers(3, 40), st.sampled_from([.5, 100., 30_000.]))

def market(walk, low=-1.):
    "Bars with jumps between close and open, and exposures in twentieths that often stay."
    seed, n, price = walk
    rng = np.random.default_rng(seed)
    closes = price * np.exp(rng.normal(0, .03, n).cumsum())
    target = np.where(rng.random(n) < .5, np.nan, rng.integers(round(low * 20), 21, n) / 20)
    bars = table(closes * np.exp(rng.normal(0, .02, n)), closes)
    return bars, pd.Series(target, bars.index).ffill().fillna(0.), Costs(*rng.choice([0, 2, 10, 75], 2).tolist())


@given(walks, st.sampled_from([(5, 0), (0, 5), (30, 30)]))
@settings(max_examples=100, deadline=None)
def test_costs_never_help(walk, more):
    bars, target, costs = market(walk, low=0.)
    sensible((bars, target, costs, Stops()), strict=True)
    dearer = Costs(costs.fee_bps + more[0], costs.slippage_bps + more[1])
    assert simulate(bars, target, dearer).equity.iloc[-1] <= simulate(bars, target, costs).equity.iloc[-1] * (1 + 1e-12)


@given(walks, st.sampled_from([1e-2, 7., 1e4]), st.sampled_from([Stops(), Stops(.02, .05, .03, 7)]))
@settings(max_examples=60, deadline=None)
def test_prices_and_cash_may_be_counted_in_any_unit(walk, unit, stops):
    bars, target, costs = market(walk)
    sensible((bars, target, costs, stops), strict=True)
    base = simulate(bars, target, costs, stops=stops).equity
    prices = ['open', 'high', 'low', 'close']
    assert np.allclose(simulate(bars.assign(**bars[prices] * unit), target, costs, stops=stops).equity, base, rtol=1e-9)
    assert np.allclose(simulate(bars, target, costs, 10_000. * unit, stops).equity / unit, base, rtol=1e-9)


@given(walks, st.integers(1, 39), st.sampled_from([Stops(), Stops(.02, .05, .03, 7)]))
@settings(max_examples=60, deadline=None)
def test_what_happened_so_far_does_not_depend_on_what_comes(walk, cut, stops):
    bars, target, costs = market(walk)
    cut = min(cut, len(bars) - 1)
    for engine in (simulate, replay):
        assert engine(bars, target, costs, stops=stops).equity[:cut].equals(engine(bars[:cut], target[:cut], costs, stops=stops).equity)


def test_an_order_across_a_gap_fills_at_the_first_bar_after_it():
    bars = table([100, 101, 102, 103, 104, 105], [101, 102, 103, 104, 105, 106]).drop(pd.date_range('2024-01-01T02', periods=2, freq='h', tz='UTC'))
    target = pd.Series([0, 1., 1, 1], bars.index)
    check((bars, target, Costs(), Stops()))
    assert simulate(bars, target).fills.time.tolist() == [pd.Timestamp('2024-01-01T04', tz='UTC')]


@pytest.mark.parametrize(('opens', 'closes', 'target'), [
    ([100, 100, 200, 300, 50], [100, 190, 300, 320, 40], [-1, -1, -1, -1, -1]),
    ([100, 100, 150, 90, 80], [100, 150, 210, 80, 70], [-1, -1, 1, 1, 0]),
    ([100, 100, 100, 100, 100], [100, 100, 200, 100, 100], [0, -1, 0, 1, 1])], ids=['ridden to the end', 'a flip too late', 'exactly zero or less'])
def test_ruin_ends_the_run_at_the_same_bar_in_every_engine(opens, closes, target):
    bars = table(opens, closes)
    target = pd.Series(target, bars.index, dtype=float)
    beside = several(GONE=bars, IDLE=bars_of(*[FLAT] * 5)), pd.DataFrame(dict(GONE=target, IDLE=0.))
    for stops in (Stops(), Stops(time_stop=9)):
        for market in ((bars, target), beside): check((*market, Costs(10, 5), stops))
        for engine in ENGINES.values():
            run = engine(bars, target, Costs(10, 5), 10_000., stops)
            after = bars.index >= run.ruined
            assert run.equity[after].nunique() == 1 and (run.position[after] == 0).all() and (run.fills.time <= run.ruined).all()


@pytest.mark.parametrize('stops', [Stops(), Stops(.5)], ids=['without stops', 'with stops'])
@pytest.mark.parametrize('name', ENGINES)
def test_no_target_means_no_fills_and_no_cash_is_refused(name, stops):
    one = table([100, 101, 102], [101, 102, 103])
    columns = ['time', 'side', 'quantity', 'price', 'fee', 'reason']
    for bars, flat in ((one, pd.Series(0., one.index)), (several(A=one, B=one), pd.DataFrame(0., one.index, ['A', 'B']))):
        run = ENGINES[name](bars, flat, Costs(), 500., stops)
        assert run.fills.empty and run.equity.tolist() == [500.] * 3 and list(run.fills.columns) == columns + ['symbol'] * (flat.ndim == 2)
        with pytest.raises(BadInput, match='it must be above 0'): ENGINES[name](bars, flat, Costs(), 0., stops)


# ---- replay at a venue ----

FREE = MarketRules('COIN/USDT', 'COIN', 'USDT', fee=Decimal('0.001'))
COIN = spot_rules('COIN/USDT', 100)


def scripted(wishes):
    wishes = iter(wishes)
    return lambda shown: next(wishes)


def test_without_filters_the_venue_replay_equals_the_kernel(real):
    bars = real[:1500].copy()
    bars['open'] = bars.close.shift(1, fill_value=bars.open.iloc[0])   # so that no buffer is needed
    target = exposures(bars, 'fractions')
    at_venue = replay_venue(scripted(target.tolist()), bars, FREE, 1, buffer=Decimal(0), slippage=Decimal('0.0005')).equity.astype(float)
    assert np.allclose(at_venue, simulate(bars, target, Costs(10, 5)).equity, rtol=1e-12)


def test_a_decision_is_shown_the_last_window_of_bars_and_nothing_later(real):
    bars, seen = real[:60], []
    replay_venue(lambda shown: seen.append(shown) or 0., bars, COIN, window=20, start=5)
    assert [len(s) for s in seen] == [*range(6, 20), *[20] * 41]
    assert all(s.equals(bars[:t + 1][-20:]) for t, s in enumerate(seen, start=5))


def test_a_skipped_order_is_not_tried_again_until_the_target_changes():
    bars = table([100] * 6, [100] * 6)
    run = replay_venue(scripted([.01, .01, .01, .5, .5, .5]), bars, COIN, 1, cash=100)
    assert [d.reason for d in run.decisions] == ['below_min_notional', '', '', '', '', '']
    assert [d.planned is None for d in run.decisions] == [False, True, True, False, True, True] and len(run.orders) == 1


def test_a_strategy_that_raises_holds_on_to_what_it_has():
    bars = table([100] * 5, [100] * 5)
    def decide(shown):
        if len(shown) in (3, 4): raise BadInput('no mood today')
        return 1.
    run = replay_venue(decide, bars, COIN, 9)
    assert [d.target for d in run.decisions] == [1., 1., None, None, 1.] and run.decisions[2].error == 'no mood today' and len(run.orders) == 1


def test_a_jump_beyond_the_buffer_is_refused_by_the_venue_and_not_repeated():
    bars = table([100, 100, 103, 103], [100, 100, 103, 103])
    run = replay_venue(scripted([0., 1., 1., 1.]), bars, COIN, 1, cash=1000, buffer=Decimal('0.01'))
    assert [d.reason for d in run.decisions] == ['', 'INSUFFICIENT_BALANCE', '', ''] and run.fills == ()
    assert run.balances == {'USDT': Decimal(1000), 'COIN': Decimal(0)}


def test_the_books_balance_to_the_last_decimal(real):
    rules = spot_rules('BTC/USDT', 20_000)
    run = replay_venue(decider(find('sma_cross'), dict(fast=5, slow=20)), real[:1200], rules, 60, cash=1234.5, start=100, slippage=Decimal('0.0005'))
    cash = Decimal('1234.5') - sum((1 if f.side == 'buy' else -1) * f.quantity * f.price + (f.fee if f.fee_asset == 'USDT' else 0) for f in run.fills)
    coins = sum((1 if f.side == 'buy' else -1) * f.quantity - (f.fee if f.fee_asset == 'BTC' else 0) for f in run.fills)
    assert run.balances == {'USDT': cash, 'BTC': coins} and len(run.fills) > 20
    assert all(f.quantity % rules.step == 0 and f.price % rules.tick == 0 for f in run.fills)
    assert (run.equity == [d.cash + d.position * d.close for d in run.decisions]).all()
    again = replay_venue(decider(find('sma_cross'), dict(fast=5, slow=20)), real[:1200], rules, 60, cash=1234.5, start=100, slippage=Decimal('0.0005'))
    assert again.decisions == run.decisions and again.fills == run.fills


def test_research_and_a_bots_window_decide_the_same(real):
    strategy, params = find('sma_cross'), dict(fast=10, slow=50)
    run = replay_venue(decider(strategy, params), real[:1200], spot_rules('BTC/USDT', 20_000), 150, start=200)
    assert [d.target for d in run.decisions] == strategy.exposures(real[:1200], params)[200:].tolist()


def test_rows_and_windows_that_do_not_exist_are_refused():
    bars = table([100, 101], [101, 102])
    for start, window, words in ((2, 1, 'start was 2'), (-1, 1, 'start was -1'), (0, 0, 'window was 0')):
        with pytest.raises(BadInput, match=words): replay_venue(lambda shown: 0., bars, COIN, window, start=start)
