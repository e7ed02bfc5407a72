"One answer from every engine: a plain loop says what is right, and kernel, vectorbt and replay have to say the same."
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.replay import replay, replay_venue
from trading_lib.backtest.vectorised import simulate_vectorbt
from trading_lib.core.errors import BadInput
from trading_lib.evidence.agreement import agree, compare
from trading_lib.execution.costs import Costs
from trading_lib.execution.matching import MarketRules, spot_rules
from trading_lib.market.bars import tidy
from trading_lib.strategies.contract import find
from trading_lib.strategies.feeds import decider

ENGINES = dict(kernel=simulate, vectorbt=simulate_vectorbt, replay=replay)


def oracle(bars, target, fee, slippage, cash):
    "The model in words, bar by bar: equity at closes, fills, and the row of ruin."
    opens, closes, targets = bars.open.tolist(), bars.close.tolist(), target.tolist()
    position, wanted, equity, fills = 0., 0., [], []
    for t in range(len(closes)):
        if t and targets[t - 1] != wanted:                       # decided at the close before, due only when it changed
            wanted = targets[t - 1]
            quantity = wanted * equity[-1] / closes[t - 1] - position   # sized by equity and price at that close
            if quantity > 0:
                price = opens[t] * (1 + slippage)
                quantity = max(min(quantity, cash / (price * (1 + fee))), 0.)   # no more than cash pays with its fee
            else: price = opens[t] * (1 - slippage)
            paid = abs(quantity) * price * fee
            if quantity:
                cash, position = cash - quantity * price - paid, position + quantity
                fills.append((t, quantity, price, paid))
        equity.append(cash + position * closes[t])
        if equity[-1] <= 0: return equity + [equity[-1]] * (len(closes) - t - 1), fills, t
    return equity, fills, None


def check(bars, target, costs=Costs(), cash=10_000., tolerance=1e-9, engines=ENGINES):
    "Every engine against the loop."
    equity, fills, ruin = oracle(bars, target, costs.fee, costs.slippage, cash)
    for name in engines:
        run = ENGINES[name](bars, target, costs, cash)
        assert np.allclose(run.equity, equity, rtol=tolerance, atol=0), (name, np.abs(run.equity / equity - 1).max())
        assert np.allclose(run.cash + run.position * bars.close, run.equity, rtol=1e-9, atol=1e-6), name
        assert run.fills.time.tolist() == [bars.index[t] for t, *_ in fills], name
        assert np.allclose(run.fills[['quantity', 'price', 'fee']], [(abs(q), p, f) for _, q, p, f in fills] or np.empty((0, 3)), rtol=1e-9, atol=0), name
        assert run.fills.side.tolist() == [1 if q > 0 else -1 for _, q, _, _ in fills], name
        assert run.ruined == (None if ruin is None else bars.index[ruin]), name


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
    check(real, exposures(real, kind), costs, tolerance=1e-12 if costs.fee else 1e-11)


def test_every_engine_equals_the_plain_loop_across_gaps(real):
    holey = real.drop(real.index[[100, 101, 555, *range(2000, 2100)]])[:4000]
    check(holey, exposures(holey, 'flips'), Costs(10, 5))


steps = st.floats(-.08, .08).map(lambda x: round(x, 4))

@st.composite
def markets(draw, low=-1.):
    "Bars with jumps between close and open, exposures in twentieths that often stay, and costs."
    n = draw(st.integers(3, 40))
    moves = np.array(draw(st.lists(st.tuples(steps, steps), min_size=n, max_size=n)))
    closes = draw(st.sampled_from([.5, 100., 30_000.])) * np.exp((moves[:, 0] + moves[:, 1] / 4).cumsum())
    opens = closes * np.exp(-moves[:, 0])
    levels = st.integers(round(low * 20), 20).map(lambda k: k / 20)
    target = draw(st.lists(st.one_of(levels, st.none()), min_size=n, max_size=n))
    bars = table(opens, closes)
    return bars, pd.Series(target, bars.index, dtype=float).ffill().fillna(0.), Costs(draw(st.sampled_from([0, 2, 10, 75])), draw(st.sampled_from([0, 5, 30])))


def sensible(bars, target, costs):
    "Away from ruin and dust, where relative differences mean something."
    equity, fills, _ = oracle(bars, target, costs.fee, costs.slippage, 10_000.)
    assume(min(equity) >= 100 and all(abs(q) >= 1e-6 for _, q, _, _ in fills))


@given(markets())
@settings(max_examples=150, deadline=None)
def test_kernel_and_replay_equal_the_plain_loop_on_any_market(market):
    sensible(*market)
    check(*market, tolerance=1e-11, engines=('kernel', 'replay'))


@given(markets())
@settings(max_examples=40, deadline=None)
def test_vectorbt_equals_the_plain_loop_on_any_market(market):
    sensible(*market)
    check(*market, tolerance=1e-11, engines=('vectorbt',))


@given(markets(low=0.), st.sampled_from([(5, 0), (0, 5), (30, 30)]))
@settings(max_examples=150, deadline=None)
def test_costs_never_help(market, more):
    bars, target, costs = market
    sensible(bars, target, costs)
    dearer = Costs(costs.fee_bps + more[0], costs.slippage_bps + more[1])
    assert simulate(bars, target, dearer).equity.iloc[-1] <= simulate(bars, target, costs).equity.iloc[-1] * (1 + 1e-12)


@given(markets(), st.sampled_from([1e-2, 7., 1e4]))
@settings(max_examples=80, deadline=None)
def test_prices_and_cash_may_be_counted_in_any_unit(market, unit):
    bars, target, costs = market
    sensible(*market)
    base = simulate(bars, target, costs).equity
    prices = ['open', 'high', 'low', 'close']
    assert np.allclose(simulate(bars.assign(**bars[prices] * unit), target, costs).equity, base, rtol=1e-9)
    assert np.allclose(simulate(bars, target, costs, 10_000. * unit).equity / unit, base, rtol=1e-9)


@given(markets(), st.integers(1, 39))
@settings(max_examples=80, deadline=None)
def test_what_happened_so_far_does_not_depend_on_what_comes(market, cut):
    bars, target, costs = market
    cut = min(cut, len(bars) - 1)
    for engine in (simulate, replay):
        assert engine(bars, target, costs).equity[:cut].equals(engine(bars[:cut], target[:cut], costs).equity)


def test_an_order_across_a_gap_fills_at_the_first_bar_after_it():
    bars = table([100, 101, 102, 103, 104, 105], [101, 102, 103, 104, 105, 106]).drop(pd.date_range('2024-01-01T02', periods=2, freq='h', tz='UTC'))
    target = pd.Series([0, 1., 1, 1], bars.index)
    check(bars, target)
    assert simulate(bars, target).fills.time.tolist() == [pd.Timestamp('2024-01-01T04', tz='UTC')]


@pytest.mark.parametrize(('opens', 'closes', 'target'), [
    ([100, 100, 200, 300, 50], [100, 190, 300, 320, 40], [-1, -1, -1, -1, -1]),
    ([100, 100, 150, 90, 80], [100, 150, 210, 80, 70], [-1, -1, 1, 1, 0]),
    ([100, 100, 100, 100, 100], [100, 100, 200, 100, 100], [0, -1, 0, 1, 1])], ids=['ridden to the end', 'a flip too late', 'exactly zero or less'])
def test_ruin_ends_the_run_at_the_same_bar_in_every_engine(opens, closes, target):
    bars = table(opens, closes)
    target = pd.Series(target, bars.index, dtype=float)
    check(bars, target, Costs(10, 5))
    for engine in ENGINES.values():
        run = engine(bars, target, Costs(10, 5), 10_000.)
        after = bars.index >= run.ruined
        assert run.equity[after].nunique() == 1 and (run.position[after] == 0).all() and (run.fills.time <= run.ruined).all()


@pytest.mark.parametrize('name', ENGINES)
def test_no_target_means_no_fills_and_no_cash_is_refused(name):
    bars = table([100, 101, 102], [101, 102, 103])
    flat = pd.Series(0., bars.index)
    run = ENGINES[name](bars, flat, Costs(), 500.)
    assert run.fills.empty and run.equity.tolist() == [500.] * 3 and list(run.fills.columns) == ['time', 'side', 'quantity', 'price', 'fee']
    with pytest.raises(BadInput, match='it must be above 0'): ENGINES[name](bars, flat, Costs(), 0.)


def test_agreement_names_the_first_bar_that_differs(real):
    bars = real[:2000]
    target = exposures(bars, 'long only')
    assert agree(bars, target, Costs(10, 5)).findings == ()
    ours = simulate(bars, target, Costs(10, 5))
    late = compare(dict(kernel=ours, late=simulate(bars, target.shift(fill_value=0.), Costs(10, 5))))
    assert {f.kind for f in late.findings} == {'agreement'} and pd.Timestamp(late.first_bar) == ours.fills.time[0]
    fills = ours.fills.copy()
    fills.loc[7, 'fee'] *= 1 + 1e-6
    (found,) = compare(dict(kernel=ours, other=type(ours)(ours.equity, ours.position, ours.cash, fills))).findings
    assert found.column == 'fills' and found.detail.startswith('fill 8 of other is') and pd.Timestamp(found.bar) == fills.time[7]
    (short,) = compare(dict(kernel=ours, other=type(ours)(ours.equity, ours.position, ours.cash, ours.fills[:-1]))).findings
    assert 'of other is none' in short.detail


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
