"""The chapter's strategies: causal, inside their bounds, forgetful of where a window began, sensible on real bars."""
import numpy as np
import pandas as pd
import pytest

from trading_lib.backtest.ledger import Ledger
from trading_lib.backtest.run import backtest
from trading_lib.core.errors import BadInput
from trading_lib.evidence.causality import find_peeking
from trading_lib.execution.plan import Account, Wish
from trading_lib.market.bars import Sample, tidy, together
from trading_lib.models.training import train
from trading_lib.strategies.contract import as_exposure, catalogue, code_files, describe, find, strategy
from trading_lib.strategies.feeds import decider, load_feed, with_needs
from trading_lib.strategies.hybrid import hybrid_trend
from trading_lib.strategies.reversion import bollinger_reversion, rsi_reversion
from trading_lib.strategies.rotation import momentum_rotation
from trading_lib.strategies.trend import donchian_breakout, sma_cross

CASES = [(sma_cross, {}), (sma_cross, dict(fast=5, slow=20)), (donchian_breakout, {}), (donchian_breakout, dict(entry=20, exit=10, shorts=True)),
         (bollinger_reversion, {}), (bollinger_reversion, dict(window=20, width=1.5, shorts=True)), (rsi_reversion, {}), (hybrid_trend, {})]
every = pytest.mark.parametrize('function, params', CASES, ids=lambda v: v.__name__ if callable(v) else ' '.join(map(str, v.values())) or 'defaults')


def walk(n=3000, seed=1):
    rng = np.random.default_rng(seed)
    index = pd.date_range('2024-01-01', periods=n, freq='h', tz='UTC', name='time')
    close = pd.Series(100 * np.exp((rng.normal(0, .008, n) + .002*np.sin(np.arange(n)/90)).cumsum()), index)
    bars = pd.DataFrame(dict(open=close.shift(1, fill_value=100.)))
    bars['high'], bars['low'] = np.maximum(bars.open, close)*1.001, np.minimum(bars.open, close)*.999
    return bars.assign(close=close, volume=rng.lognormal(3, .5, n))


BARS = walk()


@pytest.fixture(scope='session')
def files(tmp_path_factory):
    "Headlines, funding and a model, as a person would have them on disk."
    folder, rng = tmp_path_factory.mktemp('feeds'), np.random.default_rng(2)
    at = BARS.index[0] + pd.to_timedelta(np.sort(rng.integers(0, 3000*3600, 200)), unit='s')
    words = ['price surges', 'exchange hacked', 'a report', 'adoption rises', 'longs liquidated in crash']
    pd.DataFrame(dict(known_at=at, symbol=rng.choice(['BTC/USDT', 'ETH/USDT'], 200), text=rng.choice(words, 200))).to_parquet(folder / 'headlines.parquet')
    pd.DataFrame(dict(known_at=at, funding=rng.normal(size=200))).to_csv(folder / 'funding.csv', index=False)
    train(Sample(BARS, 'BTC/USDT', '1h', 'test', synthetic=True), folder / 'model', before='2024-02-15')
    return folder


@pytest.fixture(scope='session')
def feeds(files):
    return dict(sentiment=load_feed('sentiment', files / 'headlines.parquet'), forecast=load_feed('forecast', files / 'model'))


def exposures(function, params, bars, feeds):
    s = describe(function)
    return s.exposures(with_needs(s, bars, feeds), params)


@every
def test_exposure_is_a_share_of_equity_on_the_index_of_the_bars(function, params, feeds):
    target = exposures(function, params, BARS, feeds)
    assert target.index.equals(BARS.index) and target.dtype == 'float64'
    assert target.between(-1, 1).all() and (target.min() < 0) == params.get('shorts', False)
    assert 4 <= target.diff().abs().gt(0).sum() < len(BARS) / 10
    assert 'time' == target.index.name and set(BARS) == {'open', 'high', 'low', 'close', 'volume'}


@every
def test_the_future_does_not_move_the_past(function, params, feeds):
    whole = exposures(function, params, BARS, feeds)
    for cut in (2, 100, 777, 1500, 2999):
        assert exposures(function, params, BARS[:cut], feeds).equals(whole[:cut])
        other = BARS.copy(); other.iloc[cut:, :4] *= .3
        assert exposures(function, params, other, feeds)[:cut].equals(whole[:cut])


@every
def test_it_does_not_matter_where_a_window_began_once_warm(function, params, feeds):
    whole = exposures(function, params, BARS, feeds)
    for start in (300, 1111, 2200):
        late = exposures(function, params, BARS[start:], feeds)
        assert late[400:].equals(whole[start + 400:])


@every
def test_a_window_of_600_bars_decides_as_the_whole_sample_does(function, params, feeds):
    whole = exposures(function, params, BARS, feeds)
    for end in range(700, 3000, 83):
        assert exposures(function, params, BARS[end - 600:end], feeds).iloc[-1] == whole.iloc[end - 1]


@every
def test_calling_twice_gives_the_same_and_leaves_the_bars_alone(function, params, feeds):
    before = BARS.copy()
    assert exposures(function, params, BARS, feeds).equals(exposures(function, params, BARS, feeds))
    assert BARS.equals(before)


@every
def test_a_market_that_stands_still_or_is_too_short_is_not_an_error(function, params, feeds):
    still = BARS.assign(open=32_768., high=32_768., low=32_768., close=32_768., volume=0.)   # a price whose sums are exact
    assert (exposures(function, params, still, feeds) == 0).all()
    assert (exposures(function, params, BARS[:3], feeds) == 0).all()


@pytest.mark.parametrize('function', [sma_cross, donchian_breakout, bollinger_reversion, rsi_reversion])
def test_defaults_do_something_sensible_on_real_hourly_bars(function, btc_hourly):
    bars = tidy(pd.read_parquet(btc_hourly))
    target = exposures(function, {}, bars, {})
    changes = target.diff().abs().gt(0).sum()
    assert .03 < target.abs().mean() < .7
    assert 50 < changes < len(bars) / 24, 'at most once a day on average'
    for end in (5000, 12_345, 27_000):
        assert exposures(function, {}, bars[end - 400:end], {}).iloc[-1] == target.iloc[end - 1]


def test_hybrid_runs_on_real_bars_and_real_headlines(btc_hourly, shared_data, tmp_path):
    bars = tidy(pd.read_parquet(btc_hourly))['2021-06':'2022-06']
    train(Sample(bars, 'BTCUSDT', '1h', 'test'), tmp_path / 'model', before='2022-01-01')
    news = pd.read_parquet(shared_data / 'news_social/news/bitcoin_news_2021-11_2023-06.parquet')
    news.rename(columns={'Date': 'known_at', 'Short Description': 'text'}).to_parquet(tmp_path / 'news.parquet')
    feeds = dict(sentiment=load_feed('sentiment', tmp_path / 'news.parquet'), forecast=load_feed('forecast', tmp_path / 'model'))
    target = exposures(hybrid_trend, {}, bars, feeds)['2022-01':]
    rule = exposures(hybrid_trend, dict(mood_floor=-1, hope=0, doubt=0), bars, feeds)['2022-01':]
    assert (target <= rule).all() and .02 < target.mean() < rule.mean()
    assert 10 < target.diff().abs().gt(0).sum() < len(target) / 12
    for end in range(7000, 9000, 250):
        assert exposures(hybrid_trend, {}, bars[end - 300:end], feeds).iloc[-1] == exposures(hybrid_trend, {}, bars, feeds).iloc[end - 1]


def test_parameters_that_contradict_each_other_are_refused(feeds):
    for function, params in ((sma_cross, dict(fast=50, slow=50)), (donchian_breakout, dict(entry=10, exit=20)), (hybrid_trend, dict(hope=.3)),
                             (hybrid_trend, dict(fast=96)), (sma_cross, dict(fast=1)), (bollinger_reversion, dict(width=0))):
        with pytest.raises(BadInput) as told: exposures(function, params, BARS, feeds)
        assert '\n' not in str(told.value)


def test_what_is_unknown_never_opens_a_position(feeds):
    s = describe(hybrid_trend)
    known = with_needs(s, BARS, feeds)
    for need in s.needs:
        blind = known.assign(**{need: known[need].where(BARS.index < BARS.index[1500])})
        assert (s.exposures(blind)[1500:] == 0).all()


# ---- feeds

def test_every_feed_gives_a_window_the_digits_it_gave_the_whole_sample(files, feeds):
    s = describe(hybrid_trend)
    whole, funding = with_needs(s, BARS, feeds), load_feed('funding', files / 'funding.csv')
    for end in (400, 1234, 3000):
        window = with_needs(s, BARS[end - 300:end], feeds)
        assert window.sentiment.equals(whole.sentiment[end - 300:end])
        assert window.forecast[72:].equals(whole.forecast[end - 228:end])
        assert funding.values(BARS[end - 300:end], '1h').equals(funding.values(BARS, '1h')[end - 300:end])


def test_a_fact_appears_at_the_first_close_after_it_was_known(files):
    table = pd.read_csv(files / 'funding.csv', parse_dates=['known_at'])
    got = load_feed('funding', files / 'funding.csv').values(BARS, '1h')
    for t in BARS.index[::37]:
        known = table[table.known_at <= t + pd.Timedelta('1h')]
        assert got[t] == known.funding.iloc[-1] if len(known) else np.isnan(got[t])


def test_headlines_written_later_change_nothing_earlier(files, tmp_path):
    table = pd.read_parquet(files / 'headlines.parquet')
    table[:100].to_csv(tmp_path / 'first_half.csv', index=False)
    first, whole = (load_feed('sentiment', p).values(BARS, '1h') for p in (tmp_path / 'first_half.csv', files / 'headlines.parquet'))
    before = BARS.index + pd.Timedelta('1h') < table.known_at[100]
    assert first[before].equals(whole[before]) and not first.equals(whole)


def test_the_digest_follows_the_numbers_and_not_the_file(files, tmp_path):
    table = pd.read_csv(files / 'funding.csv')
    digest = load_feed('funding', files / 'funding.csv').digest
    table.sample(frac=1, random_state=0).assign(note='x').to_csv(tmp_path / 'shuffled.csv', index=False)
    assert load_feed('funding', tmp_path / 'shuffled.csv').digest == digest
    epochs = table.assign(known_at=pd.to_datetime(table.known_at, utc=True, format='ISO8601').dt.as_unit('ns').astype('int64') // 10**6)
    epochs.to_csv(tmp_path / 'epochs.csv', index=False)
    assert load_feed('funding', tmp_path / 'epochs.csv').digest == digest
    table.loc[7, 'funding'] += 1e-9
    table.to_csv(tmp_path / 'restated.csv', index=False)
    assert load_feed('funding', tmp_path / 'restated.csv').digest != digest
    assert load_feed('sentiment', files / 'headlines.parquet', halflife='6h').digest != load_feed('sentiment', files / 'headlines.parquet').digest


def test_one_symbol_of_many_can_be_named(files, tmp_path):
    one, both = (load_feed('sentiment', files / 'headlines.parquet', symbol=s).values(BARS, '1h') for s in ('BTCUSDT', None))
    assert not one.equals(both)
    table = pd.read_parquet(files / 'headlines.parquet').assign(sentiment=.5)
    table.to_csv(tmp_path / 'numbers.csv', index=False)
    with pytest.raises(BadInput, match='holds 2 symbols'): load_feed('sentiment', tmp_path / 'numbers.csv')
    with pytest.raises(BadInput, match='no symbol DOGE'): load_feed('sentiment', tmp_path / 'numbers.csv', symbol='DOGE')


def test_a_source_that_is_none_is_refused_in_one_line(tmp_path):
    bad = {'no_time.csv': 'time,funding\n2024-01-01,1\n', 'no_column.csv': 'known_at,other\n2024-01-01,1\n', 'text.csv': 'known_at,funding\n2024-01-01,abc\n',
           'infinite.csv': 'known_at,funding\n2024-01-01,inf\n', 'bad_time.csv': 'known_at,funding\nsoon,1\n', 'hole.csv': 'known_at,funding\n2024-01-01,1\n,2\n',
           'empty.csv': ''}
    for name, text in bad.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(BadInput) as told: load_feed('funding', tmp_path / name)
        assert '\n' not in str(told.value) and name in str(told.value)
    for missing in ('nowhere.csv', ''):
        with pytest.raises(BadInput): load_feed('funding', tmp_path / missing)


def test_a_need_is_filled_by_a_feed_or_by_the_bars_or_named():
    s = describe(hybrid_trend)
    own = BARS.assign(sentiment=.1, forecast=.9)
    assert with_needs(s, own, {}).equals(own)
    with pytest.raises(BadInput, match='needs forecast.*--feed forecast=PATH'): with_needs(s, own.drop(columns='forecast'), {})
    assert with_needs(describe(sma_cross), BARS[:1], {}).equals(BARS[:1])


# ---- what an answer depends on

STRATEGY = """
from trading_lib.strategies import strategy
{imports}

@strategy
def mine(bars):
    return {answer}
"""


def written(folder, imports, answer='bars.close > 0', beside=()):
    "A strategy in a file, with modules beside it."
    for name, text in dict(beside).items():
        path = folder / f'{name}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (folder / 'mine.py').write_text(STRATEGY.format(imports=imports, answer=answer))
    return find(f'{folder}/mine.py:mine')


@pytest.mark.parametrize('imports', ['from trading_lib.signals import indicators as ind', 'import trading_lib.signals.indicators as ind', 'from trading_lib import signals',
                                     'import trading_lib.signals as sg', 'from trading_lib.signals import *', 'from trading_lib.signals import sma'])
def test_a_module_of_the_library_is_pinned_however_it_is_imported(tmp_path, imports):
    files = code_files(written(tmp_path, imports))
    assert 'trading_lib.signals.indicators' in files
    assert ('trading_lib.signals.sentiment' in files) == (imports in ('from trading_lib import signals', 'import trading_lib.signals as sg',
                                                                      'from trading_lib.signals import *'))


def test_what_is_pinned_does_not_depend_on_what_was_loaded_before(tmp_path):
    import subprocess
    import sys
    strategy = written(tmp_path, 'import trading_lib.signals as sg')
    program = f'from trading_lib.strategies.contract import find; print(find({strategy.origin!r}).digest, find("hybrid_trend").digest)'
    told = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True).stdout
    assert told.split() == [strategy.digest, find('hybrid_trend').digest]


def test_a_strategy_of_the_chapter_does_not_depend_on_its_neighbours():
    files = code_files(find('sma_cross'))
    assert 'trading_lib.strategies.trend' in files and 'trading_lib.strategies.reversion' not in files


@pytest.mark.parametrize('imports, answer, beside', [
    ('import rules', 'rules.up(bars)', dict(rules='def up(bars): return bars.close > {n}\n')),
    ('from rules import up', 'up(bars)', dict(rules='from deeper import N\ndef up(bars): return bars.close > N\n', deeper='N = {n}\n')),
    ('from kit.rules import up', 'up(bars)', {'kit/__init__': '', 'kit/rules': 'from .deeper import N\ndef up(bars): return bars.close > N\n', 'kit/deeper': 'N = {n}\n'}),
    ('from kit import rules', 'rules.up(bars)', {'kit/__init__': '', 'kit/rules': 'def up(bars): return bars.close > {n}\n'})])
def test_a_changed_module_beside_a_strategy_is_another_strategy(tmp_path, imports, answer, beside):
    import sys
    path, before = list(sys.path), set(sys.modules)
    one, other = (written(tmp_path, imports, answer, {k: v.replace('{n}', n) for k, v in beside.items()}) for n in ('0', '1e9'))
    assert one.source == other.source and one.digest != other.digest
    assert (one.exposures(BARS).min(), other.exposures(BARS).max()) == (1, 0)
    assert one.digest == written(tmp_path, imports, answer, {k: v.replace('{n}', '0') for k, v in beside.items()}).digest
    assert sys.path == path and not {n for n in set(sys.modules) - before if not n.startswith(('user_', 'trading_lib'))}


def test_two_folders_may_each_have_a_module_of_one_name(tmp_path):
    found = []
    for name, n in (('a', 0), ('b', 10**9)):
        (tmp_path / name).mkdir()
        found.append(written(tmp_path / name, 'import rules', 'rules.up(bars)', dict(rules=f'def up(bars): return bars.close > {n}\n')))
    assert [s.exposures(BARS).iloc[-1] for s in found] == [1, 0]


def test_a_module_beside_a_strategy_that_does_not_import_is_one_line(tmp_path):
    for text in ('1/0', 'def broken(:', 'import nowhere_to_be_found'):
        with pytest.raises(BadInput, match='does not import') as told: written(tmp_path, 'import rules', beside=dict(rules=text))
        assert '\n' not in str(told.value)


def test_a_function_written_in_a_cell_is_known_by_the_functions_it_calls():
    cell = """
from trading_lib.signals import sma
from trading_lib.strategies.contract import code_files, describe, strategy
def rule(bars): return bars.close > {n}
@strategy
def mine(bars): return rule(bars) & (sma(bars.close, 3) > 0)
"""
    from IPython.core.interactiveshell import InteractiveShell
    shell, digests = InteractiveShell(), []
    for n in (0, 1, 0):
        shell.run_cell(cell.format(n=n)).raise_error()
        digests.append(shell.user_ns['describe'](shell.user_ns['mine']).digest)
    assert digests[0] == digests[2] != digests[1]
    assert {'mine', 'mine()', 'rule()', 'trading_lib.signals.indicators'} <= set(code_files(describe(shell.user_ns['mine'])))


# ---- what was tried, and what a model had seen of it

@pytest.fixture
def trials(tmp_path):
    "How many trials of the hybrid a sample and its feeds make, asked one after the other."
    def counted(*cases): return [backtest(hybrid_trend, sample, ledger=Ledger(tmp_path), feeds=feeds).trials for sample, feeds in cases]
    return counted


def test_another_model_or_other_headlines_are_another_trial(trials, feeds, files, tmp_path_factory):
    sample, place = Sample(BARS, 'BTC/USDT', '1h', 'test', synthetic=True), tmp_path_factory.mktemp('other')
    train(sample, place / 'model', before='2024-03-01')
    pd.read_parquet(files / 'headlines.parquet')[:50].to_csv(place / 'fewer.csv', index=False)
    other = feeds | dict(forecast=load_feed('forecast', place / 'model'))
    fewer = feeds | dict(sentiment=load_feed('sentiment', place / 'fewer.csv'))
    unused = feeds | dict(funding=load_feed('funding', files / 'funding.csv'))
    assert trials((sample, feeds), (sample, feeds), (sample, other), (sample, fewer), (sample, unused)) == [1, 1, 2, 3, 3]


def test_other_columns_beside_the_same_prices_are_another_trial(trials):
    with_columns = lambda hope: Sample(BARS.assign(sentiment=0., forecast=hope), 'BTC/USDT', '1h', 'test', synthetic=True)
    assert trials((with_columns(.6), {}), (with_columns(.6), {}), (with_columns(.7), {})) == [1, 1, 2]


def test_a_result_says_until_when_its_model_had_learnt_from_the_bars(feeds):
    sample = lambda start: Sample(BARS[start:], 'BTC/USDT', '1h', 'test', synthetic=True)
    until = feeds['forecast'].knows_until
    assert backtest(hybrid_trend, sample('2024-01-20'), feeds=feeds).seen_by_models == until
    assert backtest(hybrid_trend, sample(until), feeds=feeds).seen_by_models is None
    assert backtest(sma_cross, sample('2024-01-20'), feeds=feeds).seen_by_models is None, 'it never asked the model'


def test_a_bot_asks_for_the_last_exposure(feeds):
    decide = decider(describe(hybrid_trend), dict(fast=20, slow=80), feeds)
    whole = exposures(hybrid_trend, dict(fast=20, slow=80), BARS, feeds)
    assert [decide(BARS[end - 600:end]) for end in range(700, 3000, 300)] == [whole.iloc[end - 1] for end in range(700, 3000, 300)]


LEAVES = 'import sys\nfrom trading_lib.strategies import strategy\n'

def test_a_strategy_that_wants_to_leave_is_refused_in_one_line(tmp_path):
    (tmp_path / 'early.py').write_text(LEAVES + 'sys.exit(0)\n')
    with pytest.raises(BadInput, match='early.py does not import: SystemExit: 0'): find(f'{tmp_path}/early.py:mine')
    (tmp_path / 'late.py').write_text(LEAVES + '@strategy\ndef mine(bars): sys.exit(0)\n')
    with pytest.raises(BadInput, match=r'mine raised SystemExit \(0\) at late\.py:4$'): find(f'{tmp_path}/late.py:mine').exposures(walk(50))


def test_an_error_names_the_file_as_it_is_called(tmp_path):
    (tmp_path / 'odd.py').write_text('def f(:\n')
    with pytest.raises(BadInput, match=r'\(odd\.py, line 1\)'): find(f'{tmp_path}/odd.py:f')


@pytest.mark.parametrize('answer', [['a'] * 50, np.array(['a'] * 50), np.ones(50) * 1j, [1j] * 50, {'a': 1}, [object()] * 50])
@pytest.mark.filterwarnings('error')
def test_an_answer_that_is_no_number_is_refused(answer):
    bars = walk(50)
    for each in (answer, pd.Series(answer, bars.index)) if not isinstance(answer, dict) else (answer,):
        with pytest.raises(BadInput, match='returned what is no number'): as_exposure(each, bars)


def test_a_number_with_an_underscore_is_refused():
    with pytest.raises(BadInput, match='fast was 1_0; it must be an int'): find('sma_cross').check(dict(fast='1_0'))


# ---- several symbols

def trio(n=600):
    "Three markets on the same times."
    return together([Sample(walk(n, seed), name, '1h', 'test', synthetic=True) for seed, name in enumerate(('AAA', 'BBB', 'CCC'), 1)]).bars


def test_a_strategy_of_one_symbol_is_asked_about_each_and_gets_its_share():
    bars, s = trio(), describe(sma_cross)
    target = s.exposures(bars, dict(fast=5, slow=20))
    assert list(target) == ['AAA', 'BBB', 'CCC'] and target.index.equals(bars.index)
    for name in target: assert target[name].equals(s.exposures(bars[name], dict(fast=5, slow=20)).rename(name) / 3)


def test_a_rotation_holds_the_strongest_and_only_risers():
    bars = trio()
    close = bars.xs('close', axis=1, level=1)
    gain = close / close.shift(50) - 1
    held = describe(momentum_rotation).exposures(bars, dict(lookback=50, top=2))
    assert set(np.unique(held)) == {0, .5} and (held.sum(axis=1) <= 1).all() and not (held.to_numpy()[gain.to_numpy() <= 0]).any()
    for t in range(60, 600, 45): assert set(held.columns[held.iloc[t] > 0]) == set(gain.iloc[t].nlargest(2)[lambda g: g > 0].index)
    assert describe(momentum_rotation).exposures(bars[['CCC', 'AAA', 'BBB']], dict(lookback=50, top=2))[list(held)].equals(held)


def test_a_rotation_does_not_peek():
    assert find_peeking(lambda bars: describe(momentum_rotation).exposures(bars, dict(lookback=20)), trio(300)).findings == ()


def test_a_strategy_that_weighs_symbols_is_not_asked_about_one():
    with pytest.raises(BadInput, match='momentum_rotation weighs several symbols against each other and was given bars of one; name two or more'):
        describe(momentum_rotation).exposures(BARS)
    assert find('momentum_rotation').several and not find('sma_cross').several


def answers(table):
    "What `as_exposure` says to a frame of answers about three symbols."
    return as_exposure(pd.DataFrame(table, trio(4).index), trio(4), 'mine')


def test_shares_are_taken_in_any_order_carried_forward_and_may_miss_one_by_a_rounding():
    nan = np.nan
    got = answers(dict(CCC=[nan, .2, nan, 0], AAA=[.1, nan, nan, nan], BBB=[-.5, -.5, nan, -0.]))
    assert got.to_numpy().tolist() == [[.1, -.5, 0], [.1, -.5, .2], [.1, -.5, .2], [.1, 0, 0]] and got.columns.name == 'symbol'
    thirds = answers({name: [1/3 + 1e-12] * 4 for name in ('AAA', 'BBB', 'CCC')})
    assert (thirds.sum(axis=1) > 1).all() and as_exposure(thirds.to_numpy(), trio(4), 'mine').equals(thirds)


@pytest.mark.parametrize('table, said', [
    (dict(AAA=.5, BBB=.5, CCC=.5), 'mine returned 0.5 for AAA at 2024-01-01T00:00Z and 1.5 in all'),
    (dict(AAA=[0, 0, 0, .2], BBB=[0, 0, 0, -.9], CCC=0.), 'mine returned -0.9 for BBB at 2024-01-01T03:00Z and 1.1 in all'),
    (dict(AAA=[0, np.inf, 0, 0], BBB=0., CCC=0.), 'mine returned inf for AAA at 2024-01-01T01:00Z'),
    (dict(AAA=0., BBB=0.), 'mine returned the columns AAA, BBB; it must return a column for each of AAA, BBB, CCC'),
    (dict(AAA=0., BBB=0., DDD=0.), 'the columns AAA, BBB, DDD'),
    (dict(AAA='a', BBB=0., CCC=0.), 'mine returned what is no number'),
])
def test_shares_that_break_the_contract_are_refused_in_one_line(table, said):
    with pytest.raises(BadInput) as told: answers(table)
    assert said in str(told.value) and '\n' not in str(told.value)


def test_other_shapes_and_indexes_are_refused():
    bars = trio(4)
    for answer, said in ((pd.Series(0., bars.index), 'returned a Series'), (np.zeros((4, 2)), r'returned \(4, 2\) values for 4 bars of 3 symbols'),
                         (pd.DataFrame(0., range(4), ['AAA', 'BBB', 'CCC']), 'another index')):
        with pytest.raises(BadInput, match=said): as_exposure(answer, bars, 'mine')


def test_an_error_about_one_of_several_symbols_names_it():
    bars = trio(50)
    @strategy
    def loud(bars_of_one):
        "Too much of one."
        return bars_of_one.close * 0 + (3 if bars_of_one.close.equals(bars['BBB'].close) else 1)
    with pytest.raises(BadInput, match='loud on BBB returned 3 at'): describe(loud).exposures(bars)


# ---- orders

@strategy(orders=True)
def echo(bars, account, state, size: float = 1.):
    "Answers with what its state says."
    return state['answer'] if isinstance(state, dict) and 'answer' in state else ([Wish('a', 'buy', size)], state)


def step(answer, **params):
    "What `Strategy.step` says to a step that answers so."
    @strategy(orders=True)
    def mine(bars, account, state, size: float = 1.):
        "Answers so."
        return answer
    return describe(mine).step(BARS[:5], Account(1., 0., 1.), {}, params)


GOOD = Wish('a', 'buy', 1., 5.)

@pytest.mark.parametrize('answer, said', [
    ([GOOD], 'mine returned list; a step returns (orders, state)'), (None, 'mine returned NoneType'), (([GOOD], {}, 1), 'mine returned tuple'),
    (('buy', {}), 'orders that are no list of Wish'), (([('a', 'buy', 1.)], {}), 'orders that are no list of Wish'), ((GOOD, {}), 'orders that are no list of Wish'),
    (([GOOD, Wish('a', 'sell', 2.)], {}), 'mine wished for a twice; each order needs a name of its own'),
    (([], {'at': BARS.index[0]}), 'mine returned a state that cannot be kept'), (([], {1: float('inf')}), 'a state that cannot be kept'),
    (([], {1, 2}), 'a state that cannot be kept'), (([], BARS), 'a state that cannot be kept')])
def test_a_step_that_breaks_the_contract_is_refused_in_one_line(answer, said):
    with pytest.raises(BadInput) as told: step(answer)
    assert said in str(told.value) and '\n' not in str(told.value)


@pytest.mark.parametrize('wrong, said', [
    (dict(side='long'), "side was 'long'; it is buy or sell"), (dict(quantity=0.), 'quantity was 0.0'), (dict(quantity=-1.), 'quantity was -1'),
    (dict(quantity=float('nan')), 'quantity was nan'), (dict(price=float('inf')), 'price was inf'), (dict(price=0.), 'price was 0.0'),
    (dict(quantity='1'), 'quantity was 1'), (dict(name=''), 'a name is a text'), (dict(name=3), 'a name is a text')])
def test_a_wish_that_makes_no_sense_cannot_be_made(wrong, said):
    with pytest.raises(BadInput) as told: Wish(**(dict(name='a', side='buy', quantity=1., price=5.) | wrong))
    assert said in str(told.value) and str(told.value).startswith('wish ')


def test_a_step_gives_wishes_and_a_state_as_json_gives_it_back():
    wishes, state = step(([GOOD], {'levels': (1, 2), 3: None}))
    assert wishes == (GOOD,) and state == {'levels': [1, 2], '3': None}
    assert step(((), None)) == ((), None)


def test_parameters_of_a_step_begin_after_the_state():
    s = describe(echo)
    assert list(s.parameters) == ['size'] and s.orders and not s.several
    assert s.step(BARS[:5], Account(1., 0., 1.), {}, dict(size='2'))[0] == (Wish('a', 'buy', 2.),)
    with pytest.raises(BadInput, match='did you mean size'): s.step(BARS[:5], Account(1., 0., 1.), {}, dict(sice=2))
    with pytest.raises(BadInput, match='sma_cross returns exposures and not orders'): find('sma_cross').step(BARS[:5], Account(1., 0., 1.), {})
    @strategy(orders=True)
    def short(bars, account): return [], {}
    with pytest.raises(BadInput, match='short: the first arguments must be bars, account, state'): describe(short).check()
    with pytest.raises(BadInput, match='take several or orders'):
        @strategy(orders=True, several=True)
        def both(bars, account, state): return [], {}


def test_what_is_handed_to_a_step_is_not_changed_by_it():
    @strategy(orders=True)
    def scribbler(bars, account, state):
        "Writes wherever it can."
        bars['close'] = 0.
        state['list'].append(len(state['list']))
        return [], state
    bars, state = BARS[:5].copy(), {'list': []}
    assert describe(scribbler).step(bars, Account(1., 0., 1.), state)[1] == {'list': [0]}
    assert state == {'list': []} and bars.equals(BARS[:5])


def test_the_code_of_the_plan_belongs_to_what_returns_orders_and_to_nothing_else():
    assert 'trading_lib.execution.plan' in code_files(find('grid')) and 'trading_lib.execution.plan' not in code_files(find('sma_cross'))
    assert {s.name: (s.several, s.orders) for s in catalogue()} == dict(bollinger_reversion=(False, False), dca=(False, True), donchian_breakout=(False, False),
        grid=(False, True), hybrid_trend=(False, False), momentum_rotation=(True, False), rsi_reversion=(False, False), sma_cross=(False, False))


@pytest.mark.parametrize('answer', [BARS.close > BARS.open, (BARS.close > BARS.open).to_numpy(), BARS.close * 0 - .0, (BARS.close > BARS.open).astype('boolean')],
                         ids=['bool', 'array', 'zeros', 'nullable'])
def test_an_answer_without_holes_is_taken_as_it_is_and_never_shared(answer):
    got = as_exposure(answer, BARS)
    assert got.dtype == 'float64' and got.name == 'exposure' and (got == np.asarray(answer, float)).all() and not np.signbit(got).any()
    got.iloc[:] = .5
    assert not (np.asarray(answer, float) == .5).any()
