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
from trading_lib.execution.plan import Wish
from trading_lib.market.bars import Sample, tidy, together
from trading_lib.risk.stops import Stops
from trading_lib.strategies.contract import as_exposure, find, strategy

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
    def at_odds(bars, target, costs, cash, stops) -> Agreement:
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
    assert simulate(bars, target, Costs(20)).equity.iloc[-1] < 1e-9   # of 10,000
    assert agree(bars, target, Costs(20)) == Agreement(('kernel', 'vectorbt', 'replay'), pytest.approx(0, abs=1e-12), None)


# ---- stops, several symbols, orders ----

def test_stops_are_part_of_what_the_engines_agree_on():
    said = verify('sma_cross', SAMPLE, stops=Stops(stop_loss=.02, take_profit=.04, trailing_stop=.03, time_stop=24)).agreement
    assert said.engines == ('kernel', 'vectorbt', 'replay') and said.findings == () and said.left_out == {}


HALF = Sample(walk(700), 'COIN/USDT', '1h', 'made up', synthetic=True)
PAIR = together([HALF, Sample(walk(700, seed=8), 'OTHER/USDT', '1h', 'made up', synthetic=True)])

MANY = """
from trading_lib.market.bars import field
from trading_lib.strategies.contract import strategy

@strategy(several=True)
def stronger(bars):
    gain = field(bars, 'close').pct_change(20)
    return gain.gt(gain.mean(axis=1), axis=0) * .9

@strategy(several=True)
def one_knows(bars):
    close = field(bars, 'close')
    return close.diff(5).gt(0).assign(**{'OTHER/USDT': close['OTHER/USDT'].shift(-1) > close['OTHER/USDT']}) * .5

@strategy(several=True)
def one_follows_tomorrow_of_the_other(bars):
    close = field(bars, 'close')
    return close.diff(5).gt(0).assign(**{'OTHER/USDT': close['COIN/USDT'].shift(-1) > close['COIN/USDT']}) * .5

@strategy(several=True)
def one_writes(bars):
    bars[('COIN/USDT', 'mean')] = bars['COIN/USDT'].close.rolling(9).mean()
    return field(bars, 'close').diff(5).gt(0) * .5

@strategy
def alone_writes(bars):
    bars['mean'] = bars.close.rolling(9).mean()
    return bars.close > bars['mean']

@strategy
def alone_knows(bars):
    return bars.close.shift(-1) > bars.close
"""


@pytest.fixture(scope='module')
def many(tmp_path_factory):
    path = tmp_path_factory.mktemp('many') / 'many.py'
    path.write_text(MANY)
    return path


@pytest.mark.parametrize(('name', 'found'), [
    ('stronger', set()), ('one_knows', {('lookahead', 'OTHER/USDT')}), ('one_follows_tomorrow_of_the_other', {('lookahead', 'OTHER/USDT')}),
    ('one_writes', {('mutation', 'COIN/USDT mean')}), ('alone_writes', {('mutation', 'mean')}),
    ('alone_knows', {('lookahead', 'COIN/USDT'), ('lookahead', 'OTHER/USDT')})])
def test_several_symbols_are_one_experiment_and_the_one_at_fault_is_named(many, name, found):
    verdict = verify(f'{many}:{name}', PAIR, costs=Costs(10, 5), stops=Stops(stop_loss=.05))
    assert {(f.kind, f.column) for f in verdict.findings} == found
    assert verdict.agreement.engines == ('kernel', 'vectorbt', 'replay') and verdict.agreement.findings == ()
    if name == 'stronger': assert verdict.warmup_bars == 20


def test_a_strategy_of_one_symbol_is_asked_about_each_of_several():
    one, pair = verify('sma_cross', HALF), verify('sma_cross', PAIR)
    assert pair.passed and pair.warmup_bars == one.warmup_bars == 49


def test_funding_leaves_vectorbt_out_and_the_json_says_so():
    paying = Sample(SAMPLE.bars.assign(funding=1e-4), SAMPLE.symbol, '1h', 'made up', synthetic=True)
    said = verify('sma_cross', paying).json()
    assert said['verdict'] == 'pass' and said['agreement']['engines'] == ['kernel', 'replay'] and 'funding' in said['agreement']['left_out']['vectorbt']


COUNT = []

@strategy(orders=True)
def counts_in_a_variable(bars, account, state):
    COUNT.append(1)
    return [Wish('buy', 'buy', .01)] if len(COUNT) % 10 == 0 else [], {}

@strategy(orders=True)
def counts_in_its_state(bars, account, state):
    count = state.get('count', 0) + 1
    return [Wish('buy', 'buy', .01)] if count % 10 == 0 else [], dict(count=count)

@strategy(orders=True)
def looks_at_the_clock(bars, account, state):
    return [Wish('buy', 'buy', .01)] if pd.Timestamp.now().month % 2 and len(bars) % 10 == 0 else [], {}

@strategy(orders=True)
def scribbles_on_the_bars(bars, account, state):
    bars['mean'] = bars.close.rolling(9).mean()
    return [], {}

@strategy(orders=True)
def waits_at_the_lowest_of_fifty(bars, account, state):
    return [Wish('wait', 'buy', .01, float(bars.low[-50:].min()))], {}

@strategy(orders=True)
def waits_at_the_mean_of_all(bars, account, state):
    return [Wish('wait', 'buy', .01, float(bars.close.mean()))], {}


@pytest.mark.parametrize(('function', 'kinds', 'warmup'), [
    (counts_in_a_variable, ['state'], None), (counts_in_its_state, [], 0), (looks_at_the_clock, ['clock'], None), (scribbles_on_the_bars, ['mutation'], None),
    (waits_at_the_lowest_of_fifty, [], 49), (waits_at_the_mean_of_all, ['window'], None)], ids=lambda f: getattr(f, '__name__', None))
def test_what_returns_orders_is_asked_the_same_questions_again(function, kinds, warmup):
    verdict = verify(function, Sample(SAMPLE.bars[:600], SAMPLE.symbol, '1h', 'made up', synthetic=True))
    assert [f.kind for f in verdict.findings] == kinds and verdict.warmup_bars == warmup
    said = verdict.json()['agreement']
    assert said['engines'] == ['replay'] and said['max_rel_diff'] is None and set(said['left_out']) == {'kernel', 'vectorbt'}


def test_stops_beside_orders_are_refused():
    with pytest.raises(BadInput, match='returns orders, and its exits are among them'): verify('dca', SAMPLE, stops=Stops(stop_loss=.1))
