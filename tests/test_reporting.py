"""Pictures and tables at the edges: long, short, flat, ruined, without parameters."""
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.run import backtest
from trading_lib.core.errors import BadInput
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample
from trading_lib.reporting import plots, report, variations, widgets
from trading_lib.strategies.contract import catalogue, describe, find, strategy
from trading_lib.strategies.feeds import Feed

PASSED = SimpleNamespace(passed=True)
FAILED = SimpleNamespace(passed=False)


@strategy
def always(bars):
    "Hold."
    return bars.close > 0


@strategy
def never(bars):
    "Do nothing."
    return bars.close < 0


@strategy
def sometimes(bars):
    "Hold every other day."
    return (bars.index.dayofyear % 2 == 0).astype(float)


@strategy
def short(bars):
    "The other way."
    return pd.Series(-1., bars.index)


@strategy
def one_knob(bars, level: float = 0.):
    "A parameter without bounds, at zero."
    return bars.close > level


def sample(bars: int = 2000, drift: float = 0., seed: int = 1) -> Sample:
    rng, index = np.random.default_rng(seed), pd.date_range('2022-01-01', periods=bars, freq='h', tz='UTC', name='time')
    close = pd.Series(100 * np.exp((drift + rng.normal(0, .01, bars)).cumsum()), index)
    open_ = close.shift(1, fill_value=100.)
    table = pd.DataFrame(dict(open=open_, high=np.maximum(open_, close), low=np.minimum(open_, close), close=close, volume=1.))
    return Sample(table, 'COIN/USDT', '1h', 'a test', synthetic=True)


def figures(done):
    return [plots.price_figure(done), plots.price_figure(done, 100), plots.equity_figure(done), plots.drawdown_figure(done),
            plots.months_figure(done), plots.exposure_figure(done), plots.sharpe_figure(done), plots.overview_figure(done)]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=400), st.integers(10, 60))
def test_thinning_keeps_the_ends_and_the_extremes(values, points):
    series = pd.Series(values)
    few = plots.thin(series, points)
    assert (few.iloc[0], few.iloc[-1], few.min(), few.max()) == (series.iloc[0], series.iloc[-1], series.min(), series.max())
    assert len(few) <= points + 2 and few.index.is_monotonic_increasing


@pytest.mark.parametrize('function', [always, never, short])
def test_every_picture_of_every_backtest_is_labelled_synthetic(function):
    for figure in figures(backtest(function, sample())): assert 'Synthetic' in figure.layout.title.subtitle.text


def test_pictures_of_many_bars_stay_small():
    done = backtest('sma_cross', sample(40_000))
    assert sum(len(figure.to_json()) for figure in figures(done)) < 2_000_000


@pytest.mark.parametrize('bars', [2, 3, 30])
def test_a_handful_of_bars_still_makes_a_report(bars):
    done = backtest(always, sample(bars))
    assert len(figures(done)) == 8 and report.headline_table(done)


def test_ruin_is_drawn_and_said():
    done = backtest(short, sample(3000, drift=.005))
    assert done.simulation.ruined is not None
    assert len(figures(done)) == 8
    assert report.answer(done, PASSED).startswith('No: short had lost everything by')


def test_no_answer_is_given_when_a_check_failed():
    assert report.answer(backtest(always, sample()), FAILED).startswith('No answer')


def test_what_never_traded_earned_nothing():
    assert report.answer(backtest(never, sample()), PASSED) == 'No: never never traded, so it earned nothing.'


def test_holding_is_not_better_than_holding():
    assert report.answer(backtest(always, sample(), costs=Costs(0)), PASSED).startswith('Not proven')


def test_a_yes_needs_a_real_edge_and_a_count_of_trials():
    waves = sample(6000, drift=np.tile(np.repeat([.004, -.004], 300), 10))
    done = backtest('sma_cross', waves)
    assert report.answer(done, PASSED, trials=1).startswith('Yes: ')
    assert 'but nobody counted the trials' in report.answer(done, PASSED)
    assert 'tries had to look good' in report.answer(done, PASSED, trials=10**60)
    assert report.answer(done, PASSED, trials=1).endswith(' after 1 trial.')
    assert report.answer(done, PASSED, trials=1200).endswith(' after 1,200 trials.')
    assert report.answer(backtest('rsi_reversion', waves), PASSED, trials=1).startswith(('No: ', 'Not proven: '))


def test_losing_surely_less_than_holding_is_a_yes_whatever_its_own_sharpe_ratio():
    falling = backtest(sometimes, sample(6000, drift=-.003))
    assert report.sharpe_of(falling).value < 0 < report.edge_of(falling).value
    assert report.answer(falling, PASSED, trials=1).startswith('Yes: ')


def test_the_sharpe_ratio_of_the_difference_has_the_sign_of_the_growth():
    for seed in range(5):
        done = backtest('sma_cross', sample(seed=seed))
        gap = report.growth_gap(done.equity, plots.holding(done), 8760)
        assert np.sign(gap.value) == np.sign(report.edge_of(done).value)


@pytest.mark.parametrize('until, learnt', [(None, False), ('2021-06-01', False), ('2022-01-01T00:00:00+00:00', False), ('2022-01-15T06:00Z', True)])
def test_a_model_examined_on_its_own_lessons_gets_no_answer(until, learnt):
    done = replace(backtest(always, sample()), feeds=dict(forecast=Feed('forecast', 'model', 'm', 'f00', None, until)))
    assert report.answer(done, PASSED, trials=1).startswith('No answer') == learnt
    assert ('Examined on bars its model had learnt from' in report.strategy_table(done)) == learnt
    found = report.result(done, SimpleNamespace(passed=True, json=dict), trials=1)
    assert found['seen_by_models'] == (until if learnt else None)
    if learnt: assert found['answer'].endswith('had learnt from (until 2022-01-15T06:00Z); start the report there.')


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits = np.random.default_rng(4), 0
    for _ in range(100):
        equity = pd.Series(np.exp(rng.normal(.0005, .01, 1000).cumsum()))
        found = report.sharpe_estimate(equity, 365)
        truth = np.expm1(.0005 + .01**2 / 2) / .01 * 365**.5
        hits += found.low <= truth <= found.high
    assert 88 <= hits <= 99


def test_luck_grows_with_trials_and_is_nothing_for_one():
    assert report.luck(1, 1.) == 0 and report.luck(10, 1.) < report.luck(1000, 1.) < 4


def test_text_in_tables_cannot_become_markup():
    assert '<script>' not in report.table(pd.DataFrame(dict(a=['<script>']))) + report.words('<script>')


def test_months_are_calendar_months_in_utc():
    index = pd.DatetimeIndex(['2024-01-31T23:00Z', '2024-02-01T00:00Z', '2024-03-01T00:00Z'], name='time')
    table = plots.monthly_returns(pd.Series([100., 110., 99.], index))
    assert table.loc[2024, [1, 2, 3, 'year']].round(10).tolist() == [0., .1, -.1, -.01]


def test_every_strategy_of_the_book_has_a_neighbourhood_or_none(tmp_path):
    data, ledger = sample(1200), Ledger(tmp_path)
    for each in catalogue():
        if each.needs or each.several: continue
        done = backtest(each, data, ledger=ledger)
        near = variations.neighbourhood(done, ledger)
        figure = variations.neighbourhood_figure(done, near)
        assert (figure is None) == (near.empty)
        assert ledger.count(each.name) == max(near.total_return.notna().sum(), 1)


def test_a_strategy_with_one_unbounded_number_gets_a_line_and_one_without_numbers_nothing():
    done = backtest(one_knob, sample())
    near = variations.neighbourhood(done)
    assert near.level.tolist() == [-3, -2, -1, 0, 1, 2, 3]
    assert [t.name for t in variations.neighbourhood_figure(done, near).data] == ['strategy', 'chosen']
    plain = backtest(always, sample())
    assert variations.neighbourhood_figure(plain, variations.neighbourhood(plain)) is None


def test_every_value_a_control_can_reach_is_one_the_strategy_accepts():
    for each in [*catalogue(), describe(one_knob)]:
        for name, knob in widgets.parameter_widgets(each).items():
            for end in ('min', 'max', 'value'):
                if hasattr(knob, end): each.parameters[name].check(getattr(knob, end))


def test_an_explorer_says_what_is_wrong_in_one_line_and_keeps_the_last_picture(tmp_path):
    from trading_lib.market.store import Store
    explorer = widgets.Explorer(widgets.sources(Store(tmp_path / 'store'), {'COIN/USDT': sample()}), Ledger(tmp_path / 'ledger'))
    first = explorer.done
    explorer.data.value, explorer.path.value = widgets.OWN_FILE, str(tmp_path / 'missing.parquet')
    assert 'missing.parquet' in explorer.message.value and explorer.done is first
    explorer.strategy.value, explorer.own.value = widgets.OWN_STRATEGY, 'nowhere.py:mine'
    assert 'nowhere.py' in explorer.message.value
    explorer.strategy.value, explorer.data.value = 'donchian_breakout', 'synthetic COIN/USDT'
    assert explorer.message.value == '' and explorer.done.strategy.name == 'donchian_breakout'
    assert explorer.done.equity.equals(backtest('donchian_breakout', sample()).equity)


def test_an_explorer_offers_only_what_it_can_run(tmp_path):
    from trading_lib.market.store import Store
    offered = widgets.sources(Store(tmp_path / 'store'), {'COIN/USDT': sample()})
    mine = widgets.Explorer(offered, Ledger(tmp_path / 'ledger'), Costs(fee_bps=80))
    assert mine.fee.value == 80 == mine.done.costs.fee_bps
    for name in mine.strategy.options[:-1]:
        mine.strategy.value = name
        assert mine.message.value == '' and mine.done.strategy.name == name


def test_whoever_opens_a_shared_page_cannot_name_a_file(tmp_path):
    from traitlets import TraitError

    from trading_lib.market.store import Store
    program, read = tmp_path / 'mine.py', []
    program.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    offered = widgets.sources(Store(tmp_path / 'store'), {'COIN/USDT': sample()})
    offered[widgets.OWN_FILE] = lambda path, allow_gaps: read.append(path)
    shared = widgets.Explorer(offered, Ledger(tmp_path / 'ledger'), own_files=False)
    shared.own.value, shared.path.value = f'{program}:mine', str(program)
    for choice, value in ((shared.strategy, widgets.OWN_STRATEGY), (shared.data, widgets.OWN_FILE)):
        with pytest.raises(TraitError): choice.value = value
    assert not (tmp_path / 'ran').exists() and not read


def test_an_explorer_counts_what_was_looked_at_once(tmp_path):
    from trading_lib.market.store import Store
    ledger = Ledger(tmp_path / 'ledger')
    explorer = widgets.Explorer(widgets.sources(Store(tmp_path / 'store'), {'COIN/USDT': sample()}), ledger)
    for fast in (12, 14, 12): explorer.knobs['fast'].value = fast
    assert len(explorer.seen) == ledger.count('sma_cross') == 3
    assert '3 trials on this page' in explorer.count.value


def test_again_refuses_what_the_strategy_refuses():
    with pytest.raises(BadInput, match='fast must be the smaller'): variations.again(backtest(find('sma_cross'), sample()), dict(fast=80))
