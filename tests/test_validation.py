"Nothing is tested on what it was chosen on: not by a bar, not through an average, not through a trade. And noise keeps no promises."
import json
from dataclasses import replace
from typing import Annotated

import numpy as np
import pandas as pd
import pytest
from annotated_types import Interval

from trading_lib.backtest.examination import neighbourhood, validate
from trading_lib.backtest.kernel import simulate
from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.measure import Prepared
from trading_lib.backtest.run import backtest
from trading_lib.backtest.validation import _closed, cross_validate, memory, walk_forward, windows
from trading_lib.core.errors import BadInput
from trading_lib.core.metrics import sharpe
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample, together
from trading_lib.market.store import read_file
from trading_lib.market.synthetic import synthetic_market
from trading_lib.risk.stops import Stops
from trading_lib.signals.indicators import sma
from trading_lib.strategies.contract import describe, strategy
from trading_lib.strategies.trend import donchian_breakout, sma_cross

PAIRS = dict(fast='5:15:5', slow='20:60:20')


@pytest.fixture(scope='module')
def market(): return synthetic_market(seed=11, bars=3000)


@pytest.fixture(scope='module')
def sample(market): return market.samples['BTC/USDT']


@strategy
def tilt(bars, window: Annotated[int, Interval(ge=2, le=100)] = 20, way: Annotated[int, Interval(ge=-1, le=1)] = 1):
    "As much as the price is above its average, one way or the other."
    return (way * np.tanh(20 * (bars.close / sma(bars.close, window) - 1))).round(1)


@strategy
def coin(bars, seed: Annotated[int, Interval(ge=0, le=999)] = 0):
    "Luck alone."
    return np.random.default_rng(seed).choice([-1., 1.], len(bars) // 20 + 1).repeat(20)[:len(bars)]


def noise(seed, n=2000, drift=0.):
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(drift, .01, n)))
    open_ = np.r_[100., close[:-1]]
    index = pd.date_range('2024', periods=n, freq='h', tz='UTC', name='time')
    bars = pd.DataFrame(dict(open=open_, high=np.maximum(open_, close), low=np.minimum(open_, close), close=close, volume=1.), index)
    return Sample(bars, 'X', '1h', 'noise', synthetic=True)


@pytest.mark.parametrize('anchored', [True, False])
def test_windows_are_those_of_skfolio(anchored):
    from skfolio.model_selection import WalkForward
    for bars, folds in ((3000, 6), (997, 4), (500, 2)):
        ours = windows(bars, folds, anchored)
        train, test = ours[0][1], ours[0][2] - ours[0][1]
        theirs = list(WalkForward(test_size=test, train_size=train, expand_train=anchored).split(np.empty((bars, 1))))
        assert ours == [(each[0], tests[0], tests[-1] + 1) for each, tests in theirs[:folds]] and train + folds * test == bars
    assert windows(1000, 3, anchored, train=400, test=100)[0] == (0, 400, 500) and windows(1000, 3, anchored, test=100)[-1][2] == 1000


def test_what_happens_after_a_test_changes_nothing_before_its_end(sample):
    cut = replace(sample, bars=sample.bars[:2000])
    whole, part = (walk_forward(tilt, each, dict(window='10:40:10', way='-1,1'), folds=folds, train=1000, test=250)
                   for each, folds in ((sample, 8), (cut, 4)))
    assert part.folds.equals(whole.folds[:4]) and part.equity.equals(whole.equity[:1000])


def test_a_set_is_chosen_for_what_it_made_before_the_test(sample):
    walked = walk_forward(sma_cross, sample, PAIRS, choose='best', costs=Costs(5, 1))
    for k, (_, start, _end) in enumerate(windows(3000)):
        made = {(fast, slow): backtest(sma_cross, replace(sample, bars=sample.bars[:start]), dict(fast=fast, slow=slow), Costs(5, 1)).metrics['sharpe']
                for fast in (5, 10, 15) for slow in (20, 40, 60)}
        best = max(made, key=made.get)
        assert walked.folds.in_sample[k] == pytest.approx(made[best], rel=1e-9) and (walked.folds.fast[k], walked.folds.slow[k]) == best


def test_the_account_is_flat_between_tests_and_its_numbers_are_those_of_its_equity(sample):
    walked = walk_forward(tilt, sample, dict(window='10:40:10', way='1'), costs=Costs(10, 5), cash=5000.)
    prepared, cash, fees = Prepared(tilt, sample, Costs(10, 5)), 5000., 0.
    for params, (_, start, end) in zip(walked.choices, windows(3000), strict=True):
        bars = sample.bars[start:end]
        run = simulate(bars, pd.Series(_closed(prepared.target(params), start, end)[start:end], bars.index), Costs(10, 5), cash)
        assert run.position.iloc[[0, -1]].eq(0).all() and run.equity.equals(walked.equity[bars.index])
        cash, fees = run.equity.iloc[-1], fees + run.fills.fee.sum()
    assert walked.metrics['final_equity'] == cash and walked.metrics['fees_paid'] == pytest.approx(fees)
    assert walked.metrics['sharpe'] == sharpe(walked.equity, 8760) == walked.out_of_sample
    assert walked.efficiency == pytest.approx(walked.out_of_sample / walked.in_sample) if walked.in_sample > 0 else walked.efficiency is None
    assert walked.interval[0] < walked.metrics['sharpe'] < walked.interval[1]


def test_what_was_planted_is_kept_and_noise_is_not():
    @strategy
    def always(bars, way: Annotated[int, Interval(ge=-1, le=1)] = 0): return np.full(len(bars), float(way))
    rising = walk_forward(always, noise(0, drift=.001), dict(way='-1,0,1'), choose='best', costs=Costs(0))
    assert (rising.folds.way == 1).all() and rising.efficiency == pytest.approx(1, abs=.5)
    lucky = [walk_forward(coin, noise(seed), dict(seed='0:24:1'), choose='best', costs=Costs(0)) for seed in range(12)]
    promised, kept = np.transpose([(each.in_sample, each.out_of_sample) for each in lucky])
    assert promised.min() > 1 and abs(kept.mean()) < 4 * kept.std(ddof=1) / 12**.5 and kept.mean() < promised.mean() / 2


def test_cross_validation_tells_noise_from_what_was_planted():
    lucky = [cross_validate(coin, noise(seed, 1000), dict(seed='0:24:1'), folds=6, test_folds=2, purge=20, choose='best', costs=Costs(0)) for seed in range(10)]
    middles = np.array([each.interval.middle for each in lucky])
    assert min(each.choices.in_sample.mean() for each in lucky) > 1 and abs(middles.mean()) < 4 * middles.std(ddof=1) / 10**.5 + .5
    assert np.mean([each.choices.in_sample.mean() for each in lucky]) > middles.mean() + 2


def test_no_training_row_is_within_purge_and_embargo_of_a_test_row(sample):
    crossed = cross_validate(sma_cross, sample, PAIRS, folds=8, test_folds=3, purge=31, embargo=17)
    assert len(crossed.splits) == 56 and len(crossed.paths) == 21
    for split in crossed.splits:
        tested = np.zeros(3000, bool)
        tested[split.test] = True
        for row in split.train:
            assert not tested[max(row - 31 - 17, 0):row + 1].any() and not tested[row:row + 31 + 1].any()


def test_overlapping_labels_never_train():
    "What is changed inside a test moves no judgement on its training, although averages and trades would reach over the border."
    sample, fold = noise(3, 1500), 1500 // 7
    inside = slice(4 * fold + 100, 6 * fold)   # up to the last bar of the second of two folds that are tested together
    bump, length = np.zeros(1500), 2 * fold - 100
    bump[inside] = np.cumsum(np.random.default_rng(4).normal(0, .02, length))
    bump[inside] -= np.linspace(0, bump[6 * fold - 1], length)
    bars = sample.bars.assign(open=sample.bars.open * np.exp(np.r_[0, bump[:-1]]), close=sample.bars.close * np.exp(bump))
    bars = bars.assign(high=bars[['open', 'close']].max(axis=1), low=bars[['open', 'close']].min(axis=1))
    how = dict(ranges=dict(window='10:40:10', way='-1,1'), folds=7, test_folds=2, embargo=0, choose='best', costs=Costs(3))
    one, other, near, far = (cross_validate(tilt, each, **how | purge) for purge in (dict(), dict(purge=0)) for each in (sample, replace(sample, bars=bars)))
    assert one.purge == other.purge == 39 and near.purge == 0
    both = [k for k, split in enumerate(one.splits) if {4, 5} <= set(split.test // fold)]
    assert len(both) == 1 and one.choices.out_of_sample[both[0]] != other.choices.out_of_sample[both[0]]
    assert one.choices.in_sample[both[0]] == pytest.approx(other.choices.in_sample[both[0]], rel=1e-12)
    assert near.choices.in_sample[both[0]] != pytest.approx(far.choices.in_sample[both[0]], rel=1e-6)   # without a purge it leaks


def test_trainings_tests_and_paths_are_put_together_from_folds_traded_flat_to_flat(sample):
    sample = replace(sample, bars=sample.bars[:1003])
    crossed = cross_validate(tilt, sample, dict(window='10:40:10', way='1'), folds=5, test_folds=2, purge=40, embargo=5, choose='best', costs=Costs(8, 2))
    prepared = Prepared(tilt, sample, Costs(8, 2))
    edges = [(k * 200, (k + 1) * 200 if k < 4 else 1003) for k in range(5)]

    def changes(window):
        target, found = prepared.target(dict(window=window, way=1)), np.zeros(1003)
        for start, end in edges:
            bars = sample.bars[start:end]
            run = simulate(bars, pd.Series(_closed(target, start, end)[start:end], bars.index), Costs(8, 2))
            assert run.position.iloc[-1] == 0
            found[start:end] = run.equity.pct_change().fillna(0)
        return found

    rate = lambda values: values.mean() / values.std(ddof=1) * 8760**.5
    made = {window: changes(window) for window in (10, 20, 30, 40)}
    for split, choice in zip(crossed.splits, crossed.choices.itertuples(), strict=True):
        assert choice.in_sample == pytest.approx(max(rate(each[split.train]) for each in made.values()), rel=1e-9)
        assert choice.in_sample == pytest.approx(rate(made[choice.window][split.train]), rel=1e-9)
        assert choice.out_of_sample == pytest.approx(rate(made[choice.window][np.sort(split.test)]), rel=1e-9)
    from itertools import combinations
    chosen, taken, paths = dict(zip(combinations(range(5), 2), crossed.choices.window, strict=True)), dict.fromkeys(range(5), 0), np.zeros((4, 1003))
    for folds, window in chosen.items():
        for fold in folds:
            paths[taken[fold], slice(*edges[fold])] = made[window][slice(*edges[fold])]
            taken[fold] += 1
    assert sorted(crossed.paths.sharpe) == pytest.approx(sorted(map(rate, paths)), rel=1e-9)
    assert sorted(crossed.paths.total_return) == pytest.approx(sorted(np.prod(1 + paths, axis=1) - 1), rel=1e-9)


def test_sortino_is_judged_by_losses(sample):
    crossed = cross_validate(sma_cross, sample, PAIRS, folds=5, test_folds=2, purge=60, by='sortino')
    assert list(crossed.paths.columns) == ['sortino', 'total_return', 'max_drawdown'] and crossed.sentence.count('sortino') + crossed.sentence.count('Sortino')


def test_a_strategy_remembers_as_long_as_its_window(sample):
    assert memory(Prepared(sma_cross, sample), [dict(fast=5, slow=slow) for slow in (10, 90, 40)]) == 89
    assert memory(Prepared(sma_cross, sample), [dict(fast=50, slow=40)]) == 0
    assert 0 < memory(Prepared(donchian_breakout, sample), [dict(entry=40, exit=20)]) < 1000


def test_everything_judged_is_counted_and_so_is_what_an_interrupt_left(sample, tmp_path):
    ledger = Ledger(tmp_path / 'one')
    walked = walk_forward(sma_cross, sample, dict(fast='5,30', slow='20:60:20'), ledger=ledger)
    trials = ledger.trials()
    assert walked.trials == len(trials) == 6 * 6 + 6 and set(trials.kind) == {'validation'}
    assert trials.groupby('bars').size().to_dict() == {375: 6, 750: 6, 1125: 6, 1500: 6, 1875: 6, 2250: 6, 2625: 6}
    crossed = cross_validate(sma_cross, sample, dict(fast='5,30', slow='20:60:20'), folds=5, test_folds=2, purge=60, ledger=ledger)
    assert crossed.trials == 42 + 5 * 6
    assert walk_forward(sma_cross, sample, dict(fast='5,30', slow='20:60:20'), ledger=ledger).trials == crossed.trials
    other = Ledger(tmp_path / 'two')
    def impatient(done, total): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): walk_forward(coin, sample, dict(seed='0:79:1'), ledger=other, progress=impatient)
    assert other.count('coin') == 32 * 6


def test_shorts_stops_and_several_symbols_walk_and_cross(market):
    sample = together([market.samples[name] for name in ('BTC/USDT', 'ETH/USDT')])
    walked = walk_forward(tilt, sample, dict(window='10:40:15', way='-1,1'), stops=Stops(stop_loss=.02), costs=Costs(5, 2))
    assert len(walked.equity) == 6 * 375 and walked.held.iloc[0] == 10_000
    crossed = cross_validate(tilt, sample, dict(window='10:40:15', way='-1,1'), folds=5, test_folds=2, stops=Stops(trailing_stop=.03))
    assert crossed.paths.notna().all(axis=None)
    for part in (walked, crossed): json.dumps(part.summary(), allow_nan=False)


def test_stops_are_chosen_like_parameters(sample):
    ranges = dict(window='10,30', way='1', stop_loss='none,0.02')
    walked = walk_forward(tilt, sample, ranges, choose='best')
    assert walked.sets == 4 and set(walked.folds.stop_loss.fillna(0)) <= {0, .02}
    row, (_, start, _end) = walked.folds.iloc[0], windows(3000)[0]
    cut = replace(sample, bars=sample.bars[:start])
    made = {(window, stop): backtest(tilt, cut, dict(window=window, way=1), stops=Stops(stop_loss=stop)).metrics['sharpe'] for window in (10, 30) for stop in (None, .02)}
    assert row.in_sample == pytest.approx(max(made.values()), rel=1e-9)
    crossed = cross_validate(tilt, sample, ranges, folds=5, test_folds=2)
    assert set(crossed.choices.stop_loss.fillna(0)) <= {0, .02} and crossed.sets == 4


def test_a_progress_bar_can_be_had(sample, capsys):
    walk_forward(sma_cross, sample, PAIRS, progress=True)
    assert 'set/s' in capsys.readouterr().err


def test_what_always_refuses_or_never_trades_is_said_so(sample):
    refused = walk_forward(sma_cross, sample, dict(fast='60,70', slow='50'))
    assert refused.interval is None and refused.efficiency is None and 'never traded' in refused.sentence
    json.dumps(refused.summary(), allow_nan=False)
    crossed = cross_validate(sma_cross, sample, dict(fast='60,70', slow='50'), folds=4, test_folds=2)
    assert (crossed.paths.total_return == 0).all()
    json.dumps(crossed.summary(), allow_nan=False)


def test_bad_questions_are_refused_with_a_remedy(sample):
    for message, how in (('at least 2', dict(folds=1)), ('do not fit', dict(folds=400)), ('do not fit', dict(train=2990)), ('did you mean sharpe', dict(by='shrape')),
                         ('did you mean region', dict(choose='regoin'))):
        with pytest.raises(BadInput, match=message): walk_forward(sma_cross, sample, PAIRS, **how)
    for message, how in (('take fewer folds', dict(folds=60, test_folds=2)), ('make 9,880 trainings', dict(folds=40)), ('purge and embargo|purge', dict(purge=700)), ('purge', dict(embargo=700, purge=1)),
                         ('test_folds', dict(test_folds=10)), ('sharpe or sortino', dict(by='total_return'))):
        with pytest.raises(BadInput, match=message): cross_validate(sma_cross, sample, PAIRS, **how)


def test_everything_at_once_is_plain_and_says_what_it_could_not_ask(sample, tmp_path):
    seen = []
    found = validate(sma_cross, sample, PAIRS, paths=100, ahead=300, ledger=Ledger(tmp_path), progress=lambda *what: seen.append(what))
    said = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert set(found.parts) <= set(said) and said['params'] == found.run.params == found.parts['walk_forward'].choices[-1]
    assert len(found.sentences) == 8 and all(done <= total for _, done, total in seen) and said['trials'] == Ledger(tmp_path).count('sma_cross')
    short = validate('bollinger_reversion', replace(sample, bars=sample.bars[:300]), paths=100, ahead=50)
    assert 'trades' in short.skipped and short.sentences['trades'].startswith('not asked') and short.run.params['window'] == 48
    with pytest.raises(BadInput, match='did you mean fast'): validate(sma_cross, sample, dict(fats='5'))
    with pytest.raises(BadInput, match='paths was 5'): validate(sma_cross, sample, PAIRS, paths=5)


@strategy
def scaled(bars, k: float = 1.): return k * np.where(bars.close > bars.open, 1., -1.)   # a neighbour above 1 is no exposure


@strategy
def brittle(bars, k: int = 20):
    if k > 20: raise ZeroDivisionError(k)
    return bars.close > sma(bars.close, k)


def test_a_neighbour_whose_answer_is_no_exposure_is_left_out_of_the_choice(sample):
    found = validate(scaled, sample, paths=100, ahead=100)
    assert not found.failed and not found.skipped and set(found.parts['walk_forward'].folds.k) <= {.8, .9, 1.}
    assert set(found.parts['stress'].tests['parameters'].table.case) == {'k=0.7', 'k=0.8', 'k=0.9'}
    assert set(found.parts['cross_validation'].choices.k.dropna()) <= {.8, .9, 1.}
    with pytest.raises(BadInput, match='scaled returned'): validate(scaled, sample, dict(k='2,3'), paths=100)


def test_a_strategy_that_raises_has_failed_and_was_not_merely_left_out(sample):
    found = validate(brittle, sample, paths=100, ahead=100)
    assert list(found.failed) == ['walk_forward', 'cross_validation', 'stress'] and not found.skipped
    assert found.failed['stress'].startswith('brittle raised ZeroDivisionError') and found.sentences['stress'].startswith('failed: brittle raised')
    assert found.summary()['failed'] == found.failed
    with pytest.raises(BadInput, match='brittle raised'): walk_forward(brittle, sample, dict(k='20,22'))


def test_what_returns_orders_is_asked_what_it_can_be_asked(sample):
    found = validate('grid', replace(sample, bars=sample.bars[:600]), paths=100, ahead=100)
    assert set(found.skipped) >= {'walk_forward', 'cross_validation', 'prices', 'stress'} and 'returns' in found.parts and not found.failed
    assert 'cannot be asked yet' in found.skipped['stress'] and 'replay_orders' not in str(found.skipped)


def test_too_few_bars_are_called_too_few(sample):
    with pytest.raises(BadInput, match='16 bars are too few for 10 folds of at least 20'):
        cross_validate(sma_cross, replace(sample, bars=sample.bars[:16]), dict(fast='5,6', slow='50'))


@pytest.mark.parametrize(('function', 'wrong', 'says'), [
    (validate, dict(ranges=[1]), r'ranges was \[1\]; give each by its name'), (validate, dict(ranges='x'), "ranges was 'x'"), (validate, dict(params=[1]), 'params was'),
    (validate, dict(params=[{}]), 'params was'), (validate, dict(folds='x'), "folds was 'x'"), (validate, dict(folds=2.5), 'folds was 2.5'),
    (validate, dict(paths='x'), "paths was 'x'"), (validate, dict(ahead='x'), "ahead was 'x'"), (validate, dict(ahead=1), 'ahead was 1'),
    (validate, dict(ahead=1_000_000), 'ahead was 1,000,000 bars; look at most 10 years'), (validate, dict(seed='a'), "seed was 'a'"),
    (validate, dict(cv_folds='x'), "cv_folds was 'x'"), (walk_forward, dict(ranges=None, folds=None), 'folds was None'), (walk_forward, dict(train='x'), "train was 'x'"),
    (walk_forward, dict(test=2.5), 'test was 2.5'), (walk_forward, dict(by=3), 'there is no metric 3'), (walk_forward, dict(choose=3), 'choose was 3'),
    (cross_validate, dict(ranges=[1]), 'ranges was'), (cross_validate, dict(folds='x'), "folds was 'x'"), (cross_validate, dict(purge='x'), "purge was 'x'"),
    (cross_validate, dict(embargo=.5), 'embargo was 0.5'), (cross_validate, dict(test_folds=2.), 'test_folds was 2.0')])
def test_what_is_no_number_and_no_name_is_one_line(sample, function, wrong, says):
    with pytest.raises(BadInput, match=says): function(sma_cross, sample, **dict(ranges=PAIRS) | wrong)


def test_a_neighbourhood_has_the_set_in_it():
    assert neighbourhood(describe(sma_cross), dict(fast=10, slow=50)) == dict(fast=[8, 9, 10, 11, 12], slow=[40, 45, 50, 55, 60])
    assert neighbourhood(describe(donchian_breakout), dict(entry=96, exit=48, shorts=False))['shorts'] == [False, True]


def test_a_walk_takes_the_best_set_whichever_way_is_better(sample):
    how = dict(by='longest_drawdown', choose='best', costs=Costs(5, 1))
    walked, (_, start, _end) = walk_forward(sma_cross, sample, PAIRS, **how), windows(3000)[0]
    cut = replace(sample, bars=sample.bars[:start])
    made = [backtest(sma_cross, cut, dict(fast=fast, slow=slow), Costs(5, 1)).metrics['longest_drawdown'] for fast in (5, 10, 15) for slow in (20, 40, 60)]
    assert walked.folds.in_sample[0] == min(made) < max(made)
    with pytest.raises(BadInput, match='there is no best benchmark_return'): walk_forward(sma_cross, sample, PAIRS, by='benchmark_return')


@pytest.mark.parametrize('by', ['turnover', 'max_drawdown', 'total_return', 'sharpe'])
def test_a_share_is_told_only_where_it_says_something(sample, by):
    for costs in (Costs(0), Costs(40)):
        walked = walk_forward(sma_cross, sample, PAIRS, by=by, costs=costs)
        shown = walked.efficiency is not None and walked.efficiency >= 0
        assert ('of it.' in walked.sentence) == shown and 'in sample and' in walked.sentence
        if by in ('turnover', 'max_drawdown'): assert walked.efficiency is None


def test_real_hours_are_walked_and_crossed(btc_hourly):
    sample = read_file(btc_hourly)
    walked = walk_forward(sma_cross, sample, dict(fast='10,30', slow='60:180:60'))
    assert len(walked.equity) == 27_952 // 8 * 6 and walked.interval[0] < walked.interval[1]
    crossed = cross_validate(sma_cross, sample, dict(fast='10,30', slow='60:180:60'))
    assert len(crossed.paths) == 36 and crossed.purge == 179 and crossed.embargo == 279
