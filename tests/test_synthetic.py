"""The synthetic market: the same on every run, legal at an exchange, and true to what it says was planted."""
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trading_lib.core.errors import BadInput
from trading_lib.market.bars import check_bars
from trading_lib.market.store import Store
from trading_lib.market.synthetic import ACTORS, REGIMES, SENTENCES, TICK, sentence, synthetic_market

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def market(): return synthetic_market(seed=7)


def test_another_process_makes_the_same_market(market):
    program = ("from trading_lib.market.synthetic import synthetic_market as s\n"
               "m = s(seed=7); print(*[x.fingerprint for x in m.samples.values()], hash(tuple(m.headlines.text)) * 0, len(m.headlines))")
    for hash_seed in '01':
        said = subprocess.run([sys.executable, '-c', program], cwd=ROOT, env={'PYTHONHASHSEED': hash_seed, 'PATH': ''}, capture_output=True, text=True, check=True)
        assert said.stdout.split() == [*(x.fingerprint for x in market.samples.values()), '0', str(len(market.headlines))]


def test_another_seed_is_another_market(market):
    assert synthetic_market(seed=8, bars=50).samples['BTC/USDT'].fingerprint != synthetic_market(seed=7, bars=50).samples['BTC/USDT'].fingerprint


def test_a_longer_market_begins_with_the_shorter_one(market):
    short = synthetic_market(seed=7, bars=1234, symbols=('SOL/USDT', 'BTC/USDT'))
    for symbol, sample in short.samples.items(): assert sample.bars.equals(market.samples[symbol].bars[:1234])
    shown = market.headlines[(market.headlines.index < short.samples['BTC/USDT'].bars.index[-1]) & market.headlines.symbol.isin(short.samples)]
    assert set(shown.text.items()) <= set(short.headlines.text.items())


def test_two_years_of_three_coins_take_well_under_two_seconds():
    start = time.perf_counter(); synthetic_market(seed=1)
    assert time.perf_counter() - start < 2


def test_every_price_is_legal_and_every_sample_says_it_is_synthetic(market):
    for symbol, sample in market.samples.items():
        assert sample.synthetic and 'synthetic' in str(sample) and sample.symbol == symbol and sample.timeframe == '1h'
        check_bars(sample.bars)
        prices = sample.bars[['open', 'high', 'low', 'close']].to_numpy()
        assert (prices == np.round(prices, 2)).all() and prices.min() > 20 and prices.max() < 100_000
        assert (sample.bars.open[1:].to_numpy() == sample.bars.close[:-1].to_numpy()).all() and not len(sample.gaps)


@pytest.mark.parametrize('seed', range(5))
def test_returns_cluster_have_fat_tails_and_move_together(seed):
    market = synthetic_market(seed)
    returns = pd.DataFrame({s: np.log(x.bars.close).diff() for s, x in market.samples.items()}).dropna()
    for symbol in returns:
        r = returns[symbol]
        assert abs(r.autocorr(1)) < .05 and r.abs().autocorr(1) > .12 and r.abs().autocorr(24) > .08 and r.kurt() > 4
    assert np.abs(returns.corr().to_numpy()[np.triu_indices(3, 1)] - .7).max() < .08


@pytest.mark.parametrize('asked', [0., .3, .9])
def test_correlation_is_about_what_was_asked(asked):
    returns = pd.DataFrame({s: np.log(x.bars.close).diff() for s, x in synthetic_market(3, correlation=asked).samples.items()})
    noise = returns.clip(returns.quantile(.01), returns.quantile(.99), axis=1)   # without the jumps, which all coins share
    assert np.abs(noise.corr().to_numpy()[np.triu_indices(3, 1)] - asked).max() < .1


def test_regimes_are_as_they_are_described():
    markets = [synthetic_market(seed, symbols=('BTC/USDT',)) for seed in range(6)]
    returns = pd.concat([np.log(m.samples['BTC/USDT'].bars.close).diff() - m.truth.effect['BTC/USDT'] for m in markets])
    regime = pd.concat([m.truth.regime for m in markets])
    for r in REGIMES: assert abs(returns[regime == r.name].std() * 8760**.5 / r.volatility - 1) < .35
    mean = returns.groupby(regime).mean()
    assert mean['bull'] > mean['quiet'] > mean['bear']
    lasts = (regime != regime.shift()).sum()
    assert 150 < len(regime) / lasts < 700


def test_jumps_are_where_the_truth_says(market):
    for symbol in ('BTC/USDT', 'ETH/USDT'):
        size = np.log(market.samples[symbol].bars.close).diff().abs()
        assert size[market.truth.jumps.index].median() > 5 * size.median()
    assert market.truth.jumps.abs().between(.02, .05).all() and 20 < len(market.truth.jumps) < 80


def test_the_effect_of_headlines_can_be_recovered_and_none_comes_early():
    lifts, early = [], []
    for seed in range(4):
        market = synthetic_market(seed)
        for symbol, sample in market.samples.items():
            log = np.log(sample.bars.close).to_numpy()
            facts = market.truth.headlines[market.truth.headlines.symbol == symbol]
            at = sample.bars.index.searchsorted(facts.index, side='right') - 1
            inside = (at > 8) & (at + 8 < len(log))
            lifts += list((facts.mood * (log[np.minimum(at + 8, len(log) - 1)] - log[at]))[inside & (facts.mood != 0)])
            early += list((facts.mood * (log[at] - log[at - 8]))[inside & (facts.mood != 0)])
    error = np.std(lifts) / len(lifts)**.5
    assert abs(np.mean(lifts) - .005) < 3 * error and abs(np.mean(early)) < 3 * error


def test_the_effect_begins_after_the_bar_in_which_the_headline_came(market):
    effect, facts = market.truth.effect['BTC/USDT'], market.truth.headlines
    first = facts[(facts.symbol == 'BTC/USDT') & (facts.mood != 0)].index[0]
    assert (effect[:first] == 0).all() and effect.index[effect != 0][0] == first.floor('h') + pd.Timedelta('1h')
    total = facts[facts.symbol == 'BTC/USDT'].effect.sum()
    assert abs(effect.sum() - total) < .02


def test_headlines_have_their_own_moment_and_no_mood(market):
    assert list(market.headlines) == ['symbol', 'text', 'source'] and market.headlines.source.str.contains('synthetic').all()
    assert market.headlines.index.name == 'known_at' and market.headlines.index.is_monotonic_increasing
    assert market.headlines.index.minute.nunique() > 50
    everything = {sentence('BTC/USDT', m, (i + .5) / 36) for m in SENTENCES for i in range(36)}
    assert len(everything) == sum(map(len, SENTENCES.values())) * len(ACTORS)


def test_other_symbols_and_timeframes_work():
    for timeframe in ('5m', '4h', '1d'):
        market = synthetic_market(2, bars=300, symbols=('GEM/EUR', 'BTC/USDT'), timeframe=timeframe)
        assert market.samples['GEM/EUR'].timeframe == timeframe and market.samples['GEM/EUR'].bars.low.min() >= TICK
        assert (market.headlines.text[market.headlines.symbol == 'GEM/EUR'].str.contains('GEM')).all()


def test_nonsense_is_bad_input():
    for wrong in (dict(bars=1), dict(correlation=-1), dict(timeframe='hourly'), dict(start='soon')):
        with pytest.raises(BadInput): synthetic_market(**wrong)


def test_the_market_goes_into_the_store_and_stays_synthetic(market, tmp_path):
    store = Store(tmp_path)
    for symbol, sample in market.samples.items():
        store.write(sample, 'synthetic')
        store.write_facts('headlines', symbol, market.headlines[market.headlines.symbol == symbol], 'synthetic')
    assert store.catalog().synthetic.all() and store.catalog().source.eq('synthetic market, seed 7').all()
    assert store.read('ETH/USDT').fingerprint == market.samples['ETH/USDT'].fingerprint
    assert len(store.read_facts('headlines', 'ETH/USDT')) == (market.headlines.symbol == 'ETH/USDT').sum()
