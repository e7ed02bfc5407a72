"The verdict: one word for a strategy on a sample, in the JSON that the command prints."
import json

import pandas as pd
import pytest
from test_causality import walk

from trading_lib.backtest.kernel import simulate
from trading_lib.core.errors import BadInput
from trading_lib.evidence import verdict
from trading_lib.evidence.agreement import Agreement, agree, compare
from trading_lib.evidence.verdict import verify
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample, tidy
from trading_lib.strategies.contract import as_exposure, find

SAMPLE = Sample(walk(2000), 'COIN/USDT', '1h', 'made up', synthetic=True)

IDEAS = '''
from datetime import datetime
import numpy as np
from trading_lib.strategies.contract import strategy

@strategy
def knows_tomorrow(bars):
    return bars.close.shift(-1) > bars.close

@strategy
def sleeps_in_summer(bars):
    return bars.close > bars.close.shift(5) if datetime.now().month % 2 else bars.close < bars.close.shift(5)

@strategy
def throws_dice(bars):
    return np.random.default_rng().random(len(bars)) > .5

@strategy
def remembers(bars):
    return bars.close > bars.close.expanding().mean()

@strategy
def writes(bars):
    bars['mean'] = bars.close.rolling(9).mean()
    return bars.close > bars['mean']

@strategy
def breaks(bars):
    return bars.clsoe
'''


@pytest.fixture(scope='module')
def ideas(tmp_path_factory):
    path = tmp_path_factory.mktemp('ideas') / 'ideas.py'
    path.write_text(IDEAS)
    return path


@pytest.mark.parametrize('name', [('knows_tomorrow', 'lookahead'), ('sleeps_in_summer', 'clock'), ('throws_dice', 'state'), ('remembers', 'window'),
                                  ('writes', 'mutation')], ids=lambda n: n[0])
def test_a_users_own_strategy_is_judged_like_ours(ideas, name):
    function, kind = name
    said = json.loads(json.dumps(verify(f'{ideas}:{function}', SAMPLE).json()))
    assert said['verdict'] == 'fail' and [f['kind'] for f in said['findings']] == [kind]
    assert set(said['findings'][0]) == {'kind', 'bar', 'column', 'detail'}


@pytest.mark.parametrize('name', ['sma_cross', 'donchian_breakout', 'bollinger_reversion', 'rsi_reversion'])
def test_our_own_strategies_pass(name):
    said = verify(name, SAMPLE).json()
    assert list(said) == ['verdict', 'findings', 'warmup_bars', 'agreement'] and said['verdict'] == 'pass' and said['findings'] == []
    assert said['warmup_bars'] > 0 and said['agreement']['engines'] == ['kernel', 'vectorbt', 'replay']
    assert said['agreement']['first_bar'] is None and said['agreement']['max_rel_diff'] < 1e-9


def test_what_a_backtest_would_refuse_is_refused_in_the_same_words(ideas):
    with pytest.raises(BadInput, match='fast was 60 and slow 50; fast must be the smaller'): verify('sma_cross', SAMPLE, dict(fast=60))
    with pytest.raises(BadInput, match='did you mean fast'): verify('sma_cross', SAMPLE, dict(fats=6))
    with pytest.raises(BadInput, match='breaks raised AttributeError'): verify(f'{ideas}:breaks', SAMPLE)


NEEDY = '''
from trading_lib.strategies.contract import strategy

@strategy(needs=('mood',))
def follows(bars):
    return bars.mood > 0

@strategy(needs=('mood',))
def scribbles(bars):
    bars['calm'] = bars.mood.rolling(5).mean()
    return bars.calm > 0
'''

class Mood:
    "A feed that is computed from the bars, as a model's forecast is."
    def __init__(self, shift): self.shift = shift
    def values(self, bars, timeframe): return bars.close.diff(30).shift(self.shift).to_numpy()


def test_a_feed_that_peeks_is_caught_like_a_strategy_that_does(tmp_path):
    (tmp_path / 'needy.py').write_text(NEEDY)
    honest, peeking = (verify(f'{tmp_path}/needy.py:follows', SAMPLE, feeds=dict(mood=Mood(shift))) for shift in (0, -1))
    assert honest.passed and honest.warmup_bars == 30   # of the feed: the strategy has none of its own
    assert [f.kind for f in peeking.findings] == ['lookahead']


def test_writing_to_the_joined_bars_is_found_too(tmp_path):
    (tmp_path / 'needy.py').write_text(NEEDY)
    found = verify(f'{tmp_path}/needy.py:scribbles', SAMPLE, feeds=dict(mood=Mood(0))).findings
    assert [(f.kind, f.column) for f in found] == [('mutation', 'calm')]


def test_engines_that_disagree_fail_the_verdict(monkeypatch):
    def at_odds(bars, target, costs, cash) -> Agreement:
        return compare(dict(kernel=simulate(bars, target, costs, cash), other=simulate(bars, target.shift(fill_value=0.), costs, cash)))
    monkeypatch.setattr(verdict, 'agree', at_odds)
    result = verify('sma_cross', SAMPLE)
    target = find('sma_cross').exposures(SAMPLE.bars)
    first = pd.Timestamp(result.json()['agreement']['first_bar'])
    assert not result.passed and {f.kind for f in result.findings} == {'agreement'}
    assert first == simulate(SAMPLE.bars, target).fills.time[0]


def test_an_honest_strategy_that_fees_eat_passes(btc_hourly):
    bars = tidy(pd.read_parquet(btc_hourly))
    target = as_exposure(bars.volume > bars.volume.shift(1), bars)
    assert simulate(bars, target, Costs(20)).equity.iloc[-1] < 1e-9
    assert agree(bars, target, Costs(20)) == Agreement(('kernel', 'vectorbt', 'replay'), pytest.approx(0, abs=1e-12), None)
