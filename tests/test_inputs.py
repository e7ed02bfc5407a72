"What is handed to an engine or a backtest is looked at first, the same way everywhere, and refused in one line."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from trading_lib.backtest.measure import Prepared
from trading_lib.backtest.run import backtest, engine
from trading_lib.core.errors import BadInput
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample, together
from trading_lib.market.synthetic import synthetic_market
from trading_lib.strategies.contract import describe

ONE, OTHER = list(synthetic_market(seed=3, bars=300).samples.values())[:2]
BOTH = together([ONE, OTHER])
FLAT = pd.Series(0., ONE.bars.index)
NAMES = list(BOTH.bars.columns.get_level_values(0).unique())
PAIR = pd.DataFrame(.4, BOTH.bars.index, NAMES)


@pytest.mark.parametrize('name', ['kernel', 'replay', 'vectorbt'])
@pytest.mark.parametrize('bars, target, said', [
    (ONE.bars, FLAT[::-1], 'the target has other times than the bars'),
    (ONE.bars, FLAT[:-1], 'give one exposure a close'),
    (ONE.bars, FLAT + 2., r'the target goes from 2 to 2; it is a share of equity in \[-1, 1\]'),
    (ONE.bars, FLAT + np.inf, 'share of equity'),
    (ONE.bars, FLAT.mask(FLAT.index == FLAT.index[7]), 'the target is NaN somewhere'),
    (ONE.bars, FLAT.astype(object).where(FLAT.index != FLAT.index[7], None), 'it must be numbers'),
    (BOTH.bars, PAIR[NAMES[::-1]], 'put them in that order'),
    (BOTH.bars, PAIR + .2, 'the targets of one bar sum to 1.2 without signs')], ids=range(8))
def test_every_engine_refuses_a_target_that_does_not_fit(name, bars, target, said):
    with pytest.raises(BadInput, match=said): engine(name)(bars, target, Costs(), 10_000.)


@pytest.mark.parametrize('change, said', [
    (lambda bars: bars[::-1], 'is out of order'),
    (lambda bars: bars.assign(close=np.nan), 'must be a finite number'),
    (lambda bars: bars.assign(low=-1.), 'must be above 0'),
    (lambda bars: bars.tz_localize(None), 'bars are indexed by UTC times, these by datetime64'),
    (lambda bars: bars.tz_convert('Asia/Tokyo'), 'bars are indexed by UTC times')], ids=range(5))
def test_a_sample_keeps_the_rules_of_bars_however_it_was_made(change, said):
    with pytest.raises(BadInput, match=said): Sample(change(ONE.bars), 'COIN', '1h', 'by hand')


@pytest.mark.parametrize('terms, said', [(dict(cash=1e308), 'at most 1e15'), (dict(cash=np.inf), 'at most 1e15'), (dict(stops=dict(stop_loss=.1)), 'give Stops')])
@pytest.mark.parametrize('ask', [backtest, Prepared])
def test_terms_that_are_none_are_refused(ask, terms, said):
    with pytest.raises(BadInput, match=said): ask('sma_cross', ONE, **terms)


def test_an_empty_sample_and_a_strategy_that_is_none_are_refused():
    with pytest.raises(BadInput, match='there is no bar in it'): backtest('sma_cross', replace(ONE, bars=ONE.bars[:0]))
    with pytest.raises(BadInput, match='is no strategy'): describe(print)


def test_minus_nought_is_nought():
    assert str(Costs(-0., -0.)) == str(Costs(0., 0.))
