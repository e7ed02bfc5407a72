"""Raw times and numbers of every make, joins on nothing, and weeks that begin when exchanges begin them."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_lib.core.errors import BadInput
from trading_lib.market.bars import OHLCV, join_known, moments, numbers, resample, step_of, tidy, timeframe_of

HOURS = pd.date_range('2024-03-10', periods=48, freq='h', tz='UTC', name='time', unit='ns')
BARS = pd.DataFrame({c: np.arange(1., 49) for c in OHLCV}, HOURS)


@pytest.mark.parametrize('written', [
    HOURS.asi8 // 10**9, HOURS.asi8 // 10**6, HOURS.asi8, HOURS.asi8 / 1e9, HOURS.tz_localize(None), HOURS.tz_convert('Asia/Tokyo'),
    HOURS.strftime('%Y-%m-%d %H:%M:%S'), HOURS.strftime('%Y%m%dT%H%M%SZ'), HOURS.strftime('%d %B %Y %H:%M'),
    HOURS.tz_convert('Europe/Vienna').strftime('%Y-%m-%dT%H:%M:%S%z'), [t.to_pydatetime() for t in HOURS]])
def test_times_of_any_make_are_the_same_times(written):
    for errors in ('raise', 'coerce'):
        times = moments(pd.Series(written), errors=errors)
        assert times.equals(HOURS) and (times.name, times.unit) == ('time', 'ns')


def test_one_wild_epoch_does_not_change_what_the_others_mean():
    epochs = pd.Series(HOURS.asi8 // 10**6); epochs[0] = 5
    assert moments(epochs)[1:].equals(HOURS[1:])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | st.integers(-2**70, 2**70) | st.floats() | st.text(max_size=12) | st.booleans() | st.dates() | st.binary(max_size=3),
                max_size=6))
def test_whatever_is_no_time_is_bad_input_or_left_out(values):
    stamps = pd.Series(values, dtype=object)
    coerced = moments(stamps, errors='coerce')
    assert len(coerced) == len(values)
    if coerced.hasnans:
        with pytest.raises(BadInput, match='row 1' if coerced.isna()[0] else 'row'): moments(stamps)
    else: assert moments(stamps).equals(coerced)


def test_text_among_numbers_is_named_and_missing_ones_are_not():
    values = pd.Series(['1', None, 'x'], HOURS[:3])
    with pytest.raises(BadInput, match="mood was 'x' at 2024-03-10T02:00Z; it must be a number"): numbers(values, 'mood')
    assert numbers(values, errors='coerce').isna().tolist() == [False, True, True]


def test_the_step_is_found_in_any_order_and_none_in_one_time():
    assert step_of(HOURS[[5, 1, 2, 2, 3]]) == pd.Timedelta('1h')
    assert step_of(HOURS[[0, 0]]) is None
    with pytest.raises(BadInput, match='give at least two'): timeframe_of(BARS[:1])


@pytest.mark.parametrize('index', [pd.RangeIndex(0), pd.DatetimeIndex([], tz='UTC')])
@pytest.mark.parametrize('max_age', [None, '7d'])
def test_where_nothing_is_known_every_bar_says_so(index, max_age):
    joined = join_known(BARS, pd.DataFrame(dict(mood=[], text=[]), index), max_age)
    assert joined.index.equals(HOURS) and list(joined) == ['mood', 'text'] and joined.isna().all(axis=None)


def test_facts_without_a_zone_or_without_times_are_refused():
    for index in (HOURS[:1].tz_localize(None), [0]):
        with pytest.raises(BadInput, match='UTC time each became known'): join_known(BARS, pd.Series([1.], index, name='mood'))


@pytest.mark.parametrize('timeframe', ['1w', '2w'])
def test_weeks_begin_on_a_monday_wherever_the_bars_do(timeframe):
    days = pd.date_range('2024-02-01', periods=90, freq='D', tz='UTC', name='time')
    bars = pd.DataFrame({c: 1. for c in OHLCV}, days)
    whole = resample(bars, timeframe)
    for start in range(1, 8):
        weeks = resample(bars[start:], timeframe)
        assert (weeks.index.dayofweek == 0).all() and weeks.equals(whole[whole.index >= weeks.index[0]])


def test_hours_and_days_begin_at_midnight_utc():
    assert resample(BARS[5:], '1d').index.tolist() == [HOURS[24]]
    assert resample(BARS[1:], '4h').index[0] == HOURS[4]


@pytest.mark.parametrize(('columns', 'kept'), [(('volume',), []), (('open', 'close'), []), (('Mood', 'mood'), ['mood'])])
def test_a_column_that_is_named_twice_is_kept_once(columns, kept):
    raw = pd.DataFrame({c: 1. for c in [*OHLCV, 'mood']}, pd.date_range('2024', periods=3, freq='h', name='time'))
    assert list(tidy(raw, columns=columns)) == OHLCV + kept


def test_times_too_close_to_be_bars_are_refused_in_one_line():
    raw = pd.DataFrame({'time': np.arange(3) * 3600 + 17 * 10**16} | {c: 1. for c in OHLCV})
    with pytest.raises(BadInput, match='the times cannot be right: they begin at 1975-05-22'): timeframe_of(tidy(raw))


def test_two_columns_of_one_name_are_refused():
    times = pd.date_range('2024-01-01', periods=3, freq='h', tz='UTC')
    frame = pd.DataFrame(100., range(3), ['open', 'high', 'low', 'close', 'Close', 'volume']).assign(time=times)
    with pytest.raises(BadInput, match='two columns called close'): tidy(frame)


def test_a_column_of_funding_is_a_rate():
    times = pd.date_range('2024-01-01', periods=3, freq='h', tz='UTC')
    frame = pd.DataFrame(100., range(3), ['open', 'high', 'low', 'close', 'volume']).assign(time=times, funding=[0., .5, 0.])
    with pytest.raises(BadInput, match='funding: the rate was 0.5 at 2024-01-01T01:00Z'): tidy(frame, columns=('funding',))
