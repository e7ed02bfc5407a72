"Monte Carlo says no more than it knows: intervals cover planted truths as often as they promise, and any machine draws the same paths."
import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy.signal import lfilter
from scipy.stats import binomtest

from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.montecarlo import (
    KINDS,
    Markets,
    _each,
    _rows,
    _shuffled,
    _walk_along,
    best_block,
    block_for,
    interval,
    monte_carlo,
    resample,
    sharpe_interval,
    trade_returns,
)
from trading_lib.backtest.run import backtest
from trading_lib.core.errors import BadInput
from trading_lib.core.metrics import drawdown, sharpe
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample, check_bars, together
from trading_lib.market.synthetic import draws, synthetic_market
from trading_lib.risk.stops import Stops
from trading_lib.strategies.contract import strategy
from trading_lib.strategies.trend import sma_cross


@pytest.fixture(scope='module')
def market(): return synthetic_market(seed=11, bars=3000)


@pytest.fixture(scope='module')
def run(market): return backtest(sma_cross, market.samples['BTC/USDT'], dict(fast=10, slow=40), Costs(5, 1))


@strategy
def hold(bars): return np.ones(len(bars))


@strategy
def follow(bars):
    "Long after a bar that rose."
    return bars.close > bars.open


def bars_of(changes, price=100.):
    "Bars whose closes have these returns, and whose opens are the closes before."
    close = price * np.cumprod(1 + changes)
    open_ = np.r_[price, close[:-1]]
    index = pd.date_range('2024', periods=len(close), freq='h', tz='UTC', name='time')
    return pd.DataFrame(dict(open=open_, high=np.maximum(open_, close) * 1.001, low=np.minimum(open_, close) * .999, close=close, volume=1.), index)


def sample_of(changes): return Sample(bars_of(changes), 'X', '1h', 'made up', synthetic=True)


def remembering(rng, n, share=0., tail=0):
    "Noise of deviation 1 that keeps a share of its last value."
    x = rng.normal(size=n + 50) if not tail else rng.standard_t(tail, n + 50) * ((tail - 2) / tail)**.5
    return lfilter([(1 - share**2)**.5], [1, -share], x)[50:]


def kept(hits, promise=.9):
    "Whether so many hits are what a promise like this would give, but for one time in a thousand."
    return binomtest(int(np.sum(hits)), len(hits), promise).pvalue > .001


def inside(values, truth): return np.quantile(values, .05) <= truth <= np.quantile(values, .95)


def test_ten_thousand_path_intervals_cover_the_planted_sharpe_ratio_and_growth_at_their_nominal_rate():
    hits = []
    for world in range(150):
        changes = remembering(np.random.default_rng([1, world]), 300) * .01 + .0004
        paths = resample(changes, 8760, seed=world, block=1)
        assert len(paths) == 10_000
        hits.append((inside(paths.sharpe, .04 * 8760**.5), inside(np.log1p(paths.total_return), 300 * (.0004 - .01**2 / 2))))
    assert all(map(kept, np.transpose(hits))), np.mean(hits, axis=0)


@pytest.mark.parametrize('share, tail', [(0, 4), (.15, 0), (-.2, 0)], ids=['fat tails', 'momentum', 'reversal'])
def test_the_blocks_that_are_found_keep_the_promise_for_tails_and_memory(share, tail):
    hits = []
    for world in range(250):
        changes = remembering(np.random.default_rng([2, world]), 800, share, tail) * .01 + .0004
        hits.append(inside(resample(changes, 8760, paths=200, seed=world).sharpe, .04 * 8760**.5))
    assert kept(hits), np.mean(hits)


def test_looking_ahead_covers_the_next_stretch_and_the_past_does_not():
    hits = []
    for world in range(250):
        changes, later = (remembering(np.random.default_rng([3, world]), 600) * .01 + .0004).reshape(2, -1)
        past, ahead = resample(changes, 8760, 200, block=1, seed=world), resample(changes, 8760, 200, block=1, ahead=300, seed=world)
        end, deepest, _, mean, deviation = _walk_along(later)
        hits.append([inside(paths[name], value) for paths in (past, ahead)
                     for name, value in (('total_return', end), ('max_drawdown', deepest), ('sharpe', mean / deviation * 8760**.5))])
    hits = np.transpose(hits)
    assert all(map(kept, hits[3:])), hits.mean(axis=1)
    assert not any(map(kept, hits[:3])), hits.mean(axis=1)


def test_the_order_of_exchangeable_trades_is_inside_its_interval_as_often_as_it_says():
    hits = []
    for world in range(300):
        trades = np.random.default_rng([4, world]).normal(.004, .03, 60)
        orders = _each(lambda keys, found, trades=trades: _shuffled(trades, keys, found), 300, world, 100., lambda done, total: None)
        hits.append(inside(orders.max_drawdown, _walk_along(trades)[1]))
    assert kept(hits), np.mean(hits)


def test_a_strategy_traded_anew_on_other_markets_has_its_true_sharpe_ratio_inside():
    truth = remembering(np.random.default_rng(5), 300_000, .3) * .01
    held = np.where(truth[:-1] > 0, truth[1:], 0.)
    true, hits = held.mean() / held.std(), []
    for world in range(50):
        sample = sample_of(remembering(np.random.default_rng([6, world]), 250, .3) * .01)
        paths = monte_carlo(follow, sample, kind='prices', paths=100, block=12, seed=world, costs=Costs(0, 0)).paths
        hits.append(inside(paths.sharpe, true * 8760**.5))
    assert kept(hits), np.mean(hits)


def plain_path(changes, length, block, key):
    "SplitMix64 and the stationary bootstrap, in Python."
    state, mask = int(key), 2**64 - 1
    def uniform():
        nonlocal state
        state = z = (state + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) >> 11) / 2**53
    path = []
    while len(path) < length:
        at = int(uniform() * len(changes))
        bars = 1 + int(math.log(1 - uniform()) / math.log(1 - 1 / block)) if block > 1 else 1
        path += [changes[(at + k) % len(changes)] for k in range(min(bars, length - len(path)))]
    return np.array(path)


@pytest.mark.parametrize('block', [1., 7.5])
def test_a_path_is_what_a_plain_program_makes_of_its_key(block):
    changes = np.random.default_rng(7).normal(.001, .03, 90)
    found = resample(changes, 365, paths=100, block=block, seed=8)
    for key, row in zip(draws(8, 'paths').integers(2**64, size=100, dtype=np.uint64), found.itertuples(), strict=True):
        equity = pd.Series(np.cumprod(np.r_[1, 1 + plain_path(changes, 90, block, key)]))
        expected = equity.iloc[-1] - 1, drawdown(equity).min(), equity.min(), sharpe(equity, 365)
        assert (row.total_return, row.max_drawdown, row.lowest, row.sharpe) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_the_same_seed_draws_the_same_paths_on_any_number_of_cores_and_however_many_are_wanted():
    changes = np.random.default_rng(9).normal(0, .01, 400)
    for how in (dict(), dict(ahead=70)):
        one = resample(changes, 365, 1000, seed=3, cores=1, **how)
        assert one.equals(resample(changes, 365, 1000, seed=3, cores=5, **how))
        assert one.head(300).equals(resample(changes, 365, 300, seed=3, **how))
        assert not one.equals(resample(changes, 365, 1000, seed=4, **how))


def test_blocks_have_the_mean_length_they_should_and_begin_anywhere():
    rows = _rows(1000, 200_000, 25., np.array([3], np.uint64))
    starts = np.flatnonzero(np.diff(rows) % 1000 != 1)
    assert len(rows) / len(starts) == pytest.approx(25, rel=.05)
    assert np.bincount(rows // 100, minlength=10).std() < 1500 and rows.min() == 0 and rows.max() == 999


def test_a_longer_memory_asks_for_longer_blocks_and_the_silent_have_one():
    rng = np.random.default_rng(10)
    lengths = [np.median([best_block(remembering(rng, 2000, share)) for _ in range(5)]) for share in (0, .4, .8)]
    assert lengths == sorted(lengths) and lengths[0] < 2 and lengths[2] > 10
    assert best_block(np.zeros(50)) == 1 and 1 <= best_block(rng.normal(size=20)) <= 20
    storms = rng.normal(size=4000) * np.exp(np.repeat(rng.normal(0, 1, 40), 100))
    assert block_for(storms) > 5 * best_block(rng.normal(size=4000))


def test_what_was_observed_is_what_the_backtest_says(run):
    seen = monte_carlo(run, paths=100).observed
    for name in ('total_return', 'max_drawdown', 'sharpe'): assert seen[name] == pytest.approx(run.metrics[name], rel=1e-9)


def test_trades_are_resampled_one_by_one(run):
    changes = trade_returns(run)
    assert len(changes) == (~run.trades.is_open).sum() and np.isclose(changes, run.trades.pnl[:len(changes)] / 10_000, atol=.02).all()
    found = monte_carlo(run, kind='trades', paths=500)
    assert found.paths.equals(resample(changes, 8760 * len(changes) / len(run.bars), 500, block=1.)) and found.length == len(changes)
    shuffled = monte_carlo(run, kind='shuffle', paths=500)
    assert np.allclose(shuffled.paths.total_return, np.prod(1 + changes) - 1) and shuffled.paths.max_drawdown.nunique() > 100
    assert monte_carlo(run, kind='trades', paths=100, ahead=1500).length == round(1500 * len(changes) / len(run.bars))


def test_markets_are_bars_and_the_same_rows_for_every_symbol(market):
    sample = together([each for each in market.samples.values()])
    bars = sample.bars.copy()
    bars['BTC/USDT', 'funding'] = np.arange(len(bars)) * 1e-6
    markets = Markets(bars, '1h', 500)
    rows = _rows(len(bars) - 1, 500, 40., np.array([1], np.uint64))
    path = markets.path(rows, 0.)
    assert list(path.columns) == list(bars.columns) and (path['BTC/USDT', 'funding'].to_numpy() == (rows + 1) * 1e-6).all()
    for symbol in market.samples:
        check_bars(path[symbol], symbol)
        change = bars[symbol].close.pct_change().to_numpy()[1:]
        assert np.allclose(path[symbol].close.pct_change().to_numpy()[1:], change[rows[1:]], atol=1e-12)
        assert (path[symbol].volume.to_numpy() == bars[symbol].volume.to_numpy()[rows + 1]).all()
    moved = markets.path(rows, np.array([.001, 0, 0]))
    assert moved['BTC/USDT'].close.iloc[-1] == pytest.approx(path['BTC/USDT'].close.iloc[-1] * np.exp(.5)) and moved['ETH/USDT'].equals(path['ETH/USDT'])


def test_a_strategy_on_another_market_is_its_backtest_there(market):
    run = backtest(sma_cross, market.samples['ETH/USDT'], costs=Costs(10, 3), stops=Stops(stop_loss=.03))
    found = monte_carlo(run, kind='prices', paths=100, block=30., ahead=400, seed=2)
    key = draws(2, 'paths').integers(2**64, size=1, dtype=np.uint64)
    markets, n = Markets(run.bars, '1h', 400), len(run.bars) - 1
    shift = markets.changes[_rows(n, n, 30., key)].mean(axis=0) - markets.changes.mean(axis=0)
    bars = markets.path(_rows(n, 400, 30., key), shift)
    equity = simulate(bars, run.strategy.exposures(bars, run.params), run.costs, 10_000., run.stops).equity
    assert found.paths.total_return[0] == pytest.approx(equity.iloc[-1] / 10_000 - 1) and found.paths.max_drawdown[0] == pytest.approx(drawdown(equity).min())


@pytest.mark.parametrize('kind', KINDS)
def test_several_symbols_are_resampled_in_every_way(market, kind):
    sample = together([market.samples[name] for name in ('BTC/USDT', 'SOL/USDT')])
    found = monte_carlo(sma_cross, sample, dict(fast=5, slow=30), paths=100, kind=kind, ahead=None if kind == 'shuffle' else 300)
    assert found.paths.notna().all(axis=None) and found.sentence.startswith('100 ')
    assert json.loads(json.dumps(found.summary(), allow_nan=False))['kind'] == kind


def test_paths_on_which_nothing_moved_have_no_sharpe_ratio_and_say_null():
    @strategy
    def rarely(bars): return (bars.close > bars.close.iloc[0] * 1.2).astype(float)
    changes = np.full(300, .0005); changes[::7] = -.002; changes[200:] = .004
    found = monte_carlo(rarely, sample_of(changes), kind='prices', paths=100, ahead=20, block=5)
    assert found.paths.sharpe.isna().any() and (found.paths.total_return[found.paths.sharpe.isna()] == 0).all()
    json.dumps(found.summary(), allow_nan=False)


def test_ruin_is_the_lowest_point_and_ends_a_path():
    paths = resample(np.r_[-1., np.full(30, .01)], 365, paths=200, block=1)
    gone = paths.lowest == 0
    assert gone.any() and not gone.all() and (paths.total_return[gone] == -1).all() and (paths.max_drawdown[gone] == -1).all()


def test_progress_counts_up_to_the_end_and_an_interrupt_comes_through(run):
    seen = []
    monte_carlo(run, paths=1100, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen) and seen[-1] == (1100, 1100)
    def impatient(done, total): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): monte_carlo(run, kind='prices', paths=100_000, ahead=50, progress=impatient)


def test_bad_questions_are_refused_with_a_remedy(run, market):
    sample = market.samples['BTC/USDT']
    for message, how in (('at least 100', dict(paths=99)), ('did you mean trades', dict(kind='trade')), ('block was 0.5', dict(block=.5)),
                         ('block was 9999', dict(block=9999)), ('block was 9999', dict(block=9999, kind='prices')), ('look at least 2', dict(ahead=1)),
                         ('each trade once', dict(kind='shuffle', ahead=10))):
        with pytest.raises(BadInput, match=message): monte_carlo(run, **how)
    with pytest.raises(BadInput, match='0 closed trades are too few'): monte_carlo(hold, sample, kind='trades')
    with pytest.raises(BadInput, match='too few to resample'): monte_carlo(hold, Sample(sample.bars[:10], 'X', '1h', ''))
    @strategy
    def never(bars): return np.zeros(len(bars))
    with pytest.raises(BadInput, match='never never traded|never traded'): monte_carlo(never, sample)
    @strategy
    def short(bars): return -np.ones(len(bars))
    tripled = sample_of(np.r_[np.zeros(20), np.full(20, .2)])
    with pytest.raises(BadInput, match='was ruined'): monte_carlo(short, tripled)


@pytest.mark.parametrize(('wrong', 'says'), [
    (dict(block='x'), 'block was x'), (dict(paths='x'), "paths was 'x'; it must be a whole number"), (dict(paths=100.5), 'paths was 100.5'),
    (dict(ahead='x'), "ahead was 'x'"), (dict(ahead=2.5), 'ahead was 2.5'), (dict(seed='x'), "seed was 'x'"), (dict(seed=-1), 'seed was -1'),
    (dict(drawdown='x'), 'drawdown was x'), (dict(kind=3), 'there is no kind 3'), (dict(params=[1]), r'params was \[1\]; give each by its name'),
    (dict(params=[{}]), 'params was'), (dict(sample=None), 'sample was None'), (dict(ahead=87_601), 'at most 10 years ahead, which is 87,600 bars'),
    (dict(run='grid', kind='prices'), 'grid returns orders')])
@pytest.mark.filterwarnings('error')
def test_what_is_no_number_and_no_name_is_one_line(market, wrong, says):
    with pytest.raises(BadInput, match=says): monte_carlo(**dict(run=sma_cross, sample=market.samples['BTC/USDT'], paths=100) | wrong)


@pytest.mark.parametrize('block', [1., 3., 40.])
def test_the_interval_of_a_sharpe_ratio_is_that_of_the_resampled_paths(block, monkeypatch):
    monkeypatch.setattr('trading_lib.backtest.montecarlo.block_for', lambda changes: block)
    changes = np.random.default_rng(4).normal(.001, .02, 500)
    np.testing.assert_allclose(sharpe_interval(changes, 365), interval(resample(changes, 365, 2000).sharpe), rtol=1e-9)


@pytest.mark.parametrize('name', ['drawdown', 'ruin'])
@pytest.mark.parametrize('share', [0., 1., 30, -.3])
def test_shares_of_the_equity_are_fractions(market, name, share):
    with pytest.raises(BadInput, match=f'{name} was {share}; it is a share'): monte_carlo(sma_cross, market.samples['BTC/USDT'], **{name: share})


@pytest.mark.parametrize('kind', ['trades', 'shuffle'])
def test_a_drawdown_of_trades_says_that_it_is_one_from_trade_to_trade(market, kind):
    run = backtest(sma_cross, market.samples['BTC/USDT'], dict(fast=5, slow=30), Costs(10, 2))
    found = monte_carlo(run, kind=kind, paths=100)
    assert found.observed['max_drawdown'] > run.metrics['max_drawdown'] and 'maximum drawdown from trade to trade' in found.sentence
    assert 'trade to trade' not in monte_carlo(run, paths=100).sentence
