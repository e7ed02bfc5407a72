"The kernel and its numbers: what a plain loop tells, and what `headline` says of a simulation, on any market."
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import tell

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.measure import Declined, Prepared
from trading_lib.backtest.numbers import METRICS
from trading_lib.core.errors import BadInput
from trading_lib.core.metrics import headline
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample, field
from trading_lib.risk.stops import Stops
from trading_lib.strategies.contract import strategy
from trading_lib.strategies.trend import sma_cross


def table(opens, closes, highs=None, lows=None, **more):
    index = pd.date_range('2024', periods=len(closes), freq='h', tz='UTC', name='time')
    opens, closes = np.asarray(opens, float), np.asarray(closes, float)
    highs, lows = np.maximum(opens, closes) if highs is None else highs, np.minimum(opens, closes) if lows is None else lows
    return pd.DataFrame(dict(open=opens, high=highs, low=lows, close=closes, volume=1., **more), index)


def market(seed):
    "Bars of one or several symbols with gaps between bars and tails within them, a target that often stays, costs and stops."
    rng = np.random.default_rng(seed)
    n, symbols = int(rng.integers(2, 150)), int(rng.choice([0, 0, 1, 2, 4]))
    charged = rng.random() < .4
    def one():
        wild = rng.choice([.002, .02, .08])
        closes = rng.choice([.5, 100., 30_000.]) * np.exp(rng.normal(0, wild, n).cumsum())
        opens = closes * np.exp(rng.normal(0, wild / 3, n))
        tail = lambda: np.exp(np.abs(rng.normal(0, wild / 2, n)))
        more = dict(funding=np.where(rng.random(n) < .3, rng.normal(0, .002, n), rng.choice([0, np.nan]))) if charged else {}
        return table(opens, closes, np.maximum(opens, closes) * tail(), np.minimum(opens, closes) / tail(), **more)
    def wish(): return rng.choice([-1., -.35, 0, .2, 1], n)[np.maximum.accumulate(np.where(rng.random(n) < .3, np.arange(n), 0))]
    names = [f'S{k}' for k in range(symbols)]
    bars = pd.concat({name: one() for name in names}, axis=1) if names else one()
    target = pd.DataFrame({name: wish() / symbols for name in names}, bars.index) if names else pd.Series(wish(), bars.index)
    near = lambda: float(rng.choice([.005, .02, .1])) if rng.random() < .5 else None
    stops = Stops(near(), near(), near(), int(rng.integers(1, 20)) if rng.random() < .4 else None)
    return bars, target, Costs(float(rng.choice([0, 10, 50])), float(rng.choice([0, 5, 60]))), float(rng.choice([700, 10_000])), stops


def told(bars, target, costs=Costs(), cash=10_000., stops=Stops()):
    "The kernel's run, held against the plain loop."
    run, story = simulate(bars, target, costs, cash, stops), tell(bars, target, costs, cash, stops)
    assert np.allclose(run.equity, story.equity, rtol=1e-10, atol=1e-8) and np.allclose(run.cash, story.cash, rtol=1e-9, atol=1e-6)
    assert run.fills.time.tolist() == [bars.index[f.bar] for f in story.fills] and run.fills.reason.tolist() == [f.reason for f in story.fills]
    signed = run.fills.assign(quantity=run.fills.quantity * run.fills.side)[['quantity', 'price', 'fee']]
    assert np.allclose(signed, [(f.quantity, f.price, f.fee) for f in story.fills] or np.empty((0, 3)), rtol=1e-8, atol=0)
    assert run.ruined == (None if story.ruin is None else bars.index[story.ruin])
    if isinstance(target, pd.DataFrame):
        assert run.fills.symbol.tolist() == [f.symbol for f in story.fills]
        positions = [[each[name] for name in target] for each in story.position]
    else: positions = [each[None] for each in story.position]
    assert np.allclose(run.position, positions, rtol=1e-9, atol=1e-12)
    if run.funding is not None: assert np.allclose(run.funding, story.funding, rtol=1e-9, atol=1e-9)
    return run


def measured(bars, target, costs=Costs(), cash=10_000., stops=Stops()):
    "Both ways to the numbers, compared."
    run = simulate(bars, target, costs, cash, stops)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', RuntimeWarning)   # nothing over nothing, after ruin
        expected = headline(run.equity, run.position, field(bars, 'close'), run.fills, 8760., run.funding)
    found = Prepared(sma_cross, Sample(bars, 'X', '1h', ''), costs, cash, stops).metrics(target.to_numpy())
    assert list(found) == list(expected) == METRICS
    for name in METRICS:
        if expected[name] is None or found[name] is None: assert found[name] is expected[name], name
        else: assert found[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12), name
    return run, found


@given(st.integers(0, 2**31))
@settings(max_examples=150, deadline=None)
def test_the_kernel_is_the_plain_loop_on_any_market(seed): told(*market(seed))


@given(st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_the_numbers_are_those_of_the_simulation_on_any_market(seed): measured(*market(seed))


@given(st.integers(0, 2**31), st.integers(1, 149))
@settings(max_examples=60, deadline=None)
def test_what_happened_so_far_does_not_depend_on_what_comes(seed, cut):
    bars, target, *rest = market(seed)
    cut = min(cut, len(bars))
    assert simulate(bars, target, *rest).equity[:cut].equals(simulate(bars[:cut], target[:cut], *rest).equity)


@given(st.integers(0, 2**31), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_a_window_is_a_market_of_its_own(seed, start, left):
    bars, target, costs, cash, stops = market(seed)
    start = min(start, len(bars) - 1)
    end = max(len(bars) - left, start + 1)
    whole = Prepared(sma_cross, Sample(bars, 'X', '1h', ''), costs, cash)
    part = Prepared(sma_cross, Sample(bars[start:end], 'X', '1h', ''), costs, cash, stops)
    assert whole.metrics(target.to_numpy(), stops, start=start, end=end) == part.metrics(target.to_numpy()[start:end])


def test_long_stretches_are_summed_as_well_as_short_ones():
    rng = np.random.default_rng(4)
    closes = 100 * np.exp(rng.normal(0, .01, 5000).cumsum())
    bars = table(closes * np.exp(rng.normal(0, .002, 5000)), closes)
    for switch in (3, 40, 700, 5000): measured(bars, pd.Series(np.resize(np.repeat([1., 0, -.6, .3], switch), 5000), bars.index))


@pytest.mark.parametrize('closes', [[100, 190, 320, 300, 310], [100, 190, 199.8001998001998, 300, 310], [100, 100, 100, 190, 320], [100, 100, 200, 100, 100],
                                    [100, 100, 200, 300, 300], [100, 100, 100, 100, 200]])
@pytest.mark.parametrize('costs', [Costs(), Costs(0)], ids=str)
def test_ruin_has_the_same_undefined_numbers(closes, costs):
    bars = table([100, 100, 100, 190, 300], closes)
    run, found = measured(bars, pd.Series([-1.] * 5, bars.index), costs)
    assert (run.ruined is None) == (found['final_equity'] > 0)


@pytest.mark.parametrize('target', [[0.], [1.], [0., 1.], [1., 1.], [0., 0., 0.], [1., 0., 1., 0., 0.], [1., 1., 1., 1., 1., -1., 1.]])
def test_short_and_idle_samples_have_the_same_undefined_numbers(target):
    prices = 100 * 1.01**np.arange(len(target))
    bars = table(prices, prices)
    for costs in (Costs(), Costs(0, 0)): measured(bars, pd.Series(target, bars.index), costs)


# ---- stops, by hand ----

def held(side, opens, highs, lows, closes, stops, costs=Costs(0)):
    "One position from the second open on; the fills."
    bars = table(opens, closes, highs, lows)
    return told(bars, pd.Series(float(side), bars.index), costs, stops=stops).fills


@pytest.mark.parametrize(('bar', 'price', 'reason'), [
    ((100, 101, 95, 100), 95, 'stop_loss'),                # a touch is enough
    ((100, 101, 95.01, 100), None, None),
    ((93, 94, 92, 93), 93, 'stop_loss'),                   # opened beyond it
    ((100, 110.1, 99, 100), 110, 'take_profit'),
    ((113, 114, 112, 113), 113, 'take_profit'),            # opened beyond it, and is paid better
    ((100, 111, 94, 100), 95, 'stop_loss'),                # both within: the worse one first
    ((113, 114, 94, 113), 113, 'take_profit')])            # but the open came before both
def test_a_bar_leaves_a_long_where_it_must(bar, price, reason):
    fills = held(1, *zip((100, 100, 100, 100), (100, 100, 100, 100), bar, (100, 100, 100, 100), strict=True), stops=Stops(.05, .10))
    assert fills.reason[1:].tolist() == ([reason] if reason else []) and fills.price[1:].tolist() == pytest.approx([price] if reason else [])


@pytest.mark.parametrize(('bar', 'price', 'reason'), [
    ((100, 105, 99, 100), 105, 'stop_loss'), ((107, 108, 106, 107), 107, 'stop_loss'), ((100, 101, 90, 100), 90, 'take_profit'),
    ((87, 88, 86, 87), 87, 'take_profit'), ((100, 106, 89, 100), 105, 'stop_loss')])
def test_a_bar_leaves_a_short_where_it_must(bar, price, reason):
    fills = held(-1, *zip((100, 100, 100, 100), (100, 100, 100, 100), bar, (100, 100, 100, 100), strict=True), stops=Stops(.05, .10))
    assert fills.reason[1:].tolist() == [reason] and fills.price[1:].tolist() == pytest.approx([price])


def test_the_bar_that_was_entered_in_can_stop_out_and_its_high_counts_only_afterwards():
    fills = held(1, [100, 100, 100], [100, 130, 100], [100, 96, 96], [100, 120, 100], Stops(trailing_stop=.05))
    assert fills.time.dt.hour.tolist() == [1, 2] and fills.price.tolist() == [100, 100]         # 123.5 by then: opened beyond
    assert held(1, [100, 100, 100], [100, 130, 100], [100, 94, 94], [100, 120, 100], Stops(trailing_stop=.05)).time.dt.hour.tolist() == [1, 1]


def test_of_two_stops_the_nearer_counts_and_of_equals_the_stop_loss():
    quiet = [100] * 3, [100] * 3, [100, 100, 90], [100] * 3
    assert held(1, *quiet, Stops(.05, None, .03)).reason.tolist()[1:] == ['trailing_stop']
    assert held(1, *quiet, Stops(.03, None, .05)).reason.tolist()[1:] == ['stop_loss']
    assert held(1, *quiet, Stops(.05, None, .05)).reason.tolist()[1:] == ['stop_loss']


def test_slippage_and_fee_are_paid_at_a_stop_too():
    (_, out) = held(1, [100] * 3, [100] * 3, [100, 100, 90], [100] * 3, Stops(.05), Costs(10, 20)).itertuples()
    assert out.price == pytest.approx(100 * 1.002 * .95 * .998) and out.fee == pytest.approx(out.quantity * out.price * .001)


def test_adding_moves_the_average_entry_and_trimming_does_not():
    bars = table([100, 100, 110, 110, 110, 110], [100, 100, 110, 110, 110, 110], lows=[100, 100, 110, 110, 110, 90])
    target = pd.Series([.4, .8, .8, .2, .2, .2], bars.index)
    fills = told(bars, target, Costs(0), stops=Stops(.05)).fills
    first, second = fills.quantity[:2]
    assert fills.price.iloc[-1] == pytest.approx(.95 * (first * 100 + second * 110) / (first + second)) and fills.reason.iloc[-1] == 'stop_loss'


def test_after_a_stop_it_is_flat_until_the_target_changes():
    bars = table([100] * 6, [100] * 6, lows=[100, 100, 90, 100, 100, 100])
    fills = told(bars, pd.Series([1., 1, 1, 1, .5, .5], bars.index), stops=Stops(.05)).fills
    assert fills.time.dt.hour.tolist() == [1, 2, 5]


def test_time_is_up_at_the_open_that_many_bars_later():
    bars = table([100] * 9, [100] * 9)
    fills = told(bars, pd.Series([1., 1, 1, 1, 1, -1, -1, -1, -1], bars.index), stops=Stops(time_stop=3)).fills
    assert fills.time.dt.hour.tolist() == [1, 4, 6] and fills.reason.tolist() == ['target', 'time_stop', 'target']
    both = told(bars, pd.Series([1., 1, 1, -1, -1, -1, -1, -1, -1], bars.index), stops=Stops(time_stop=3)).fills
    assert both.reason.tolist() == ['target', 'target', 'time_stop']        # a target that changes in that bar comes first


def test_a_flip_begins_another_trade_with_its_own_levels():
    bars = table([100, 100, 120, 120], [100, 100, 120, 120], highs=[100, 100, 120, 127])
    fills = told(bars, pd.Series([1., -1, -1, -1], bars.index), stops=Stops(.05)).fills
    assert fills.reason.tolist() == ['target', 'target', 'stop_loss'] and fills.price.iloc[-1] == pytest.approx(126)


# ---- several symbols, funding ----

def test_equal_buys_are_made_in_the_order_of_the_columns_and_the_last_goes_short():
    one = table([100, 100, 100], [100, 100, 100])
    bars = pd.concat({'B': one * 3, 'A': one / 7, 'C': one}, axis=1)
    fills = told(bars, pd.DataFrame({name: [1 / 3] * 3 for name in 'BAC'}, bars.index), Costs(10)).fills
    value = fills.quantity * fills.price
    assert fills.symbol.tolist() == ['B', 'A', 'C'] and value[0] == pytest.approx(value[1]) and value[2] < value[0]


def test_sales_come_before_the_buys_that_they_pay_for():
    one = table([100] * 4, [100] * 4)
    bars = pd.concat({'A': one, 'B': one}, axis=1)
    fills = told(bars, pd.DataFrame(dict(A=[0., 1, 1, 1], B=[1., 0, 0, 0]), bars.index), Costs(0)).fills
    assert fills.symbol.tolist() == ['B', 'B', 'A'] and fills.side.tolist() == [1, -1, 1] and fills.quantity.tolist() == [100.] * 3
    assert list(fills) == ['time', 'side', 'quantity', 'price', 'fee', 'reason', 'symbol']


def test_longs_pay_funding_on_the_open_and_shorts_receive_it():
    bars = table([100, 100, 110, 100], [100, 100, 110, 100], funding=[.5, .5, .01, np.nan])
    for side in (1., -1):
        run = told(bars, pd.Series(side, bars.index), Costs(0))
        assert run.funding.tolist() == [0, 0, pytest.approx(-side * 100 * 110 * .01), 0]   # what is bought at an open pays nothing there
        assert measured(bars, pd.Series(side, bars.index), Costs(0))[1]['funding_paid'] == pytest.approx(-run.funding.sum())
    assert told(bars.drop(columns='funding'), pd.Series(1., bars.index)).funding is None


def test_cash_that_funding_made_negative_buys_nothing():
    one = table([100] * 5, [100] * 5, funding=[0, 0, .1, 0, 0])
    bars = pd.concat({'A': one, 'B': one}, axis=1)
    run = told(bars, pd.DataFrame(dict(A=[.95] * 5, B=[0, 0, .05, .05, .05]), bars.index), Costs(0))
    assert run.cash.iloc[-1] == pytest.approx(-450) and run.fills.symbol.tolist() == ['A']


# ---- asking a strategy ----

@pytest.fixture(scope='module')
def hourly():
    rng = np.random.default_rng(8)
    closes = 100 * np.exp(rng.normal(0, .01, 400).cumsum())
    return Sample(table(closes, closes), 'X', '1h', '')


@pytest.mark.parametrize('answer', [lambda x: x > 100, lambda x: (x > 100) * 1, lambda x: (x > 100) * .3, lambda x: x.where(x > 100) * 0 + 1, lambda x: x * np.nan,
                                    lambda x: (x > 100).to_numpy(), lambda x: (x > 100).astype('boolean'), lambda x: -(x > 100).astype(float) * 0.],
                         ids=['bools', 'ints', 'floats', 'holes', 'nothing', 'array', 'nullable', 'minus zero'])
def test_a_prepared_strategy_answers_what_the_strategy_does(hourly, answer):
    @strategy
    def asked(bars, unused: int = 1): return answer(bars.close)
    prepared = Prepared(asked, hourly)
    assert np.array_equal(prepared.target({}).astype(float), prepared.strategy.exposures(hourly.bars))


def test_a_refusal_and_a_failure_are_told_apart(hourly):
    @strategy
    def picky(bars, size: float = .5, drop: int = 0):
        if size < 0: raise BadInput('no shorts here')
        return bars.close[drop:] * 0 + size
    prepared = Prepared(picky, hourly)
    with pytest.raises(Declined, match='^no shorts here$'): prepared.target(dict(size=-1))
    for params, words in ((dict(size=2), 'picky returned 2 at .*; this was with size=2'), (dict(drop=1), r'\(399,\) values for 400 bars.*; this was with drop=1'),
                          (dict(sise=1), 'no parameter sise')):
        with pytest.raises(BadInput, match=words) as caught: prepared.target(params)
        assert not isinstance(caught.value, Declined)


def test_a_strategy_of_one_symbol_shares_the_account_between_several(hourly):
    other = hourly.bars.assign(**{name: hourly.bars[name].to_numpy()[::-1] for name in ('open', 'high', 'low', 'close')})
    both = Sample(pd.concat({'A': hourly.bars, 'B': other}, axis=1), 'A+B', '1h', '')
    prepared = Prepared(sma_cross, both, Costs(10))
    target = prepared.target(dict(fast=5, slow=20))
    assert target.shape == (400, 2) and set(np.unique(target)) == {0, .5}
    assert np.array_equal(target, prepared.strategy.exposures(both.bars, dict(fast=5, slow=20)))
    measured(both.bars, pd.DataFrame(target, both.bars.index, ['A', 'B']), stops=Stops(.02))


def test_a_trial_names_the_rows_it_used(hourly):
    prepared = Prepared(sma_cross, hourly, Costs(7), stops=Stops(.05))
    found = prepared.metrics(prepared.target({}), start=100, end=300)
    trial = prepared.trial({}, found, 'validation', start=100, end=300)
    assert trial.fingerprint == replace(hourly, bars=hourly.bars[100:300]).fingerprint and (trial.bars, trial.stops, trial.costs) == (200, dict(stop_loss=.05), Costs(7))
    assert prepared.trial({}, found, 'sweep', Stops()).stops == {} and prepared.trial({}, found, 'sweep').fingerprint == hourly.fingerprint
    for window in ((400, None), (-1, None), (300, 300)):
        with pytest.raises(BadInput, match='there is no such window'): prepared.metrics(prepared.target({}), start=window[0], end=window[1])


def test_prepared_travels(hourly):
    import pickle
    prepared = Prepared(sma_cross, hourly, Costs(7), 500., Stops(.05))
    arrived = pickle.loads(pickle.dumps(prepared))
    assert arrived.metrics(arrived.target({})) == prepared.metrics(prepared.target({}))


def test_a_prepared_strategy_may_be_asked_by_many_threads_at_once(hourly, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor
    from functools import partial

    from trading_lib.backtest import measure
    monkeypatch.setattr(measure, '_remembering', partial(measure._remembering, room=5 * 400 * 8))   # so that answers come and go
    prepared, sets = Prepared(sma_cross, hourly), [dict(fast=fast, slow=slow) for slow in range(20, 50) for fast in range(2, 12)]
    expected = [sma_cross(hourly.bars, **params).to_numpy() for params in sets]
    with ThreadPoolExecutor(8) as threads: found = list(threads.map(prepared.target, sets))
    assert all(map(np.array_equal, found, expected))
