"""Replay: the same fills as the kernel's, whatever happens; and what an order-returning strategy gets, bar by bar."""
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.replay import replay, replay_orders
from trading_lib.core.errors import BadInput
from trading_lib.core.metrics import headline
from trading_lib.execution.costs import Costs
from trading_lib.execution.matching import spot_rules
from trading_lib.execution.plan import Wish
from trading_lib.risk.stops import Stops
from trading_lib.strategies.contract import strategy
from trading_lib.strategies.ladders import dca, grid


def world(rng, n, rounded=False, volatility=.02):
    "Bars that jump between close and open, and trade around both."
    close = 100 * np.exp(rng.normal(0, volatility, n).cumsum())
    open_ = np.r_[100, close[:-1]] * np.exp(rng.normal(0, volatility / 2, n))
    wide = np.exp(np.abs(rng.normal(0, volatility / 2, (2, n))))
    bars = pd.DataFrame(dict(open=open_, high=np.maximum(open_, close) * wide[0], low=np.minimum(open_, close) / wide[1], close=close),
                        pd.date_range('2024', periods=n, freq='h', tz='UTC', name='time'))
    return (bars.round(1).clip(lower=.1) if rounded else bars).assign(volume=rng.uniform(50, 500, n))


def question(seed):
    "Bars of one or more symbols, a target, stops and costs."
    rng = np.random.default_rng(seed)
    n, symbols, step = int(rng.integers(20, 250)), int(rng.choice([1, 1, 2, 3])), int(rng.choice([1, 3, 10, 30]))
    pick = lambda values, chance: None if rng.random() > chance else rng.choice(values).item()
    tables = {}
    for k in range(symbols):
        tables[f'S{k}'] = world(rng, n, rng.random() < .5, rng.choice([.005, .02, .05, .3]))
        if rng.random() < .5: tables[f'S{k}']['funding'] = np.where(np.arange(n) % 8 == 0, rng.normal(0, .002, n), rng.choice([0, np.nan]))
    levels = np.repeat(rng.choice([-1, -.5, 0, 0, .3, 1], (n // step + 1, symbols)), step, axis=0)[:n] / symbols * (1 - .03 * np.arange(symbols) * rng.choice([0, 1]))
    bars = pd.concat(tables, axis=1) if symbols > 1 else tables['S0']
    target = pd.DataFrame(levels, bars.index, list(tables)) if symbols > 1 else pd.Series(levels[:, 0], bars.index)
    stops = Stops(*(pick([.01, .02, .05, .1], .6) for _ in range(3)), pick([1, 2, 5, 20], .4))
    return bars, target, Costs(rng.choice([0, 10, 100]).item(), rng.choice([0, 5, 300]).item()), stops


@pytest.mark.parametrize('seeds', [range(k, k + 25) for k in range(0, 100, 25)], ids=lambda r: f'{r[0]} to {r[-1]}')
def test_events_and_the_kernel_count_the_same_fills_and_the_same_money(seeds):
    for seed in seeds:
        bars, target, costs, stops = question(seed)
        events, kernel = replay(bars, target, costs, stops=stops), simulate(bars, target, costs, stops=stops)
        assert events.ruined == kernel.ruined, seed
        pd.testing.assert_frame_equal(events.fills, kernel.fills, rtol=1e-9, atol=1e-12, obj=f'fills of {seed}')
        for name in ('equity', 'cash', 'position', 'funding'):
            ours, theirs = getattr(events, name), getattr(kernel, name)
            if theirs is None: assert ours is None
            else: np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-7, err_msg=f'{name} of {seed}')


def made(*rows, **columns):
    "Bars from texts such as '100 101 99 100'."
    index = pd.date_range('2024', periods=len(rows), freq='h', tz='UTC', name='time')
    return pd.DataFrame([map(float, row.split()) for row in rows], index, ['open', 'high', 'low', 'close']).assign(volume=100., **columns)


def fills_of(bars, target, stops=Stops(), costs=Costs(0), cash=100.):
    fills = replay(bars, pd.Series(np.broadcast_to(np.asarray(target, float), len(bars)), bars.index), costs, cash, stops).fills
    return [(bars.index.get_loc(f.time), f.side, round(f.price, 9), f.reason) for f in fills.itertuples()]


@pytest.mark.parametrize('third, stops, left', [
    ('100 101 95 96', Stops(stop_loss=.05), (2, -1, 95., 'stop_loss')),                                # a touch is enough
    ('100 101 95.1 96', Stops(stop_loss=.05), None),
    ('90 92 89 91', Stops(stop_loss=.05), (2, -1, 90., 'stop_loss')),                                  # a gap fills at the open
    ('100 112.5 99 105', Stops(take_profit=.125), (2, -1, 112.5, 'take_profit')),
    ('113 114 111 112', Stops(take_profit=.125), (2, -1, 113., 'take_profit')),                        # and so does a happy one
    ('100 120 90 100', Stops(stop_loss=.05, take_profit=.125), (2, -1, 95., 'stop_loss')),             # both in one bar: the worse
    ('113 114 90 100', Stops(stop_loss=.05, take_profit=.125), (2, -1, 113., 'take_profit')),          # the open has decided
    ('100 101 97 98', Stops(trailing_stop=.05), (2, -1, 98.8, 'trailing_stop')),                       # below 104, the high of the bar it began in
    ('100 120 99 101', Stops(trailing_stop=.05), (3, -1, 100., 'trailing_stop')),                      # its own high counts from the next on
    ('100 101 90 98', Stops(stop_loss=.01, trailing_stop=.05), (2, -1, 99., 'stop_loss')),             # the nearer of the two
    ('100 101 90 98', Stops(trailing_stop=.04), (2, -1, 99.84, 'trailing_stop')),
])
def test_a_bar_reaches_the_stops_by_the_rules(third, stops, left):
    fills = fills_of(made('100 100 100 100', '100 104 99.9 100', third, '100 100 100 100'), 1, stops)
    assert fills == [(1, 1, 100., 'target'), *([left] if left else [])]


def test_a_short_is_guarded_from_the_other_side():
    bars = made('100 100 100 100', '100 100.1 97 98', '98 100 96 97', '97 106 90 100')
    assert fills_of(bars, -1, Stops(trailing_stop=.05))[1] == (3, 1, 100.8, 'trailing_stop')
    assert fills_of(bars, -1, Stops(stop_loss=.05))[1] == (3, 1, 105., 'stop_loss')
    assert fills_of(bars, -1, Stops(take_profit=.04))[1] == (2, 1, 96., 'take_profit')
    assert fills_of(bars, -1, Stops(take_profit=1.5)) == [(1, -1, 100., 'target')], 'no price is that low'


def test_a_stop_inside_the_slippage_is_left_at_the_very_open_it_was_entered_at():
    bars = made('100 100 100 100', '100 101 99 100', '100 101 99 100')
    assert fills_of(bars, .5, Stops(stop_loss=.005), Costs(0, 100)) == [(1, 1, 101., 'target'), (1, -1, 99., 'stop_loss')]


def test_after_a_stop_it_stays_flat_until_the_target_changes():
    bars = made(*['100 101 99 100'] * 2, '100 100 90 91', *['91 92 90 91'] * 5)
    assert fills_of(bars, [1] * 8, Stops(stop_loss=.05)) == [(1, 1, 100., 'target'), (2, -1, 95., 'stop_loss')]
    assert fills_of(bars, [1, 1, 1, 1, .5, .5, 1, 1], Stops(stop_loss=.05))[2:] == [(5, 1, 91., 'target'), (7, 1, 91., 'target')]


def test_a_time_stop_counts_from_the_bar_of_entry_and_gives_way_to_a_new_target():
    bars = made(*['100 101 99 100'] * 8)
    assert fills_of(bars, 1, Stops(time_stop=3)) == [(1, 1, 100., 'target'), (4, -1, 100., 'time_stop')]
    assert fills_of(bars, [1, 1, 1, .5, .5, .5, .5, .5], Stops(time_stop=3)) == [(1, 1, 100., 'target'), (4, -1, 100., 'target'), (5, -1, 100., 'time_stop')]


def test_entry_is_the_average_over_adds_and_a_flip_begins_a_new_trade():
    bars = made('100 100 100 100', '100 100 100 100', '120 120 120 120', '120 120 103 104', '104 104 104 104')
    assert fills_of(bars, [.25, .5, .5, .5, .5], Stops(stop_loss=.05))[-1] == (3, -1, 104.5, 'stop_loss')   # as much at 100 as at 120, less 5 %
    flip = made('100 100 100 100', '100 100 100 100', '100 101 100 100', '100 104 99 103')
    assert fills_of(flip, [.5, -.5, -.5, -.5], Stops(stop_loss=.03))[-1] == (3, 1, 103., 'stop_loss')


def test_longs_pay_a_positive_rate_on_what_they_carry_into_the_open_and_shorts_receive_it():
    bars = made(*['100 100 100 100'] * 4, funding=[.01, .01, np.nan, .01])
    for side in (1, -1):
        run = replay(bars, pd.Series(float(side), bars.index), Costs(0), 100.)
        assert run.funding.tolist() == [0, 0, 0, -side], 'nothing is carried into the bar of entry, and NaN is nothing'
        assert run.equity.iloc[-1] == 100 - side
    assert replay(bars.drop(columns='funding'), pd.Series(1., bars.index)).funding is None


def test_sales_come_before_purchases_and_equals_in_the_order_of_the_columns():
    rows = made(*['100 100 100 100'] * 4)
    bars = pd.concat({name: rows for name in 'ABC'}, axis=1)
    target = pd.DataFrame([[0, 0, 1], [0, 0, 1], [.5, .5, 0], [.5, .5, 0]], bars.index, list('ABC'), dtype=float)
    fills = replay(bars, target, Costs(0), 100.).fills
    assert fills.symbol.tolist() == ['C', 'C', 'A', 'B'] and fills.columns[-1] == 'symbol'
    odd = pd.DataFrame(np.full((4, 3), 1 / 3), bars.index, list('ABC'))
    thirds = replay(pd.concat({name: rows * (7.3 + k / 7) for k, name in enumerate('ABC')}, axis=1), odd, Costs(10), 100.).fills
    assert thirds.symbol.tolist() == list('ABC'), 'thirds of one equity are equal although floats say 1e-14 apart'


def test_ruin_ends_the_run_and_says_when():
    bars = made('100 100 100 100', '100 100 100 100', '250 300 240 290', '290 300 280 290')
    run = replay(bars, pd.Series(-1., bars.index), Costs(0), 100.)
    assert run.ruined == bars.index[2] and run.equity.iloc[2] == run.equity.iloc[3] < 0 and run.position.iloc[3] == 0


# ---- orders

@strategy(orders=True)
def straddle(bars, account, state, gap: float = .01):
    "A bid below the last close and an offer of what is held above."
    close = bars.close.iloc[-1]
    bid = Wish('bid', 'buy', account.equity / 10 / close, round(close * (1 - gap), 1))
    offer = [Wish('offer', 'sell', account.position, round(close * (1 + gap), 1))] if account.position else []
    return [bid, *offer], {'fills': state.get('fills', 0) + len(account.fills)}


def said(wishes, bars, **how):
    "What a strategy gets that wishes for this, bar by bar, and only that."
    @strategy(orders=True)
    def scripted(bars, account, state):
        "Says what it was told to say."
        t = state.get('t', 0)
        return wishes[t] if t < len(wishes) else [], {'t': t + 1}
    return replay_orders(scripted, bars, **(dict(costs=Costs(0), cash=1000.) | how))


def told(run): return [(f.time.hour, f.side, f.quantity, f.price, f.reason) for f in run.simulation.fills.itertuples()]


BID = Wish('bid', 'buy', 2., 95.)


def test_an_order_of_a_close_rests_in_the_next_bar_and_not_before():
    bars = made('100 100 90 100', '100 101 96 100', '100 101 94 100', '100 100 80 90')
    assert told(said([[BID], [BID]], bars)) == [(2, 1, 2., 95., 'bid')]
    assert told(said([[BID], []], bars)) == [], 'what is no longer wished for is gone'


def test_a_limit_that_crosses_at_the_open_trades_at_the_open():
    bars = made('100 100 100 100', '93 94 92 93', '100 100 100 100')
    assert told(said([[BID]], bars)) == [(1, 1, 2., 93., 'bid')]
    resting = made('100 100 100 100', '100 100 99 99', '93 94 92 93')
    assert told(said([[BID], [BID]], resting)) == [(2, 1, 2., 95., 'bid')], 'one that rested there before gets its own price'


def test_market_wishes_trade_at_the_next_open_with_slippage():
    bars = made('100 100 100 100', '102 103 101 102', '102 103 101 102')
    run = said([[Wish('in', 'buy', 2.)], [Wish('out', 'sell', 2.)]], bars, costs=Costs(0, 100))
    assert told(run) == [(1, 1, 2., 103.02, 'in'), (2, -1, 2., 100.98, 'out')]
    assert run.decisions[1].account.fills[0].price == 103.02 and run.decisions[1].account.position == 2


def test_touched_is_filled_only_where_that_is_asked_for():
    bars = made('100 100 100 100', '100 100 95 96', '96 97 96 97')
    assert told(said([[BID], [BID]], bars)) == [] and len(told(said([[BID], [BID]], bars, fills='touch'))) == 1


def test_a_share_of_the_volume_fills_piece_by_piece_and_keeps_its_place():
    bars = made('100 100 100 100', *['96 97 94 96'] * 4)
    run = said([[Wish('bid', 'buy', 2.5, 95.)]] * 5, bars, queue_share=.01)
    assert [q for _, _, q, *_ in told(run)] == [1., 1., .5, 1.]
    assert [d.account.orders[0].filled for d in run.decisions[1:3]] == [1., 2.] and [len(d.placed) for d in run.decisions] == [1, 0, 0, 1, 0]


def test_what_is_wished_again_stays_where_it_is_and_what_changed_is_placed_anew():
    bars = made(*['100 101 99 100'] * 5)
    run = said([[BID], [BID], [Wish('bid', 'buy', 2., 94.)], [Wish('bid', 'buy', 3., 94.)], [BID]], bars)
    assert [(len(d.placed), d.canceled) for d in run.decisions] == [(1, ()), (0, ()), (1, ('bid',)), (1, ('bid',)), (1, ('bid',))]


def test_the_first_wishes_are_served_first_and_none_beyond_the_account():
    bars = made(*['100 101 99 100'] * 3)
    wished = [Wish('a', 'buy', 6., 90.), Wish('b', 'buy', 6., 95.), Wish('c', 'buy', 1., 80.), Wish('short', 'sell', 1., 110.)]
    run = said([wished, wished], bars)
    assert [(w.name, round(w.quantity, 9)) for w in run.decisions[0].placed] == [('a', 6), ('b', round(460 / 95, 9))]
    assert run.decisions[0].skipped == dict(c='no_cash', short='no_short') and run.decisions[1].placed == ()
    other = said([wished, wished[::-1]], bars).decisions[1]
    assert set(other.canceled) == {'a', 'b'} and [w.name for w in other.placed] == ['c', 'b', 'a'], 'a new order of wishes is a new order of service'
    assert told(said([[Wish('short', 'sell', 1.)]], bars, shorts=True)) == [(1, -1, 1., 100., 'short')]


def test_the_last_decision_finds_the_market_closed():
    run = said([[], [BID]], made(*['100 101 99 100'] * 2))
    assert run.decisions[-1].skipped == {'bid': 'MARKET_CLOSED'}


def test_funding_is_charged_to_those_who_hold():
    bars = made(*['100 101 99 100'] * 3, funding=[0, 0, .01])
    run = said([[Wish('in', 'buy', 2.)]], bars)
    assert run.simulation.funding.tolist() == [0, 0, -2] and run.simulation.equity.iloc[-1] == 998


CASES = [(straddle, {}), (grid, dict(levels=4, share=.1, spacing=.01, follow=True)), (dca, dict(every=7, dip=.02, profit=.03, share=.1))]


@pytest.mark.parametrize('exact', [False, True], ids=['floats', 'Decimal'])
@pytest.mark.parametrize('function, params', CASES, ids=lambda v: getattr(v, '__name__', ''))
def test_a_run_that_stopped_anywhere_goes_on_as_if_it_had_not(function, params, exact):
    bars = world(np.random.default_rng(5), 90, rounded=True)
    how = dict(params=params, costs=Costs(10, 5), cash=5000., queue_share=.01, **(dict(rules=spot_rules('COIN/USDT', 100)) if exact else {}))
    whole = replay_orders(function, bars, **how)
    assert len(whole.simulation.fills) > 8 and len({f.reason for f in whole.simulation.fills.itertuples()}) > 1
    for cut in range(1, 90, 8):
        stopped = replay_orders(function, bars[:cut], **how).decisions[-1]
        later = replay_orders(function, bars, after=stopped, **how)
        assert later.decisions == whole.decisions[cut:] and later.balances == whole.balances
        assert later.simulation.equity.equals(whole.simulation.equity[cut:])


@pytest.mark.parametrize('function, params', CASES, ids=lambda v: getattr(v, '__name__', ''))
def test_fills_account_for_every_coin_and_every_cent(function, params):
    bars, rules = world(np.random.default_rng(6), 200, rounded=True), spot_rules('COIN/USDT', 100)
    run = replay_orders(function, bars, params, Costs(10, 5), 5000, rules, queue_share=.02)
    fills = [f for d in run.decisions for f in d.account.fills]
    assert len(fills) == len(run.simulation.fills) and all(f.quantity % rules.step == 0 and f.price % rules.tick == 0 for f in fills)
    worth = sum((1 if f.side == 'buy' else -1) * f.quantity for f in fills)
    held = run.balances['COIN']
    assert 0 <= worth - held <= sum(f.quantity for f in fills) * Decimal('0.001'), 'fees of purchases come out of the coins'
    assert run.balances['USDT'] >= 0 and run.decisions[-1].account.equity == run.balances['USDT'] + held * run.decisions[-1].close
    numbers = headline(run.simulation.equity, run.simulation.position, bars.close, run.simulation.fills, 8760)
    assert numbers['fees_paid'] > 0 and numbers['final_equity'] == run.simulation.equity.iloc[-1]


def test_floats_and_decimals_tell_the_same_story_where_there_are_no_filters():
    from dataclasses import replace
    bars = world(np.random.default_rng(7), 150, rounded=True)
    free = replace(spot_rules('COIN/USDT', 100), step=Decimal('1e-12'), tick=Decimal('1e-12'), min_quantity=Decimal(0), min_notional=Decimal(0), fee_in='quote', unit=Decimal(0))
    for function, params in CASES:
        floats, exact = (replay_orders(function, bars, params, Costs(10), 5000., rules) for rules in (None, free))
        assert floats.simulation.fills[['time', 'side', 'reason']].equals(exact.simulation.fills[['time', 'side', 'reason']])
        np.testing.assert_allclose(floats.simulation.equity, exact.simulation.equity, rtol=1e-9)


def test_the_window_is_all_that_is_shown():
    seen = []
    @strategy(orders=True)
    def looks(bars, account, state):
        "Counts what it sees."
        seen.append((len(bars), bars.index[-1].hour))
        return [], state
    replay_orders(looks, world(np.random.default_rng(1), 6), window=2, start=1)
    assert seen == [(2, 1), (2, 2), (2, 3), (2, 4), (2, 5)]


@pytest.mark.parametrize('how, said', [
    (dict(start=9), 'start was 9; it is a row of the 5 bars'), (dict(window=0), 'at least one bar'), (dict(fills='hope'), 'it is through or touch'),
    (dict(queue_share=2), 'above 0 and up to 1'), (dict(cash=0), 'cash was 0'), (dict(params=dict(gab=1)), 'did you mean gap'),
    (dict(rules=spot_rules('COIN/USDT', 100), shorts=True), 'shorts cannot be had at COIN/USDT')])
def test_what_makes_no_sense_is_refused_in_one_line(how, said):
    with pytest.raises(BadInput) as error: replay_orders(straddle, world(np.random.default_rng(1), 5), **how)
    assert said in str(error.value) and '\n' not in str(error.value)


def test_exposures_and_several_symbols_are_refused():
    from trading_lib.strategies.trend import sma_cross
    bars = world(np.random.default_rng(1), 5)
    with pytest.raises(BadInput, match='sma_cross returns exposures'): replay_orders(sma_cross, bars)
    with pytest.raises(BadInput, match='trades one symbol and was given 2'): replay_orders(grid, pd.concat(dict(A=bars, B=bars), axis=1))
    last = replay_orders(grid, bars).decisions[-1]
    with pytest.raises(BadInput, match='nothing to go on with after 2024-01-01T04:00Z'): replay_orders(grid, bars, after=last)


def test_an_error_of_a_step_says_at_which_bar():
    @strategy(orders=True)
    def fails(bars, account, state):
        "Divides by what is left."
        return [Wish('bid', 'buy', 1 / (3 - len(bars)), 10.)], state
    with pytest.raises(BadInput, match=r'^2024-01-01T02:00Z: fails raised ZeroDivisionError'): replay_orders(fails, world(np.random.default_rng(1), 5))
