"""Every planted defect is found on its bar, and clean bars, made up or real, raise no alarm."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_lib.core.errors import BadInput
from trading_lib.market.bars import OHLCV, check_bars
from trading_lib.market.quality import OUTLIER_RANGES, defects, numbers_of, quality_report, ranges_away
from trading_lib.market.store import read_table
from trading_lib.market.synthetic import synthetic_market

CLEAN = synthetic_market(seed=5, bars=600, symbols=('BTC/USDT',)).samples['BTC/USDT'].bars


def put(frame, row, column, value): frame.loc[row, column] = value


# What is done to row 300, and the defect that must be found on the bar of row 300 (or of the row given).
PLANTED = {
    'a price that is missing': (lambda f: put(f, 300, 'close', np.nan), 'not_a_number', 'close', 300),
    'an infinite price': (lambda f: put(f, 300, 'high', np.inf), 'not_a_number', 'high', 300),
    'a missing volume': (lambda f: put(f, 300, 'volume', np.nan), 'not_a_number', 'volume', 300),
    'a price of zero': (lambda f: put(f, 300, 'low', 0.), 'not_positive', 'low', 300),
    'a negative volume': (lambda f: put(f, 300, 'volume', -1.), 'not_positive', 'volume', 300),
    'a high below the body': (lambda f: put(f, 300, 'high', f.low[300] * .999), 'high_low', 'high', 300),
    'a low above the body': (lambda f: put(f, 300, 'low', f.high[300] * 1.001), 'high_low', 'low', 300),
    'an hour without a trade': (lambda f: put(f, 300, 'volume', 0.), 'zero_volume', 'volume', 300),
    'a slipped decimal point': (lambda f: put(f, 300, OHLCV[:4], f.loc[300, OHLCV[:4]].astype(float) * 10), 'outlier', None, 300),
    'a high from nowhere': (lambda f: put(f, 300, 'high', f.high[300] * 3), 'outlier', 'high', 300),
    'a low from nowhere': (lambda f: put(f, 300, 'low', f.low[300] / 3), 'outlier', 'low', 300),
    'a clock seven minutes fast': (lambda f: put(f, 300, 'time', f.time[300] + pd.Timedelta('7min')), 'off_grid', 'time', 300),
    'a clock nine seconds slow': (lambda f: put(f, 300, 'time', f.time[300] - pd.Timedelta('9s')), 'off_grid', 'time', 300),
    'a missing time': (lambda f: put(f, 300, 'time', pd.NaT), 'no_time', 'time', None),
    'a price that stands still': (lambda f: put(f, slice(300, 305), OHLCV[:4], f.close[299]), 'frozen', 'close', 300),
}


@pytest.mark.parametrize('plant', PLANTED)
def test_a_planted_defect_is_found_on_its_bar(plant):
    harm, kind, column, row = PLANTED[plant]
    frame = CLEAN.reset_index(); harm(frame)
    found = defects(frame)
    hits = found[found.kind == kind]
    assert len(hits) == 1, found
    assert column in (None, hits.column.iloc[0])
    assert row is None or hits.time.iloc[0] == frame.time[row]


def test_text_is_found_in_any_column():
    for column in OHLCV:
        frame = CLEAN.reset_index().astype(object); frame.loc[300, column] = 'n/a'
        found = defects(frame)
        assert found[['kind', 'column']].values.tolist() == [['not_a_number', column]] and found.time[0] == CLEAN.index[300]


def test_a_hole_is_found_after_its_bar_with_its_size():
    found = defects(CLEAN.drop(CLEAN.index[[300, 301, 302, 400]]))
    assert found[['kind', 'time', 'value']].values.tolist() == [['gap', CLEAN.index[299], 3.], ['gap', CLEAN.index[399], 1.]]


def test_twins_and_swapped_bars_are_told_apart():
    frame = CLEAN.reset_index()
    twin, other = frame[300:301], frame[400:401].assign(close=frame.close[400] * 1.0001, high=frame.high[400] * 1.01)
    mixed = pd.concat([frame[:301], twin, frame[301:401], other, frame[401:500], frame[501:502], frame[500:501], frame[502:]])
    found = defects(mixed)
    assert found[['kind', 'time', 'detail']].values.tolist() == [
        ['duplicate', frame.time[300], 'the same bar again'], ['duplicate', frame.time[400], 'another bar of the same time'],
        ['out_of_order', frame.time[500], 'opens before a bar above it']]


def test_a_clock_that_is_wrong_is_not_also_a_hole():
    frame = CLEAN.reset_index(); frame.loc[300, 'time'] += pd.Timedelta('20min')
    assert defects(frame).kind.tolist() == ['off_grid']


def test_a_clock_wrong_by_a_whole_number_of_bars_is_a_hole_and_a_twin():
    frame = CLEAN.reset_index(); frame.loc[300, 'time'] += pd.Timedelta('1h')
    assert set(defects(frame).kind) == {'gap', 'duplicate'}


def test_months_have_no_grid_and_no_holes():
    months = CLEAN[:60].set_axis(pd.date_range('2019-01-01', periods=60, freq='MS', tz='UTC', name='time'))
    assert defects(months).empty
    assert defects(months.drop(months.index[30])).kind.tolist() == ['gap']


@settings(max_examples=40, deadline=None)
@given(row=st.integers(0, 599), column=st.sampled_from(OHLCV), value=st.sampled_from([np.nan, np.inf, -np.inf, 0., -5., 1e9, 1e-9]))
def test_whatever_check_bars_refuses_is_listed_with_its_bar(row, column, value):
    bars = CLEAN.copy(); bars.iloc[row, OHLCV.index(column)] = value
    try: check_bars(bars)
    except BadInput: assert CLEAN.index[row] in set(defects(bars).time) and quality_report(bars).verdict == 'broken'
    else: assert quality_report(bars).verdict != 'broken'


def test_a_table_of_any_length_is_judged():
    assert [len(defects(CLEAN[:n])) for n in (0, 1, 2, 3, 5, 12)] == [0] * 6
    assert [quality_report(CLEAN[:n]).verdict for n in (0, 1)] == ['broken', 'clean']
    assert str(quality_report(CLEAN[:1], 'BTC/USDT')) == 'BTC/USDT, 1 bars: clean'


def test_a_table_without_the_columns_is_bad_input():
    with pytest.raises(BadInput, match='no column volume'): defects(CLEAN.drop(columns='volume'))
    with pytest.raises(BadInput, match='no column time'): defects(CLEAN.reset_index(drop=True))


def test_times_are_read_as_the_file_reader_reads_them():
    for times in (CLEAN.index.astype('int64') // 10**6, CLEAN.index.strftime('%Y-%m-%d %H:%M:%S'), CLEAN.index.tz_convert('Asia/Tokyo')):
        frame = CLEAN.reset_index(drop=True).assign(open_time=times)
        assert numbers_of(frame)['time'].tolist() == CLEAN.index.tolist() and defects(frame).empty


def test_synthetic_markets_are_clean():
    for seed in range(3):
        for sample in synthetic_market(seed, bars=4000).samples.values(): assert quality_report(sample).verdict == 'clean', quality_report(sample)


def test_real_hourly_files_raise_no_alarm(shared_data):
    for path in sorted((shared_data / 'ohlcv/binance_usdm_1h').glob('*.parquet')):
        report = quality_report(read_table(path), path.stem)
        assert report.verdict == 'clean', str(report)
    for path in sorted((shared_data / 'ohlcv/binance_spot_1h').glob('*.parquet')):
        assert quality_report(read_table(path), path.stem).counts == {'gap': 5, 'zero_volume': 1}


def test_the_wildest_real_hour_is_as_far_out_as_the_chapter_says(shared_data):
    wildest = max(ranges_away(read_table(path)).max().max() for folder in ('binance_usdm_1h', 'binance_spot_1h')
                  for path in (shared_data / 'ohlcv' / folder).glob('*.parquet'))
    assert 15 < wildest < 21 < OUTLIER_RANGES


def test_known_defects_of_real_files_are_found(shared_data):
    wild = quality_report(read_table(shared_data / 'ohlcv/misc/binance_ethusdt_4h_ohlcv_to2023.parquet'))
    assert wild.defects[wild.defects.kind == 'outlier'].time.tolist() == [pd.Timestamp('2017-08-22T04:00Z')]
    thin = quality_report(read_table(shared_data / 'ohlcv/binance_spot_1h_defects/WBTCUSDT_1h.csv.gz'))
    assert thin.counts['zero_volume'] == 14 and thin.verdict == 'suspicious'
    dead = quality_report(read_table(shared_data / 'ohlcv/binance_spot_1h_defects/BTTUSDT_1h.csv.gz'))
    assert dead.missing == 11 and dead.verdict == 'broken'
