"""Kernel, replay and vectorbt against the plain loop of `oracle`, on made-up markets of every kind and on real ones.

A few hundred markets here; thousands with HYPOTHESIS_PROFILE=long, which is what `make agreement` runs."""
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from oracle import tell

from trading_lib.backtest import vectorised
from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.replay import replay
from trading_lib.backtest.vectorised import NotExpressible, portfolio, simulate_vectorbt
from trading_lib.evidence import agreement
from trading_lib.evidence.agreement import agree, compare
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import field, together
from trading_lib.market.store import Store, load_sample
from trading_lib.risk.stops import Stops

LONG = os.environ.get('HYPOTHESIS_PROFILE') == 'long'
ENGINES = dict(kernel=simulate, replay=replay, vectorbt=simulate_vectorbt)
START, TOLERANCE, DUST = 10_000., 1e-9, 1e-8


# ---- the engines against the oracle ----

def check(market, engines=ENGINES, tolerance=TOLERANCE, cash=START, in_order=True):
    """Every engine says what the oracle says: books bar by bar, fills one by one, funding, ruin.

    Without `in_order` fills of one bar are compared symbol by symbol: which of two equal sales comes first may hang on the last digit of a float."""
    bars, target, costs, stops = market
    story = tell(bars, target, costs, cash, stops)
    symbols = list(target.columns) if target.ndim == 2 else [None]
    close = np.column_stack([field(bars, 'close')])
    scale = np.maximum(np.abs(story.equity), cash / 100)
    held = np.array([[each[s] for s in symbols] for each in story.position])
    for name in engines:
        run = ENGINES[name](bars, target, costs, cash, stops)
        position = run.position.to_numpy().reshape(len(bars), -1)
        assert run.equity.index.equals(bars.index) and list(getattr(run.position, 'columns', [None])) == symbols, name
        close_to(name, 'equity', run.equity, story.equity, scale * tolerance)
        close_to(name, 'cash', run.cash, story.cash, (scale + np.abs(held * close).sum(axis=1)) * tolerance)
        close_to(name, 'position', (position * close).T, (held * close).T, (scale + np.abs(held * close).sum(axis=1)) * tolerance)
        assert run.ruined == (None if story.ruin is None else bars.index[story.ruin]), (name, run.ruined, story.ruin)
        check_fills(name, run.fills, story, bars.index, symbols, cash, in_order)
        if run.funding is not None: close_to(name, 'funding', run.funding, story.funding, scale * tolerance)
        else: assert not np.any(story.funding), name
    return story


def close_to(name, what, ours, right, within):
    apart = np.abs(np.asarray(ours) - np.asarray(right)) / within
    assert (apart <= 1).all(), f'{name}: {what} differs first at {np.argwhere(~(apart <= 1))[0].tolist()}, at most by {apart.max()} times what is allowed'


def check_fills(name, fills, story, index, symbols, cash, in_order):
    right = [f for f in story.fills if abs(f.quantity) * f.price > DUST * cash]
    fills = fills[fills.quantity * fills.price > DUST * cash]
    assert list(fills.columns) == ['time', 'side', 'quantity', 'price', 'fee', 'reason'] + ['symbol'] * (symbols != [None]), name
    if not in_order:
        right.sort(key=lambda f: (f.bar, str(f.symbol)))
        fills = fills.sort_values(['time', *fills.columns[6:]], kind='stable')
    told = [(t, side, reason, s) for t, side, reason, s in zip(fills.time, fills.side, fills.reason, fills.get('symbol', [None] * len(fills)), strict=True)]
    assert told == [(index[f.bar], 1 if f.quantity > 0 else -1, f.reason, f.symbol) for f in right], name
    numbers = [(abs(f.quantity), f.price, f.fee) for f in right]
    assert np.allclose(fills[['quantity', 'price', 'fee']].to_numpy(float), np.reshape(numbers, (-1, 3)), rtol=TOLERANCE, atol=0), name


# ---- markets ----

def moves(raw, shape, size):
    "Bytes as moves: most of them small, some wild, and none at all for a zero."
    x = ((np.frombuffer(raw, np.uint8).astype(float) + 128) % 256 - 128) / 128
    return (size * (x**3 + .08 * x)).reshape(shape)


@st.composite
def markets(draw, most_symbols=4, funding=True):
    "Bars with gaps in time and price, wicks and bars without a range; exposures; costs; stops; funding."
    symbols = draw(st.integers(1, most_symbols))
    n = draw(st.integers(3, 40 if symbols == 1 else 24))
    shape = n, symbols
    some = st.one_of(st.binary(min_size=n * symbols, max_size=n * symbols),   # which shrinks well, and seeds, which vary more
                     *[st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).bytes(n * symbols))] * 3)
    drawn = lambda: draw(some)
    wild = draw(st.sampled_from([.02, .1, .4, 1.]))
    jump, body, above, below = (moves(drawn(), shape, size) for size in (wild, wild, wild / 2, wild / 2))
    price = np.array(draw(st.lists(st.sampled_from([.5, 100., 30_000.]), min_size=symbols, max_size=symbols)))
    closes = (price * np.exp((jump + body).cumsum(axis=0))).round(6)
    opens = (closes * np.exp(-body)).round(6)
    highs, lows = np.maximum(opens, closes) * np.exp(np.maximum(above, 0)), np.minimum(opens, closes) * np.exp(np.minimum(below, 0))
    hours = np.cumsum(draw(st.lists(st.sampled_from([1, 1, 1, 1, 2, 7, 200]), min_size=n, max_size=n)))
    index = (pd.Timestamp('2024', tz='UTC') + pd.to_timedelta(hours, unit='h')).rename('time')
    tables = [pd.DataFrame(dict(open=o, high=h, low=low, close=c, volume=1.), index) for o, h, low, c in zip(opens.T, highs.T, lows.T, closes.T, strict=True)]
    for table in tables if funding and draw(st.booleans()) else []:
        if draw(st.booleans()): table['funding'] = rates(drawn()[:n])
    return (*framed(tables, exposures(draw, drawn(), shape)), costs(draw), stops(draw))


def framed(tables, target):
    if len(tables) == 1: return tables[0], pd.Series(target[:, 0], tables[0].index)
    names = [f'COIN{k}' for k in range(len(tables))]
    return pd.concat(dict(zip(names, tables, strict=True)), axis=1, names=['symbol', None]), pd.DataFrame(target, tables[0].index, names)


def exposures(draw, raw, shape):
    "All, halves or twentieths, mostly as before; more than all of the equity is scaled down to all of it."
    grain, shorts = draw(st.sampled_from([1, 2, 20])), draw(st.booleans())
    x = np.frombuffer(raw, np.uint8).astype(int).reshape(shape)
    levels = x % (2 * grain + 1) - grain if shorts else x % (grain + 1)
    asked = pd.DataFrame(np.where(x < draw(st.sampled_from([80, 160, 220])), np.nan, levels / grain)).ffill().fillna(0.).to_numpy()
    return asked / np.maximum(np.abs(asked).sum(axis=1, keepdims=True), 1)


def rates(raw):
    "A rate now and then, unknown once in a while."
    x = np.frombuffer(raw, np.uint8).astype(float)
    return np.where(x == 255, np.nan, np.where(x < 170, 0., (x - 212) / 42 * .004))


def costs(draw): return Costs(draw(st.sampled_from([0, 2, 10, 75])), draw(st.sampled_from([0, 5, 30, 200])))


def stops(draw):
    one = lambda *levels: draw(st.sampled_from([None, *levels]))
    return Stops(one(.011, .03, .1, .5), one(.01, .05, .3, 1.5), one(.013, .04, .2), one(1, 2, 5))


def sensible(market, strict=False):
    """What was told, if it means something: no order below a millionth of a coin, and nothing that the last digit of a float decides.

    So the oracle is asked again about prices a trillionth off, and has to tell the same story."""
    bars, target, costs, stops = market
    story = tell(bars, target, costs, START, stops)
    assume(all(abs(f.quantity) >= 1e-6 and abs(f.quantity) * f.price > DUST * START for f in story.fills))
    if strict: assume(min(story.equity) >= START / 100)
    for seed in range(2):
        noise = 1 + 1e-12 * np.random.default_rng(seed).standard_normal(bars.shape) * (bars.columns.get_level_values(-1) != 'funding')
        again = tell(bars * noise, target, costs, START, stops)
        assume(plot(again) == plot(story))
    return story


def plot(story): return story.ruin, sorted((f.bar, str(f.symbol), f.quantity > 0, f.reason) for f in story.fills)


quiet = dict(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large])


@given(markets())
@settings(max_examples=6000 if LONG else 200, **quiet)
def test_kernel_and_replay_tell_the_oracles_story_on_any_market(market):
    story = sensible(market)
    noted(market, story)
    check(market, ('kernel', 'replay'), in_order=False)


@given(markets(funding=False))
@settings(max_examples=3000 if LONG else 70, **quiet)
def test_vectorbt_tells_the_oracles_story_on_any_market_it_has_words_for(market):
    story = sensible(market, strict=True)
    noted(market, story)
    check(market, ('vectorbt',), in_order=False)
    bars, target, costs, stops = market
    said = agree(bars, target, costs, START, stops=stops)
    assert (said.findings, said.left_out) == ((), {}) and said.engines == ('kernel', 'vectorbt', 'replay')


def noted(market, story):
    "For --hypothesis-show-statistics."
    bars, target, _, _ = market
    for reason in {f.reason for f in story.fills}: event(f'a fill for {reason}')
    event(f'{1 if target.ndim == 1 else target.shape[1]} symbols')
    if np.any(story.funding): event('funding')
    if story.ruin is not None: event('ruin')
    if not story.fills: event('no fill')


# ---- real markets ----

def crossings(closes, *windows):
    "A share for each symbol: long above its average, short below it, and flat where two of them disagree."
    sides = [np.sign(closes - closes.rolling(w).mean()).fillna(0.) for w in windows]
    return sum(sides) / len(sides) / closes.shape[1]


def loaded(folder, symbols, last=None, **how):
    "Bars of several symbols from a folder of real ones."
    sample = together([load_sample(str(next(folder.glob(f'{symbol}_*.parquet'))), Store(folder), symbol=symbol, allow_gaps=True) for symbol in symbols], **how)
    return sample.bars if last is None else sample.bars[-last:]


CAREFUL = Stops(stop_loss=.02, take_profit=.05, trailing_stop=.03, time_stop=48)


@pytest.mark.parametrize('stops', [Stops(), CAREFUL, Stops(trailing_stop=.015)], ids=str)
def test_four_futures_in_one_account(shared_data, stops):
    bars = loaded(shared_data / 'ohlcv/binance_usdm_1h', ('BTCUSDT', 'ETHUSDT', 'SOLUSDT', 'DOGEUSDT'), None if LONG else 3000)
    story = check((bars, crossings(field(bars, 'close'), 24, 100), Costs(5, 2), stops), ENGINES)
    assert len(story.fills) > 500 and {f.reason for f in story.fills} >= {'target', *stops.json()}


def test_three_coins_long_only_across_the_outages_of_an_exchange(shared_data):
    bars = loaded(shared_data / 'ohlcv/binance_spot_1h', ('BTCUSDT', 'ETHUSDT', 'LINKUSDT'), allow_gaps=True)[:24_000 if LONG else 4600]
    assert (bars.index.to_series().diff() > pd.Timedelta('1h')).sum() >= 4
    target = crossings(field(bars, 'close'), 10, 60).clip(lower=0) * 3
    target = target.div(target.sum(axis=1).clip(lower=1), axis=0)   # all of the equity in what rises
    story = check((bars, target, Costs(10, 5), Stops(stop_loss=.03, take_profit=.1)), ENGINES)
    assert len(story.fills) > 500


def test_a_perpetual_future_with_the_funding_that_was_charged(shared_data):
    rates = load_rates(shared_data / 'ohlcv/freqtrade/futures/XRP_USDT_USDT-8h-funding_rate.feather')
    bars = loaded(shared_data / 'ohlcv/binance_usdm_1h', ('XRPUSDT',))[rates.index[0]:rates.index[-1]]
    paid = charged(bars, rates)
    target = crossings(bars.close.to_frame(), 12, 48).iloc[:, 0]
    story = check((paid, target, Costs(5, 2), CAREFUL), ('kernel', 'replay'))
    assert len(bars) == 721 and sum(f != 0 for f in story.funding) > 30
    said = agree(paid, target, Costs(5, 2), stops=CAREFUL)
    assert said.findings == () and said.engines == ('kernel', 'replay') and 'funding' in said.left_out['vectorbt']


def test_futures_with_each_their_own_funding(shared_data):
    rates = pd.read_parquet(shared_data / 'news_social/derivs_onchain_daru/funding_btcusdt_200evt.parquet').rate
    bars = loaded(shared_data / 'ohlcv/binance_usdm_1h', ('BTCUSDT', 'ETHUSDT'), 1600)
    at = bars.index[::8]
    both = pd.concat({name: charged(bars[name], rates.set_axis(at)[::step].set_axis(at)) for name, step in (('BTCUSDT', 1), ('ETHUSDT', -1))}, axis=1)
    story = check((both, crossings(field(bars, 'close'), 12, 48), Costs(5, 2), CAREFUL), ('kernel', 'replay'))
    assert sum(f != 0 for f in story.funding) > 100


def load_rates(path):
    table = pd.read_feather(path)
    return table.open.set_axis(pd.DatetimeIndex(table.date).floor('h'))


def charged(bars, rates): return bars.assign(funding=rates.reindex(bars.index).fillna(0.))


# ---- errors that were planted ----

@pytest.fixture(scope='module')
def walk():
    "Two coins for a thousand hours, with funding every eighth, and shares of them."
    rng, index = np.random.default_rng(3), pd.date_range('2024', periods=1000, freq='h', tz='UTC', name='time')
    tables = {}
    for name in ('BTC', 'ETH'):
        closes = 100 * np.exp(rng.normal(0, .01, 1000).cumsum())
        opens = np.r_[100, closes[:-1]] * np.exp(rng.normal(0, .004, 1000))
        wicks = np.exp(np.abs(rng.normal(0, .003, (2, 1000))))
        tables[name] = pd.DataFrame(dict(open=opens, high=np.maximum(opens, closes) * wicks[0], low=np.minimum(opens, closes) / wicks[1], close=closes,
                                         volume=1., funding=np.where(np.arange(1000) % 8, 0., .0004)), index)
    levels = pd.DataFrame(rng.choice([-.5, -.2, 0, .3, .5], (100, 2)).repeat(10, 0), index, ['BTC', 'ETH'])
    return pd.concat(tables, axis=1, names=['symbol', None]), levels


STOPPED = Stops(stop_loss=.02, take_profit=.04, trailing_stop=.03, time_stop=7)


def told(monkeypatch, walk, name, planted, funding=False, stops=STOPPED):
    "The agreement when one of the engines is wrong, and the run that is right."
    bars, target = walk
    if not funding: bars = bars.drop(columns='funding', level=1)
    monkeypatch.setattr(agreement, 'engine', lambda n: planted if n == name else ENGINES[n])
    said = agree(bars, target, Costs(10, 5), stops=stops)
    return said, simulate(bars, target, Costs(10, 5), stops=stops)


def nth(fills, reason, k=0): return fills.index[fills.reason == reason][k]


def test_a_fee_that_is_off_by_one_part_in_a_hundred_million_is_found(monkeypatch, walk):
    def planted(*asked):
        run = replay(*asked)
        fills = run.fills.copy()
        fills.loc[17, 'fee'] *= 1 + 1e-8
        return replace(run, fills=fills)
    said, right = told(monkeypatch, walk, 'replay', planted, funding=True)
    (found,) = said.findings
    assert found.column == 'fills' and pd.Timestamp(said.first_bar) == right.fills.time[17] and found.detail.startswith('fill 18 of replay is')


def test_a_fee_rate_that_is_off_by_so_little_is_found_at_the_first_fill(monkeypatch, walk):
    said, right = told(monkeypatch, walk, 'kernel', lambda bars, target, costs, *rest: simulate(bars, target, Costs(costs.fee_bps * (1 + 1e-8), 5), *rest))
    assert pd.Timestamp(said.first_bar) == right.fills.time[0] and {f.column for f in said.findings} == {'fills'}


def test_a_stop_one_bar_late_is_found_at_the_first_stop(monkeypatch, walk):
    first, true_end = [], vectorised._end
    def late(desk, *rest):
        end = true_end(desk, *rest)
        if end and end[1] == 'stop_loss' and not first: return first.append(end)
        return end
    monkeypatch.setattr(vectorised, '_end', late)
    said, right = told(monkeypatch, walk, '', None)
    bar = right.fills.loc[nth(right.fills, 'stop_loss')]
    assert pd.Timestamp(said.first_bar) == bar.time and {f.column for f in said.findings} == {'equity', 'fills'}
    equity, fills = (next(f.detail for f in said.findings if f.column == column) for column in ('equity', 'fills'))
    assert f'of {bar.symbol}, not 0' in equity and f'{bar.symbol} at' in fills and '(stop_loss)' in fills and 'vectorbt' in fills


def test_a_funding_payment_that_is_missing_is_found(monkeypatch, walk):
    row = np.flatnonzero(simulate(*walk, Costs(10, 5), stops=STOPPED).funding)[10]
    def planted(bars, *rest):
        bars = bars.copy()
        bars.loc[bars.index[row], (slice(None), 'funding')] = 0.
        return replay(bars, *rest)
    said, right = told(monkeypatch, walk, 'replay', planted, funding=True)
    assert pd.Timestamp(said.first_bar) == right.equity.index[row] and {f.column for f in said.findings} >= {'equity', 'funding'}
    assert f'has funding of 0 at the open of {right.equity.index[row]:%Y-%m-%dT%H:%M}Z' in said.findings[-1].detail
    assert list(said.left_out) == ['vectorbt'] and said.json()['left_out'] == said.left_out


def swapped(f, **names):
    "An engine that takes one thing for another."
    return lambda bars, target, costs, cash, stops: f(bars.rename(columns=names, level=1)[bars.columns], target, costs, cash, stops)


@pytest.mark.parametrize('planted', [
    swapped(replay, high='close', close='high'), swapped(replay, open='close', close='open'),
    lambda bars, target, *rest: replay(bars, target.shift(1, fill_value=0.), *rest),
    lambda bars, target, costs, *rest: replay(bars, target, Costs(costs.fee_bps, 0), *rest),
    lambda bars, target, costs, cash, stops: replay(bars, target, costs, cash, replace(stops, time_stop=stops.time_stop + 1)),
    lambda bars, target, costs, cash, stops: replay(bars, target, costs, cash, replace(stops, trailing_stop=None)),
    lambda bars, target, costs, cash, stops: replay(bars, target, costs, cash, replace(stops, take_profit=stops.take_profit * (1 + 1e-6)))],
    ids=['high for close', 'open for close', 'a bar late', 'no slippage', 'a bar more', 'no trailing stop', 'a goal a millionth further'])
def test_an_engine_that_misreads_the_rules_is_found_out(monkeypatch, walk, planted):
    said, right = told(monkeypatch, walk, 'replay', planted)
    assert said.findings and {f.kind for f in said.findings} == {'agreement'} and all('replay' in f.detail for f in said.findings)
    assert pd.Timestamp(said.first_bar) >= right.fills.time[0]


def test_which_of_two_equal_sales_came_first_is_no_disagreement_but_what_each_came_to_is(walk):
    bars, target = walk
    run = simulate(bars, target, stops=STOPPED)
    row = next(r for r in run.fills.index if run.fills.time[r] == run.fills.time[r + 1] and run.fills.symbol[r] != run.fills.symbol[r + 1])
    order = [*range(row), row + 1, row, *range(row + 2, len(run.fills))]
    swapped_fills, relabelled = run.fills.iloc[order].reset_index(drop=True), run.fills.copy()
    relabelled.loc[[row, row + 1], 'symbol'] = relabelled.symbol[[row + 1, row]].tolist()
    assert compare(dict(kernel=run, swapped=replace(run, fills=swapped_fills))).findings == ()
    (found,) = compare(dict(kernel=run, relabelled=replace(run, fills=relabelled))).findings
    assert pd.Timestamp(found.bar) == run.fills.time[row]


def test_a_reason_that_only_one_of_them_gives_is_no_disagreement(walk):
    bars, target = walk
    run = simulate(bars, target, stops=STOPPED)
    silent, lying = run.fills.drop(columns='reason'), run.fills.assign(reason=run.fills.reason.replace('time_stop', 'target'))
    assert compare(dict(kernel=run, silent=replace(run, fills=silent))).findings == ()
    (found,) = compare(dict(kernel=run, lying=replace(run, fills=lying))).findings
    assert pd.Timestamp(found.bar) == run.fills.time[nth(run.fills, 'time_stop')] and '(target)' in found.detail and '(time_stop)' in found.detail


def test_equity_fills_and_the_first_of_them_are_named(walk):
    bars, target = walk
    ours, late = (simulate(bars, t, Costs(10, 5)) for t in (target, target.shift(fill_value=0.)))
    said = compare(dict(kernel=ours, late=late))
    assert {f.kind for f in said.findings} == {'agreement'} and pd.Timestamp(said.first_bar) == ours.fills.time[0]
    (short,) = compare(dict(kernel=ours, other=replace(ours, fills=ours.fills[:-1]))).findings
    assert 'of other is none' in short.detail and short.bar.endswith('Z')


# ---- what vectorbt cannot say ----

def test_funding_is_refused_by_vectorbt_alone_and_only_where_some_is_charged(walk):
    bars, target = walk
    with pytest.raises(NotExpressible, match='cannot charge funding'): simulate_vectorbt(bars, target)
    with pytest.raises(NotExpressible, match='cannot charge funding'): agree(bars, target, engines=('vectorbt',))
    free = bars.copy()
    free.loc[:, (slice(None), 'funding')] = 0.
    free.loc[free.index[7], ('ETH', 'funding')] = np.nan
    said = agree(free, target, stops=STOPPED)
    assert said.findings == () and said.left_out == {} and said.engines == ('kernel', 'vectorbt', 'replay')


@pytest.mark.parametrize('stops', [Stops(), STOPPED], ids=['without stops', 'with stops'])
def test_a_portfolio_of_vectorbt_measures_the_run_that_was_made(walk, stops):
    bars, target = walk
    bars = bars.drop(columns='funding', level=1)
    run, pf = simulate(bars, target, Costs(10, 5), stops=stops), portfolio(bars, target, Costs(10, 5), stops=stops)
    assert pf.total_return() == pytest.approx(run.equity.iloc[-1] / 10_000 - 1, rel=1e-9)
    assert pf.orders.count().sum() == len(run.fills) and pf.orders.fees.sum().sum() == pytest.approx(run.fills.fee.sum(), rel=1e-9)
    assert pf.max_drawdown() == pytest.approx((run.equity / run.equity.cummax() - 1).min(), rel=1e-9)
    assert pf.trades.count().sum() > 50
