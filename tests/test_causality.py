"Causality: planted leaks are caught, on any market, and honest strategies are left alone."
import datetime
import sys
import threading
import time
from time import time as now_s

import numpy as np
import pandas as pd
import pytest

from trading_lib.core.errors import BadInput
from trading_lib.evidence.causality import KINDS, clock_at, find_peeking
from trading_lib.market.bars import closes_at, join_known, resample, tidy
from trading_lib.signals.indicators import rsi, sma
from trading_lib.strategies.contract import find


def walk(n=3000, seed=1, tick=None, symbols=()):
    "A random walk as bars."
    if symbols: return pd.concat({s: walk(n, seed + k, tick) for k, s in enumerate(symbols)}, axis=1)
    rng = np.random.default_rng(seed)
    index = pd.date_range('2022', periods=n, freq='h', tz='UTC', name='time')
    close = pd.Series(100 * np.exp(rng.normal(0, .01, n).cumsum()), index)
    if tick: close = (close / tick).round() * tick
    bars = pd.DataFrame(dict(open=close.shift(1, fill_value=100.), high=0., low=0., close=close, volume=rng.exponential(5, n)))
    bars['high'], bars['low'] = bars[['open', 'close']].max(axis=1) * 1.002, bars[['open', 'close']].min(axis=1) * .998
    return bars


@pytest.fixture(params=['a random walk', 'real hours'], scope='module')
def bars(request):
    if request.param == 'a random walk': return walk()
    return tidy(pd.read_parquet(request.getfixturevalue('btc_hourly')))[-8000:]


def kinds(function, bars) -> set[str]: return {finding.kind for finding in find_peeking(function, bars).findings}

c = lambda bars: bars.close

def four_hours_by_open(bars):
    slow = resample(bars, '4h').close.rename('slow')
    return c(bars) > join_known(bars, slow).slow   # indexed by the open of the slow bar: known four hours too soon

def four_hours_as_known(bars):
    slow = resample(bars, '4h')
    return c(bars) > join_known(bars, slow.close.rename('slow').set_axis(closes_at(slow, '4h'))).slow

def merged(direction):
    def function(bars):
        slow = c(bars)[bars.index.hour % 6 == 0].rename('slow').rename_axis('time').reset_index()
        return c(bars) > pd.merge_asof(bars[[]].reset_index(), slow, on='time', direction=direction).set_axis(bars.index).slow
    return function

def dodges_crashes(bars):
    "Honest, but out of the market one candle before each fall of two percent."
    long = (sma(c(bars), 10) > sma(c(bars), 50)).astype(float)
    return long.where(~(c(bars).shift(-1) / c(bars) < .98), 0.)

def repaints_the_last(bars):
    long = (c(bars) > sma(c(bars), 20)).astype(float)
    long.iloc[-2] = float(c(bars).iloc[-1] > c(bars).iloc[-2])
    return long

PEEKING = dict(
    shifted=lambda b: c(b).shift(-1) > c(b),
    shifted_cautiously=lambda b: (c(b).shift(-1) > c(b)).where(c(b).shift(-1).notna()).ffill(),
    a_day_ahead=lambda b: c(b).shift(-24) > c(b),
    filled_backwards=lambda b: c(b).where(c(b) > c(b).shift(1)).bfill() > c(b),
    centred=lambda b: c(b).rolling(11, center=True).mean() > c(b),
    standardised=lambda b: ((c(b) - c(b).mean()) / c(b).std()).clip(-1, 1),
    ranked_over_all=lambda b: c(b).pct_change().rank(pct=True) > .9,
    smoothed_both_ways=lambda b: c(b)[::-1].ewm(span=20).mean()[::-1] > c(b),
    detrended=lambda b: c(b) > np.polyval(np.polyfit(np.arange(len(b)), c(b), 1), np.arange(len(b))),
    four_hours_by_open=four_hours_by_open, merged_forward=merged('forward'), merged_nearest=merged('nearest'),
    dodges_crashes=dodges_crashes, repaints_the_last=repaints_the_last,
    interpolated=lambda b: c(b).where(np.arange(len(b)) % 3 == 0).interpolate() > c(b),
    next_open=lambda b: b.open.shift(-1) > c(b) * 1.0001,
)

HONEST = dict(
    sma_cross=find('sma_cross').exposures, donchian=find('donchian_breakout').exposures, bollinger=find('bollinger_reversion').exposures,
    donchian_short=lambda b: find('donchian_breakout').exposures(b, {'shorts': True}),
    exponential=lambda b: c(b).ewm(span=12).mean() > c(b).ewm(span=48).mean(),
    wilder=lambda b: rsi(c(b), 14) < 30,
    sized_by_volatility=lambda b: (.1 / (c(b).pct_change().ewm(halflife=24).std() * 8760**.5)).clip(upper=1),
    standardised_rolling=lambda b: ((c(b) - sma(c(b), 100)) / c(b).rolling(100).std()).clip(-1, 1),
    four_hours_as_known=four_hours_as_known, merged_backward=merged('backward'),
    always=lambda b: pd.Series(1., b.index), never=lambda b: np.zeros(len(b)), by_the_hour=lambda b: pd.Series(b.index.hour < 8, b.index),
    sparse=lambda b: pd.Series(np.where(c(b) > sma(c(b), 30) * 1.01, 1., np.where(c(b) < sma(c(b), 30) * .99, 0., np.nan)), b.index).ffill().fillna(0),
    nullable=lambda b: (c(b) > sma(c(b), 20)).astype('boolean'),
    dropped_rows=lambda b: c(b).pct_change().dropna(),
)


@pytest.mark.parametrize('name', PEEKING)
def test_a_planted_leak_is_caught(bars, name):
    result = find_peeking(PEEKING[name], bars)
    assert 'lookahead' in {f.kind for f in result.findings}, result
    for finding in result.findings:
        assert finding.kind in KINDS and '\n' not in finding.detail and pd.Timestamp(finding.bar) in bars.index


@pytest.mark.parametrize('name', HONEST)
def test_an_honest_strategy_raises_no_alarm(bars, name):
    result = find_peeking(HONEST[name], bars)
    assert result.findings == () and result.warmup_bars is not None


@pytest.mark.parametrize('seed', range(4))
def test_ties_of_a_coarse_price_raise_no_alarm_and_no_warmup(seed):
    assert find_peeking(find('sma_cross').exposures, walk(6000, seed, tick=.5)).warmup_bars == 49


MEMORY = dict(
    expanding_mean=lambda b: c(b) > c(b).expanding().mean(),
    high_of_all_time=lambda b: c(b) > .8 * c(b).cummax(),
    balance_of_volume=lambda b: (np.sign(c(b).diff()) * b.volume).cumsum() > 0,
    first_price=lambda b: c(b) > c(b).iloc[0],
    every_third_bar=lambda b: pd.Series(np.arange(len(b)) % 3 == 0, b.index),
)

@pytest.mark.parametrize('name', MEMORY)
def test_an_answer_that_remembers_its_first_bar_has_no_window(bars, name):
    result = find_peeking(MEMORY[name], bars)
    assert {f.kind for f in result.findings} == {'window'} and result.warmup_bars is None


def test_the_warmup_is_that_of_the_longest_average():
    assert [find_peeking(lambda b, n=n: c(b) > sma(c(b), n), walk()).warmup_bars for n in (5, 50, 400)] == [4, 49, 399]


CALLS = []
def counts_its_calls(bars):
    CALLS.append(1)
    return c(bars) * 0 + len(CALLS) % 2

SEEN = {}
def remembers_the_highest(bars):
    SEEN['high'] = max(SEEN.get('high', 0), bars.high.max())
    return c(bars) / SEEN['high']

rng = np.random.default_rng(0)
STATE = dict(counts_its_calls=counts_its_calls, remembers_the_highest=remembers_the_highest,
             throws_dice=lambda b: pd.Series(np.random.default_rng().random(len(b)), b.index),
             drinks_from_one_generator=lambda b: pd.Series(rng.random(len(b)), b.index))

@pytest.mark.parametrize('name', STATE)
def test_state_between_calls_is_found(name): assert kinds(STATE[name], walk()) == {'state'}


CLOCK = dict(
    datetime_now=lambda b: c(b) * (datetime.datetime.now().month < 7),
    datetime_aware=lambda b: pd.Series(b.index > datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30), b.index),
    date_today=lambda b: c(b) * datetime.date.today().year,
    time_time=lambda b: c(b) * (time.time() // 86400 % 2), time_by_name=lambda b: c(b) * (now_s() // 86400 % 2),
    time_ns=lambda b: c(b) * (time.time_ns() % 7), local=lambda b: c(b) * time.localtime().tm_yday,
    timestamp_now=lambda b: c(b) * pd.Timestamp.now('UTC').year, timestamp_today=lambda b: c(b) * pd.Timestamp.today().day_of_year,
    second=lambda b: c(b) * (datetime.datetime.now().second % 2), microsecond=lambda b: c(b) * (datetime.datetime.now().microsecond % 2),
    monotonic=lambda b: c(b) * (time.monotonic() // 3600 % 2), written=lambda b: c(b) * int(time.strftime('%j')),
    words=lambda b: c(b) * (time.ctime()[:3] in ('Sat', 'Sun')),
    only_the_old=lambda b: c(b).where(b.index < pd.Timestamp.now('UTC') - pd.Timedelta('5min'), 0))

@pytest.mark.parametrize('name', CLOCK)
def test_a_look_at_the_clock_is_found(name): assert kinds(CLOCK[name], walk()) == {'clock'}


def test_the_clock_is_given_back_even_after_an_error():
    real = time.time, time.localtime, datetime.datetime, datetime.date, now_s
    with pytest.raises(ZeroDivisionError), clock_at(pd.Timestamp('2009-01-03T18:15Z'), CLOCK['time_by_name']):
        assert now_s() == time.time() == 1231006500 and pd.Timestamp.utcnow() == pd.Timestamp('2009-01-03T18:15Z')
        assert isinstance(pd.Timestamp(0), datetime.datetime) and isinstance(real[2](2020, 1, 1), datetime.datetime)
        raise ZeroDivisionError
    assert (time.time, time.localtime, datetime.datetime, datetime.date, now_s) == real
    assert pd.Timestamp.now('UTC').year > 2020 and datetime.datetime.now().year > 2020


def test_only_one_clock_is_replaced_at_a_time():
    moments, seen = [pd.Timestamp(f'{year}-01-01', tz='UTC') for year in (2001, 2002, 2003)], []
    def look(moment):
        with clock_at(moment):
            seen.append(all(time.time() == moment.timestamp() for _ in range(20_000)))
    real, threads = time.time, [threading.Thread(target=look, args=(moment,)) for moment in moments]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert seen == [True] * 3 and time.time is real


def adds_a_column(bars):
    bars['slow'] = sma(c(bars), 50)
    return c(bars) > bars.slow

def overwrites(bars):
    bars.loc[bars.index[7], 'close'] = 1.
    return c(bars) > 0

def drops_rows(bars):
    bars.drop(bars.index[:10], inplace=True)
    return c(bars) > 0

@pytest.mark.parametrize(('function', 'column', 'row'), [(adds_a_column, 'slow', None), (overwrites, 'close', 7), (drops_rows, None, None)])
def test_a_strategy_that_writes_to_its_bars_is_found(function, column, row):
    bars = walk()
    before = bars.copy(deep=True)
    found = [f for f in find_peeking(function, bars).findings if f.kind == 'mutation']
    assert [(f.column, f.bar and pd.Timestamp(f.bar)) for f in found] == [(column, None if row is None else bars.index[row])]
    pd.testing.assert_frame_equal(bars, before)


def test_what_a_function_raises_is_a_finding_and_not_a_crash():
    bars = walk()
    def needs_a_date(b): return c(b) > c(b)[bars.index[2500]]
    def needs_all(b): return c(b) > 0 if len(b) == len(bars) else 1 / 0
    def broken(b): return b.clsoe
    def wrong_length(b): return np.zeros(3)
    assert 'lookahead' in kinds(needs_a_date, bars)
    assert {'lookahead', 'window'} & kinds(needs_all, bars)
    for function in (broken, wrong_length):
        (finding,) = find_peeking(function, bars).findings
        assert 'it raised' in finding.detail


def test_what_our_own_code_refuses_is_passed_on():
    with pytest.raises(BadInput, match='fast must be the smaller'):
        find_peeking(lambda b: find('sma_cross').exposures(b, dict(fast=60, slow=50)), walk())
    with pytest.raises(BadInput, match='12 bars are too few'): find_peeking(c, walk(12))


def test_each_column_of_a_feature_table_is_judged_alone():
    def features(b): return pd.DataFrame(dict(past=c(b).pct_change(), future=c(b).pct_change().shift(-1), all=c(b) / c(b).max()))
    result = find_peeking(features, walk())
    assert {f.column for f in result.findings if f.kind == 'lookahead'} == {'future', 'all'}


def test_several_symbols_are_experimented_on_together():
    bars = walk(symbols=('BTC', 'ETH'))
    ratio = lambda b: b['ETH', 'close'] / b['BTC', 'close']
    def honest(b): return pd.DataFrame({'BTC': (ratio(b) < sma(ratio(b), 20)) * .5, 'ETH': (ratio(b) > sma(ratio(b), 20)) * .5})
    def peeking(b): return honest(b).shift(-1).fillna(0)
    assert find_peeking(honest, bars).findings == ()
    assert {(f.kind, f.column) for f in find_peeking(peeking, bars).findings} == {('lookahead', 'BTC'), ('lookahead', 'ETH')}


def test_joined_columns_are_spliced_too():
    bars = walk().assign(sentiment=np.random.default_rng(2).normal(size=3000))
    assert find_peeking(lambda b: b.sentiment.rolling(5).mean() > 0, bars).findings == ()
    assert kinds(lambda b: b.sentiment.shift(-1).ffill() > 0, bars) == {'lookahead'}


def test_twenty_eight_thousand_bars_take_a_few_seconds(btc_hourly):
    bars = tidy(pd.read_parquet(btc_hourly))
    began = time.process_time()
    find_peeking(find('donchian_breakout').exposures, bars)
    assert time.process_time() - began < 5


def rarely(when):
    "An honest crossing, but on rare bars it knows the next."
    return lambda b: (sma(c(b), 10) > sma(c(b), 50)).where(~when(b), c(b).shift(-1) > c(b)).astype(float)

RARE = dict(
    one_bar_a_month=rarely(lambda b: (b.index.day == 13) & (b.index.hour == 7)),
    one_single_bar=rarely(lambda b: b.index == pd.Timestamp('2022-03-10T02:00Z')),
    quietest_of_500=rarely(lambda b: b.volume == b.volume.rolling(500).min()),
    quietest_of_500_or_as_before=lambda b: rarely(lambda b: b.volume == b.volume.rolling(500).min())(b).where(c(b).shift(-1).notna()).ffill())

@pytest.mark.parametrize('name', RARE)
def test_a_rare_peek_is_caught(btc_hourly, name):
    assert 'lookahead' in kinds(RARE[name], tidy(pd.read_parquet(btc_hourly)))


def test_a_strategy_may_refuse_few_bars():
    def choosy(b):
        if len(b) < 100: raise BadInput(f'{len(b)} bars are too few')
        return c(b) > sma(c(b), 20)
    assert find_peeking(choosy, walk()).findings == ()
    assert 'lookahead' in kinds(lambda b: choosy(b).shift(-1), walk())


def test_one_that_leaves_on_part_of_the_sample_is_a_finding():
    def leaves(b): return c(b) > 0 if len(b) == 3000 else sys.exit(0)
    assert kinds(leaves, walk()) == {'window'}
