"Evolved rules: every sentence is causal, a run that was killed becomes what it would have been, and the winner is not believed."
import inspect
import json
import multiprocessing
import os
import re
import signal
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pandas as pd
import pytest

from trading_lib.backtest.evolution import World, as_tree, climb, evolve, family, measure
from trading_lib.backtest.grammar import NUMBERS, RULES, Grammar, Meaning, parts, put, said, source, tidy, words_in
from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.measure import Prepared
from trading_lib.backtest.run import backtest
from trading_lib.backtest.search import search
from trading_lib.core.errors import BadInput, Damaged
from trading_lib.evidence.causality import find_peeking
from trading_lib.execution.costs import Costs
from trading_lib.market.bars import Sample
from trading_lib.market.synthetic import synthetic_market
from trading_lib.strategies.contract import find

FREE = Costs(0, 0)


@pytest.fixture(scope='module')
def sample():
    made = synthetic_market(seed=11, bars=1200, symbols=('BTC/USDT',)).samples['BTC/USDT']
    evolve(made, 0, 10)   # so that processes that are killed need not compile first
    return made


@pytest.fixture(scope='module')
def bars(sample): return sample.bars.assign(sentiment=np.random.default_rng(2).normal(0, .2, len(sample.bars)))


def many(count: int, seed: int = 0, **how) -> list[tuple]:
    "Sentences by chance, some of them changed and crossed."
    grammar, rng, found = Grammar(['sentiment'], **how), np.random.default_rng(seed), []
    while len(found) < count:
        one, other = grammar.sentence(rng), grammar.sentence(rng)
        found += [tree for tree in (one, grammar.mutate(one, rng)[1], grammar.cross(one, other, rng)) if tree]
    return found[:count]


def kinds_fit(tree: tuple) -> bool:
    rule = RULES[tree[0]]
    return len(tree) == 1 + len(rule.takes) and all(
        RULES[thing[0]].gives == kind and kinds_fit(thing) if isinstance(thing, tuple) else NUMBERS[kind].low <= thing <= NUMBERS[kind].high
        for kind, thing in zip(rule.takes, tree[1:], strict=True))


def test_every_sentence_is_an_exposure_whatever_was_done_to_it(bars):
    meaning, words = Meaning(bars), set()
    for tree in many(400):
        assert kinds_fit(tree) and RULES[tree[0]].gives == 'exposure' and words_in(tree) <= 30
        values = meaning(tree)
        assert values.dtype == float and values.shape == (len(bars),) and np.abs(values).max() <= 1
        words |= {part[0] for _, _, part in parts(tree)}
    assert words == set(RULES)
    assert min(meaning(tree).min() for tree in many(60, shorts=False)) >= 0
    assert 'sentiment' not in Grammar().giving and 'felt' not in Grammar().giving


def test_the_tidy_form_means_the_same(bars):
    meaning, grammar, rng = Meaning(bars), Grammar(['sentiment']), np.random.default_rng(1)
    a, b, c = ('moved_over', ('roc', 5), .01), ('above', ('close',), ('sma', 8)), ('strength_under', ('rsi', 5), 40.)
    twice = ('long', ('during', ('both_true', ('both_true', c, a), ('untrue', ('untrue', ('both_true', b, a))))))
    assert tidy(twice) == tidy(('long', ('during', ('both_true', a, ('both_true', b, c))))) and words_in(tidy(twice)) == 11
    for tree in [twice, *(grammar.grow(rng) for _ in range(100))]: np.testing.assert_array_equal(meaning(tree), meaning(tidy(tree)))


def test_the_future_does_not_move_what_a_sentence_said(bars):
    whole, cuts = Meaning(bars), {cut: Meaning(bars[:cut]) for cut in (2, 150, 611, 1199)}
    for tree in many(150, seed=3):
        for cut, past in cuts.items(): np.testing.assert_array_equal(past(tree), whole(tree)[:cut], err_msg=said(tree))


def test_no_experiment_finds_a_sentence_peeking(bars):
    for tree in many(2, seed=8):
        assert find_peeking(lambda some, tree=tree: pd.Series(Meaning(some)(tree), some.index), bars[-500:]).findings == (), said(tree)


def test_what_was_remembered_is_what_would_be_computed_and_memory_is_bounded(bars):
    small, fresh = Meaning(bars, room=20 * len(bars) * 8), [Meaning(bars)(tree) for tree in many(30)]
    for _ in range(2):
        for tree, expected in zip(many(30), fresh, strict=True): np.testing.assert_array_equal(small(tree), expected)
    held = sum(values.nbytes for values in small.known.values())
    assert held <= 20 * len(bars) * 8 == small.room + held


def test_a_sentence_as_a_file_is_an_ordinary_strategy_with_the_same_exposures(bars, tmp_path):
    meaning = Meaning(bars)
    for number, tree in enumerate(many(40, seed=5)):
        path = tmp_path / f's{number}.py'
        path.write_text(source(tree, f'evolved_{number}'))
        found = find(f'{path}:evolved_{number}')
        np.testing.assert_array_equal(found.exposures(bars).to_numpy(), meaning(tree) + 0.)
        numbers = [thing for _, _, part in parts(tree) for thing in part[1:] if not isinstance(thing, tuple)]
        assert sorted(knob.default for knob in found.parameters.values()) == sorted(numbers)
        assert all(knob.low <= knob.check(knob.default) <= knob.high for knob in found.parameters.values())
        assert found.needs == (('sentiment',) if 'sentiment' in said(tree) else ())


def test_the_written_winner_is_backtested_searched_and_verified_like_any_other(sample, tmp_path):
    ledger = Ledger(tmp_path / 'trials')
    found = evolve(sample, 3, 20, costs=Costs(5, 0), ledger=ledger, name='evolved_here')
    spec = found.write(tmp_path / 'evolved.py')
    one = backtest(find(spec), sample, costs=Costs(5, 0), ledger=ledger)
    np.testing.assert_array_equal(one.target.to_numpy(), found.world.meaning(found.famous[0].tree) + 0.)
    assert found.trials == len(found.everyone) == 20 + 3 * 19 and one.trials == found.trials + 1
    rows = ledger.trials()
    assert (rows.kind == 'evolution').sum() == found.trials and set(rows.strategy) == {'evolved_here'}
    kept = Prepared(find(spec), sample, Costs(5, 0))
    row = found.hall.iloc[0]
    assert kept.metrics(kept.target({}), start=900)['sharpe'] == pytest.approx(row.out_of_sample, nan_ok=True)
    folds = [kept.metrics(kept.target({}), start=start, end=start + 225)['sharpe'] or 0. for start in (0, 225, 450, 675)]
    assert np.mean(folds) == pytest.approx(row.training)
    if find(spec).parameters: assert len(search(spec, sample, 4).table) == 4
    assert f'{len(found.everyone)} were tried' in find(spec).doc


def same(found, expected):
    assert found.lives == expected.lives
    assert [asdict(one) for one in found.everyone] == [asdict(one) for one in expected.everyone]
    pd.testing.assert_frame_equal(found.hall, expected.hall, check_exact=True)
    pd.testing.assert_frame_equal(found.history, expected.history, check_exact=True)


@pytest.mark.parametrize('kill', [signal.SIGKILL, signal.SIGINT], ids=['kill -9', 'Ctrl-C'])
def test_a_killed_evolution_goes_on_and_becomes_what_it_would_have_been(sample, tmp_path, kill):
    call = dict(sample=sample, generations=6, population=20, costs=FREE, seed=4)
    def slowly(**others):
        evolve(**call | others, storage=tmp_path, progress=lambda done, total: sleep(.05))
    generations = lambda: len(list(tmp_path.glob('*/[0-9]*.json')))
    for count in (1, 4):
        victim = multiprocessing.get_context('fork').Process(target=slowly)
        victim.start()
        end = monotonic() + 30
        while generations() < count and monotonic() < end: sleep(.002)
        os.kill(victim.pid, kill)
        victim.join()
        assert victim.exitcode and count <= generations() < 7
    found, whole = evolve(**call, storage=tmp_path), evolve(**call)
    same(found, whole)
    same(evolve(**call | dict(generations=3), storage=tmp_path), evolve(**call | dict(generations=3)))
    assert evolve(**call | dict(seed=5)).everyone[0].tree != whole.everyone[0].tree


def test_no_sentence_is_tried_twice_and_no_behaviour_is_measured_twice(sample, tmp_path, monkeypatch):
    asked = []
    real = Prepared.metrics
    monkeypatch.setattr(Prepared, 'metrics', lambda self, *args, **kwargs: (asked.append(kwargs), real(self, *args, **kwargs))[1])
    found = evolve(sample, 5, 30, costs=FREE, storage=tmp_path, folds=3)
    assert len({one.tree for one in found.everyone}) == len(found.everyone) == 30 + 5 * 29
    doings = {one.behaviour for one in found.everyone}
    assert len(asked) == 4 * len(doings) < 4 * len(found.everyone)
    before = len(asked)
    evolve(sample, 5, 30, costs=FREE, storage=tmp_path, folds=3)
    assert len(asked) == before


def test_an_interrupted_generation_is_counted_too(sample, tmp_path, monkeypatch):
    ledger, made = Ledger(tmp_path), []
    def tired(world, tree):
        made.append(tree)
        if len(made) == 33: raise KeyboardInterrupt
        return real(world, tree)
    import trading_lib.backtest.evolution as module
    real = module.measure
    monkeypatch.setattr(module, '_rules', lambda: 'the same')
    monkeypatch.setattr(module, 'measure', tired)
    with pytest.raises(KeyboardInterrupt): evolve(sample, 5, 20, ledger=ledger, name='tired')
    assert ledger.count('tired') == 32


def test_training_does_not_see_what_was_kept(sample):
    other = sample.bars.copy()
    other.iloc[900:] = other.iloc[900:].to_numpy() * 3
    changed = Sample(other, sample.symbol, sample.timeframe, sample.source)
    one, two = (evolve(each, 4, 20, costs=FREE, name='x') for each in (sample, changed))
    assert [(each.tree, each.told) for each in one.everyone] == [(each.tree, each.told) for each in two.everyone]
    assert list(one.hall.rule) == list(two.hall.rule) and not one.hall.out_of_sample.equals(two.hall.out_of_sample)


def test_the_hall_of_fame_has_the_best_that_do_different_things(sample):
    found = evolve(sample, 4, 30, costs=FREE)
    doing = [found.world.meaning(one.tree)[:900] for one in found.famous]
    assert all(np.abs(a - b).mean() > .02 for k, a in enumerate(doing) for b in doing[:k])
    assert found.hall.number[0] == max(found.everyone, key=lambda one: (one.value - found.world.about['parsimony'] * one.words *
                                       np.std([each.value for each in found.everyone if each.born == 0]), -one.number)).number
    assert len(found.hall) <= 10 and json.dumps(found.summary(), allow_nan=False)
    assert climb(found).get_ylabel() == 'sharpe' and family(found).get_xlabel() == 'generation'


def test_a_lineage_leads_back_to_sentences_made_by_chance(sample):
    found = evolve(sample, 8, 20, costs=FREE, seed=1)
    for one in found.everyone:
        assert len(one.parents) == (0 if one.how == 'random' else 2 if one.how == 'cross' else 1)
        assert all(found.everyone[number].born < one.born and number in found.lives[one.born - 1] for number in one.parents)
    tree = found.lineage()
    assert tree.index[0] == found.famous[0].number and tree.how.iloc[-1] == 'random'
    assert list(tree.index) == sorted(tree.index, reverse=True)
    assert {number for row in tree.parents for number in row} == set(tree.index[1:])


def test_the_news_is_used_where_it_helps(tmp_path):
    rng = np.random.default_rng(5)
    mood, n = rng.normal(0, .2, 1500), 1500
    moves = rng.normal(0, .01, n) + .01 * np.r_[0., np.sign(mood[:-1]) * (np.abs(mood[:-1]) > .1)]
    close = 100 * np.exp(moves.cumsum())
    opened = np.r_[100., close[:-1]]
    index = pd.date_range('2024', periods=n, freq='h', tz='UTC', name='time').as_unit('ns')
    table = dict(open=opened, high=np.maximum(opened, close), low=np.minimum(opened, close), close=close, volume=1., sentiment=mood)
    told = Sample(pd.DataFrame(table, index), 'NEWS', '1h', 'made up')
    found = evolve(told, 4, 40, costs=FREE)
    assert 'sentiment' in found.hall.rule[0] and found.hall.out_of_sample[0] > 5
    written = backtest(find(found.write(tmp_path / 'e.py')), told, costs=FREE)
    np.testing.assert_array_equal(written.target.to_numpy(), found.world.meaning(found.famous[0].tree) + 0.)


def planted(seed: int, bars: int) -> Sample:
    "A random walk that rises after a low price on high volume, and falls after a high price on high volume."
    rng = np.random.default_rng(seed)
    noise, volume, close = rng.normal(0, .01, bars), rng.lognormal(0, .4, bars), np.full(bars, 100.)
    usual = pd.Series(volume).rolling(21)
    busy = (volume - usual.mean() > .5 * usual.std()).to_numpy()
    for t in range(35, bars):
        past = close[t - 34:t]
        away = (past[-1] - past.mean()) / max(past.std(), 1e-9)
        close[t] = close[t - 1] * np.exp(noise[t] - .01 * np.sign(away) * (abs(away) > 1) * busy[t - 1])
    opened = np.r_[100., close[:-1]]
    index = pd.date_range('2024', periods=bars, freq='h', tz='UTC', name='time').as_unit('ns')
    table = dict(open=opened, high=np.maximum(opened, close), low=np.minimum(opened, close), close=close, volume=volume)
    return Sample(pd.DataFrame(table, index), 'PLANTED', '1h', 'made up', synthetic=True)


def test_evolution_beats_random_search_at_as_many_evaluations():
    later = World(planted(999, 8000), folds=1, holdout=.01, costs=FREE)
    worth = lambda one: later.prepared.metrics(later.meaning(one.tree))['sharpe'] or 0.
    training, unseen = [], []
    for seed in range(5):
        market = planted(seed, 2000)
        evolved = evolve(market, 12, 60, folds=3, costs=FREE, seed=seed)
        random = evolve(market, 0, len(evolved.everyone), folds=3, costs=FREE, seed=1000 + seed)
        assert len(random.everyone) == len(evolved.everyone) == 60 + 12 * 57
        best, lucky = evolved.famous[0], random.famous[0]
        training.append(best.value - lucky.value)
        unseen.append(worth(best) - worth(lucky))
    t = lambda differences: np.mean(differences) / np.std(differences, ddof=1) * len(differences)**.5
    assert min(t(training), t(unseen)) > 2.13   # one-sided p below 0.05 with four degrees of freedom


@pytest.mark.parametrize(('call', 'says'), [
    (dict(population=5), 'population 5'), (dict(population=10**9), 'from 10 to 100,000'), (dict(generations=-1), 'generations was -1'), (dict(holdout=0), 'holdout was 0'),
    (dict(holdout=1.2), 'holdout was 1.2'), (dict(name='class'), "name was 'class'"),
    (dict(folds=0), 'folds was 0'), (dict(folds=40), 'folds was 40 on 900 bars'), (dict(objective='shrape'), 'did you mean sharpe?'),
    (dict(name='a b'), "name was 'a b'"), (dict(seed=-1), 'seed -1'), (dict(parsimony=-1), 'parsimony was -1'), (dict(cash=0), 'cash was 0'),
])
def test_bad_questions_are_one_line(sample, call, says):
    with pytest.raises(BadInput) as caught: evolve(**dict(sample=sample, generations=0, population=10) | call)
    assert says in str(caught.value) and '\n' not in str(caught.value)


def test_another_evolution_is_kept_out_and_so_is_another_process(sample, tmp_path):
    call = dict(sample=sample, generations=1, population=10, storage=tmp_path, name='mine')
    evolve(**call)
    for changed, what in ((dict(costs=Costs(3)), 'costs'), (dict(seed=2), 'seed'), (dict(population=12), 'population'),
                          (dict(shorts=False), 'shorts'),
                          (dict(sample=Sample(sample.bars[:-1], sample.symbol, sample.timeframe, sample.source)), 'fingerprint')):
        with pytest.raises(BadInput, match=f'evolution mine was begun with other .*{what}'): evolve(**call | changed)
    def nested(done, total):
        with pytest.raises(BadInput, match='another process is evolving there'): evolve(**call)
    assert len(evolve(**call | dict(generations=3), progress=nested).lives) == 4
    file = sorted((tmp_path / 'mine').glob('0*.json'))[1]
    file.write_text('{"born": [')
    with pytest.raises(Damaged, match='0001.json is not what was written'): evolve(**call)
    (tmp_path / 'file').write_text('')
    with pytest.raises(BadInput, match='cannot be kept there'): evolve(**call | dict(storage=tmp_path / 'file'))


def test_the_words_are_those_of_the_indicators():
    assert put(('long', ('during', ('above', ('close',), ('sma', 8)))), (1, 1, 2, 1), 21)[1][1][2] == ('sma', 21)
    import trading_lib.signals as signals
    called = {name for rule in RULES.values() for name in re.findall(r'(?<!\.)\b(\w+)\(', rule.text)}
    assert called <= set(signals.__all__) and all(inspect.isfunction(getattr(signals, name)) for name in called)
    assert Path(inspect.getfile(signals.sma)).name == 'indicators.py'


@pytest.mark.parametrize('objective', ['calmar', 'sortino', 'profit_factor'])
def test_a_sentence_that_never_loses_is_worth_the_most(objective):
    close = 100 * 1.001**np.arange(800)
    index = pd.date_range('2024', periods=800, freq='h', tz='UTC', name='time')
    bars = pd.DataFrame(dict(open=np.r_[100., close[:-1]], high=close, low=np.r_[100., close[:-1]], close=close, volume=1.), index)
    world = World(Sample(bars, 'X', '1h', 'made up', synthetic=True), objective, costs=Costs(0), population=10, shorts=False, parsimony=0., novelty=0., seed=0)
    told, _ = measure(world, as_tree(['long', ['during', ['above', ['close'], ['sma', 21]]]]))
    assert told['folds'] == [10.] * 4
