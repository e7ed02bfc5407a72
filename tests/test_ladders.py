"""Ladders: what a grid and a savings plan do with fills, money and time; and that their orders never know the future."""
import json

import numpy as np
import pandas as pd
import pytest

from trading_lib.backtest.replay import replay_orders
from trading_lib.core.errors import BadInput
from trading_lib.evidence.causality import find_peeking
from trading_lib.execution.costs import Costs
from trading_lib.execution.matching import spot_rules
from trading_lib.execution.plan import Account, Filled, Resting, Wish
from trading_lib.market.bars import tidy
from trading_lib.strategies.contract import catalogue, describe, find, strategy
from trading_lib.strategies.ladders import dca, grid

GRID = dict(spacing=.02, levels=3, share=.1)


def market(path):
    "Bars along a path of closes, a little wider than the way between them."
    close = pd.Series(np.asarray(path, float), pd.date_range('2024', periods=len(path), freq='h', tz='UTC', name='time'))
    open_ = close.shift(1, fill_value=close.iloc[0])
    return pd.DataFrame(dict(open=open_, high=np.maximum(open_, close) + .01, low=np.minimum(open_, close) - .01, close=close, volume=1e4))


def walk(n, seed=1, volatility=.01): return market(100 * np.exp(np.random.default_rng(seed).normal(0, volatility, n).cumsum()))


def test_both_are_in_the_catalogue_and_answer_with_orders_only():
    names = [s.name for s in catalogue() if s.orders]
    assert names == ['dca', 'grid'] and list(find('grid').parameters) == ['spacing', 'levels', 'share', 'follow']
    for name in names:
        with pytest.raises(BadInput, match=f'^{name} returns orders and not exposures; run it with replay_orders$'): find(name).exposures(walk(10))


@pytest.mark.parametrize('function, params', [(grid, GRID | dict(follow=True)), (dca, dict(every=5, dip=.01, profit=.02))], ids=['grid', 'dca'])
def test_orders_up_to_the_cut_do_not_move(function, params):
    def orders(bars):
        "The wishes of every bar as numbers."
        rows = [(len(d.wished), sum(w.quantity for w in d.wished), sum(w.price or 0 for w in d.wished)) for d in
                replay_orders(function, bars, params, queue_share=.01).decisions]
        return pd.DataFrame(rows, bars.index, ['count', 'quantity', 'price'], dtype=float)
    kinds = {f.kind for f in find_peeking(orders, walk(41)).findings}
    assert not kinds & {'lookahead', 'state', 'clock', 'mutation'}, 'where it begins may matter to a plan; what comes may not'


def test_the_same_experiment_sees_a_step_that_peeks():
    whole = walk(41)
    @strategy(orders=True)
    def prophet(bars, account, state):
        "Bids at the close after next."
        t = min(len(bars), len(whole) - 1)
        return [Wish('bid', 'buy', 1., float(asked[0].close.iloc[min(t, len(asked[0]) - 1)]))], state
    asked = [whole]
    def orders(bars):
        asked[0] = bars
        return pd.Series([d.wished[0].price for d in replay_orders(prophet, bars).decisions], bars.index)
    assert 'lookahead' in {f.kind for f in find_peeking(orders, whole).findings}


@pytest.mark.parametrize('function, params', [(grid, GRID), (dca, dict(every=3, profit=.01))], ids=['grid', 'dca'])
def test_a_step_is_pure(function, params):
    bars, decisions = walk(60), []
    for d in replay_orders(function, bars, params).decisions[:-1]: decisions.append(d)
    for before, now in zip(decisions, decisions[1:], strict=False):
        state, shown, account = json.loads(json.dumps(before.state)), bars[:bars.index.get_loc(now.time) + 1], now.account
        kept = json.dumps(state), shown.copy(), account
        for answer in (function(shown, account, state, **params) for _ in range(2)):
            assert tuple(answer[0]) == now.wished and json.loads(json.dumps(answer[1])) == now.state
        assert (json.dumps(state), account) == (kept[0], kept[2]) and shown.equals(kept[1])


# ---- the grid

def run(path, params=GRID, cash=10_000., fee=10, **how): return replay_orders(grid, market(path), params, Costs(fee), cash, **how)


def test_cells_are_whole_after_every_bar_and_orders_lie_on_the_lines():
    path = 100 + 5 * np.sin(np.arange(600) / 9) + np.random.default_rng(2).normal(0, .5, 600)
    done = run(path)
    lines = 100 * 1.02 ** np.arange(-3, 4) * done.decisions[0].close / 100
    portion = done.decisions[0].state['quantity']
    for d in done.decisions[2:]:
        assert sum(side == 'sell' for side in d.state['sides']) * portion == pytest.approx(d.account.position)
        assert len(d.wished) == 6 and len({w.name for w in d.wished}) == 6
        prices = sorted(w.price for w in d.wished)
        assert all(np.isclose(lines, price).any() for price in prices)
        assert max((w.price for w in d.wished if w.side == 'buy'), default=0) < min((w.price for w in d.wished if w.side == 'sell'), default=np.inf)
    assert len(done.simulation.fills) > 40


def test_every_pair_earns_the_spacing_less_two_fees():
    fills = run(100 + 5 * np.sin(np.arange(300) / 7)).simulation.fills
    pairs = 0
    for cell in range(3):
        own = fills[fills.reason.isin([f'buy {cell}', f'sell {cell}'])]
        assert own.side.tolist() == [1, -1] * (len(own) // 2) + [1] * (len(own) % 2)
        for (_, a), (_, b) in zip(own[::2].iterrows(), own[1::2].iterrows(), strict=False):
            pairs += 1
            assert (b.price * b.quantity - a.price * a.quantity - a.fee - b.fee) / (a.price * a.quantity) == pytest.approx(.02 - .001 * 2.02)
    assert pairs > 10


def test_below_its_lines_it_holds_everything_and_above_them_nothing():
    down, up = run(100 * .995 ** np.arange(60)), run(100 * 1.005 ** np.arange(60))
    assert set(down.decisions[-1].state['sides']) == {'sell'} and set(up.decisions[-1].state['sides']) == {'buy'}
    assert up.simulation.position.iloc[-1] == pytest.approx(0) and up.decisions[-1].state['anchor'] == 100
    later = run(100 * 1.005 ** np.arange(60), GRID | dict(follow=True))
    assert later.decisions[-1].state['anchor'] > 120 and later.simulation.position.iloc[-1] > 0
    assert run(100 * .995 ** np.arange(60), GRID | dict(follow=True)).decisions[-1].state['anchor'] == 100, 'it never follows downwards'


def test_a_purchase_to_begin_with_that_was_refused_is_tried_again():
    bars = market([100, 100, 100, 100, 100])
    bars.iloc[1, [0, 1]] = 106.   # too far above the close for the cash that was kept back
    done = replay_orders(grid, bars, dict(spacing=.02, levels=1, share=.5), rules=spot_rules('COIN/USDT', 100), cash=100)
    assert [d.state['begun'] for d in done.decisions] == [False, True, True, True, True]
    bars.iloc[1, [0, 1]] = 206.
    done = replay_orders(grid, bars, dict(spacing=.02, levels=1, share=.5), rules=spot_rules('COIN/USDT', 100), cash=100)
    assert done.decisions[0].skipped['begin'] == 'INSUFFICIENT_BALANCE' and [d.state['begun'] for d in done.decisions] == [False, False, True, True, True]


def test_a_venue_that_keeps_its_fee_in_coins_leaves_no_cell_stuck():
    path = 100 + 5 * np.sin(np.arange(400) / 7)
    done = run(path, cash=1000., rules=spot_rules('COIN/USDT', 100))
    sold = done.simulation.fills[done.simulation.fills.side < 0]
    assert sold.reason.nunique() == 4 and sold.time.max() > market(path).index[-50], 'all cells but the outer two, which the path does not reach'
    assert done.balances['COIN'] >= 0


def test_a_half_filled_bid_keeps_its_cell_waiting():
    state = dict(anchor=100., quantity=5., sides=['buy', 'buy', 'sell', 'sell'], begun=True)
    params = dict(spacing=.02, levels=2, share=.1)
    bid = Wish('buy 1', 'buy', 5., 100 / 1.02)
    turned = lambda orders, filled: describe(grid).step(market([99.]), Account(9000., 5., 9500., orders, (Filled('buy 1', 'buy', filled, bid.price, 0.),)), state, params)[1]['sides'][1]
    assert turned((Resting(bid, 2.),), 2.) == 'buy' and turned((), 3.) == 'sell'


def test_more_cells_than_money_are_refused():
    with pytest.raises(BadInput, match='8 cells of 0.2 of equity are more than there is; take a share of 0.125 or less'): run([100, 100], dict(levels=4, share=.2))


def test_on_real_hours_a_grid_lives_within_its_means(btc_hourly):
    bars = tidy(pd.read_parquet(btc_hourly))['2023-03':'2023-05']
    done = replay_orders(grid, bars, dict(spacing=.01, levels=8, share=.06), Costs(10), 10_000., spot_rules('BTC/USDT', 23_000), window=50)
    cash, coins = (np.array([float(getattr(d.account, name)) for d in done.decisions]) for name in ('cash', 'position'))
    assert (cash >= 0).all() and (coins >= 0).all() and len(done.simulation.fills) > 100
    assert not {d for each in done.decisions[:-1] for d in each.skipped.values()} - {'no_short', 'no_cash', 'below_min_notional'}


# ---- the plan

def plan(path, **params): return replay_orders(dca, market(path), params, Costs(10), 10_000.)


def test_it_buys_the_same_amount_every_so_many_bars():
    fills = plan(walk(100).close, every=10, share=.02).simulation.fills
    assert [t.day * 24 + t.hour for t in fills.time] == [24 + 1 + 10 * k for k in range(10)]
    assert (fills.quantity * walk(100).close.iloc[::10].to_numpy()).round(9).eq(200).all(), 'worth it at the close that was decided on'


def test_dips_are_measured_from_the_last_purchase_and_do_not_move_the_calendar():
    path = [100] * 5 + [97] * 3 + [94] * 6 + [100] * 6
    fills = plan(path, every=10, share=.01, dip=.02).simulation.fills
    assert list(zip([t.hour for t in fills.time], fills.reason, strict=True)) == [(1, 'buy'), (6, 'dip'), (9, 'dip'), (11, 'buy')]
    assert set(plan(path, every=10, share=.01).simulation.fills.reason) == {'buy'}


def test_the_goal_lies_above_the_average_with_fees_and_everything_begins_anew_after_it():
    path = [100] * 11 + [90] * 5 + [110] * 9
    done = plan(path, every=10, share=.01, profit=.05)
    fills = done.simulation.fills
    sale = fills[fills.reason == 'profit'].iloc[0]
    bought = fills[(fills.side > 0) & (fills.time < sale.time)]
    average = (bought.quantity * bought.price + bought.fee).sum() / bought.quantity.sum()
    assert sale.price == pytest.approx(average * 1.05) and sale.quantity == pytest.approx(bought.quantity.sum())
    after = next(d for d in done.decisions if d.time == sale.time)
    assert after.account.position == after.state['paid'] == 0
    assert fills.iloc[-1].reason == 'buy' and done.decisions[-1].wished[-1].price == pytest.approx(110 * 1.001 * 1.05)


def test_what_was_bought_while_the_goal_was_reached_is_kept_at_its_cost():
    bars = market([100] * 10 + [100, 108, 108])
    done = replay_orders(dca, bars, dict(every=10, share=.01, profit=.05), Costs(0))
    assert done.simulation.fills.reason.tolist() == ['buy', 'buy', 'profit', 'profit']
    assert [fill.name for fill in done.decisions[11].account.fills] == ['buy', 'profit']
    assert done.decisions[11].state['paid'] == pytest.approx(100) and done.decisions[11].account.position == 1
    assert done.simulation.fills.price.iloc[-1] == 108, 'the market was above its goal already'


def test_it_stops_where_cash_ends():
    done = plan([100] * 200, every=2, share=.05)
    assert done.simulation.cash.min() >= 0 and 'no_cash' in {why for d in done.decisions for why in d.skipped.values()}
    assert done.simulation.position.iloc[-1] * 100.1 == pytest.approx(10_000, rel=1e-4)
