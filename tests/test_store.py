"""The store: every kind of file, and what happens when a write goes wrong."""
import errno
import gzip
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading_lib.core.errors import BadInput, Damaged
from trading_lib.market.bars import OHLCV, Sample
from trading_lib.market.store import Store, load_sample, merged, read_file, read_table, write_file, write_folder

ROOT = Path(__file__).resolve().parents[1]


def coin(bars=50, seed=3, start='2024-01-01'):
    walk = 100 * np.exp(np.random.default_rng(seed).normal(0, .01, bars + 1).cumsum())
    index = pd.date_range(start, periods=bars, freq='h', tz='UTC', name='time')
    table = pd.DataFrame(dict(open=walk[:-1], close=walk[1:], volume=1.5), index)
    table['high'], table['low'] = table[['open', 'close']].max(axis=1), table[['open', 'close']].min(axis=1)
    return table[OHLCV]


@pytest.fixture
def sample(): return Sample(coin(), 'COIN/USDT', '1h', 'a test')


@pytest.fixture
def store(tmp_path): return Store(tmp_path / 'store')


def one_line(error): return '\n' not in str(error.value)


# files

@pytest.mark.parametrize('name', ['bars.csv', 'bars.csv.gz', 'bars.parquet', 'bars.feather'])
def test_what_is_written_is_read_back_bit_for_bit(sample, tmp_path, name):
    back = read_file(write_file(sample, tmp_path / name))
    assert (back.fingerprint, back.symbol, back.synthetic, back.timeframe) == (sample.fingerprint, 'COIN/USDT', False, '1h')


def test_synthetic_bars_say_so_in_every_file(sample, tmp_path):
    made = replace(sample, synthetic=True)
    assert all(read_file(write_file(made, tmp_path / f'b{s}')).synthetic for s in ('.csv', '.csv.gz', '.parquet', '.feather'))


@pytest.mark.parametrize('unit,divisor', [('s', 10**9), ('ms', 10**6), ('us', 10**3), ('ns', 1)])
def test_integer_times_are_read_by_their_size(sample, tmp_path, unit, divisor):
    frame = sample.bars.reset_index()
    frame['time'] = frame['time'].dt.as_unit('ns').astype('int64') // divisor
    frame.rename(columns={'time': 'open_time'}).to_csv(tmp_path / 'epoch.csv', index=False)
    assert read_file(tmp_path / 'epoch.csv').fingerprint == sample.fingerprint


def test_capital_names_other_columns_and_a_zone_make_no_difference(sample, tmp_path):
    frame = sample.bars.tz_convert('Europe/Vienna').reset_index().rename(columns=str.title).assign(Returns=1., Close_Time='x')
    frame.rename(columns={'Time': 'Date'}).to_csv(tmp_path / 'COIN.csv', index=False)
    back = read_file(tmp_path / 'COIN.csv')
    assert back.fingerprint == sample.fingerprint and back.symbol == 'COIN' and list(back.bars) == OHLCV


def test_a_frame_saved_with_its_unnamed_index_is_bars(sample, tmp_path):
    sample.bars.rename_axis(None).to_parquet(tmp_path / 'index.parquet')
    assert read_file(tmp_path / 'index.parquet').fingerprint == sample.fingerprint


def test_named_columns_are_kept_and_others_are_not(sample, tmp_path):
    sample.bars.assign(mood=.5, noise=1.).to_csv(tmp_path / 'extra.csv')
    assert list(read_file(tmp_path / 'extra.csv', columns=('mood',)).bars) == [*OHLCV, 'mood']
    with pytest.raises(BadInput, match='no column moods'): read_file(tmp_path / 'extra.csv', columns=('moods',))


BAD_FILES = {
    'empty.csv': (b'', 'cannot be read as csv'),
    'empty.parquet': (b'', 'cannot be read as parquet'),
    'empty.feather': (b'', 'cannot be read as feather'),
    'empty.csv.gz': (b'', 'empty|cannot be read'),
    'header.csv': (b'time,open,high,low,close,volume\n', 'no bar'),
    'one.csv': (b'time,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n', 'one bar'),
    'garbage.csv': (bytes(range(256)) * 40, 'cannot be read|no table|no time column'),
    'garbage.parquet': (os.urandom(4096), 'cannot be read as parquet'),
    'garbage.feather': (os.urandom(4096), 'cannot be read as feather'),
    'garbage.csv.gz': (os.urandom(4096), 'cannot be read as csv.gz'),
    'cut.csv.gz': (gzip.compress(b'time,open,high,low,close,volume\n' + b'2024-01-01,1,1,1,1,1\n' * 9999)[:-30], 'cannot be read as csv.gz'),
    'page.csv': (b'<!DOCTYPE html>\n<html><body>Not found</body></html>\n', 'no time column|cannot be read'),
    'long.csv': (b'x' * 5000 + b'\n1\n', 'no table'),
    'prices.csv': (b'time,price\n2024-01-01,1\n2024-01-02,2\n', 'no column open'),
    'when.csv': (b'time,open,high,low,close,volume\nsoon,1,1,1,1,1\nlater,1,1,1,1,1\n', 'cannot be read; write'),
    'hole.csv': (b'time,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n,1,1,1,1,1\n', 'row 2 has no time'),
    'text.csv': (b'time,open,high,low,close,volume\n2024-01-01,1,1,1,many,1\n2024-01-02,1,1,1,1,1\n', "close was 'many' at 2024-01-01"),
    'nan.csv': (b'time,open,high,low,close,volume\n2024-01-01,1,1,1,,1\n2024-01-02,1,1,1,1,1\n', 'close was nan'),
    'inf.csv': (b'time,open,high,low,close,volume\n2024-01-01,1,inf,1,1,1\n2024-01-02,1,1,1,1,1\n', 'high was inf'),
    'twice.csv': (b'time,open,high,low,close,volume\n2024-01-01,1,1,1,1,1\n2024-01-01,1,1,1,1,1\n', 'appears twice'),
    'back.csv': (b'time,open,high,low,close,volume\n2024-01-02,1,1,1,1,1\n2024-01-01,1,1,1,1,1\n', 'out of order'),
    'minus.csv': (b'time,open,high,low,close,volume\n2024-01-01,-1,1,-1,1,1\n2024-01-02,1,1,1,1,1\n', 'open was -1'),
    'below.csv': (b'time,open,high,low,close,volume\n2024-01-01,1,.5,.1,1,1\n2024-01-02,1,1,1,1,1\n', 'high was 0.5'),
    'bars.xlsx': (b'PK', 'must end in .parquet'),
}


@pytest.mark.parametrize('name', BAD_FILES)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, store, name):
    content, says = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=says) as error: load_sample(str(tmp_path / name), store)
    assert one_line(error) and name in str(error.value) and len(str(error.value)) < 600


def test_a_missing_file_a_folder_and_a_missing_folder_are_bad_input(tmp_path, store):
    for where in (tmp_path / 'no.csv', tmp_path / 'no/where.csv', tmp_path):
        with pytest.raises(BadInput) as error: load_sample(str(where), store)
        assert one_line(error)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)), name=st.sampled_from(['a.csv', 'a.csv.gz', 'a.parquet', 'a.feather']))
def test_no_content_whatever_is_more_than_bad_input(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as error: read_file(tmp_path / name)
    assert one_line(error)


# the store

def test_bars_written_in_any_pieces_are_the_bars_written_at_once(store, sample):
    pieces = [sample.bars[30:], sample.bars[:20], sample.bars[15:35]]
    for piece in pieces: store.write(replace(sample, bars=piece), 'venue')
    back = store.read('COIN/USDT')
    assert back.bars.equals(sample.bars) and back.fingerprint == sample.fingerprint


def test_writing_twice_changes_no_byte(store, sample):
    store.write(sample, 'venue')
    path = store.path('venue', 'COIN/USDT', '1h')
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert store.write(sample, 'venue').added == 0
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_restated_bars_win_and_are_counted_for_ever(store, sample):
    store.write(sample, 'venue')
    for n, value in ((1, 7.), (2, 8.)):
        bars = sample.bars.copy(); bars.iloc[4, 4] = value
        assert store.write(replace(sample, bars=bars), 'venue').restated == 1
        assert store.catalog().restated.tolist() == [n]
    assert store.read('COIN/USDT').bars.volume.iloc[4] == 8


def test_a_column_that_is_new_is_not_lost(store, sample):
    store.write(sample, 'venue')
    store.write(replace(sample, bars=sample.bars.assign(mood=1.)), 'venue')
    assert load_sample('COIN/USDT', store, columns=('mood',)).bars.mood.eq(1).all()
    assert list(load_sample('COIN/USDT', store).bars) == OHLCV


@settings(max_examples=50, deadline=None)
@given(a=st.integers(0, 40), b=st.integers(1, 20), c=st.integers(0, 40), d=st.integers(1, 20))
def test_a_merge_has_every_bar_once_in_order(a, b, c, d):
    bars = coin(60)
    both, change = merged(bars[a:a + b], bars[c:c + d])
    assert both.index.is_unique and both.index.is_monotonic_increasing
    assert (change.bars, change.restated) == (len(set(range(a, a + b)) | set(range(c, c + d))), 0)
    assert both.equals(bars.loc[both.index])


def test_names_that_are_no_file_names_are_kept_apart(store, sample):
    symbols = ['BTC/USDT', 'BTC/USDT:USDT', '../../etc', 'a b', 'Ünï%2Fcode', '[x]*?', 'CON\n']
    for symbol in symbols: store.write(replace(sample, symbol=symbol), 'venue')
    assert sorted(s for _, s, _ in store.series()) == sorted(symbols)
    assert all(store.read(s).symbol == s for s in symbols)
    assert not (store.root.parent.parent / 'etc').exists()
    with pytest.raises(BadInput, match='need a name'): store.write(replace(sample, symbol='..'), 'venue')


def test_a_store_in_a_folder_with_glob_letters_works(tmp_path, sample):
    store = Store(tmp_path / 'a[b]*c')
    store.write(sample, 'venue')
    assert store.read('COIN/USDT').bars.equals(sample.bars)


def test_synthetic_and_real_bars_never_mix(store, sample):
    store.write(replace(sample, synthetic=True), 'venue')
    with pytest.raises(BadInput, match='another exchange name'): store.write(sample, 'venue')
    assert store.read('COIN/USDT').synthetic


def test_a_window_takes_its_start_and_leaves_its_end(store, sample):
    store.write(sample, 'venue')
    part = store.read('COIN/USDT', start=sample.bars.index[5], end=sample.bars.index[8])
    assert part.bars.equals(sample.bars[5:8])
    file = load_sample(write_file(sample, store.root.parent / 'c.csv'), store, start=sample.bars.index[5], end=sample.bars.index[8])
    assert file.fingerprint == part.fingerprint
    with pytest.raises(BadInput, match='no bar from 2030'): store.read('COIN/USDT', start='2030-01-01')


def test_the_choices_are_named_where_a_symbol_is_there_twice(store, sample):
    store.write(sample, 'kraken'); store.write(sample, 'binance')
    with pytest.raises(BadInput, match='binance COIN/USDT 1h, kraken COIN/USDT 1h'): load_sample('COIN/USDT', store)
    assert load_sample('coinusdt', store, exchange='kraken').symbol == 'COIN/USDT'
    with pytest.raises(BadInput, match='nothing for kraken 4h'): load_sample('COIN/USDT', store, exchange='kraken', timeframe='4h')
    with pytest.raises(BadInput, match='did you mean COIN/USDT'): load_sample('COIN/USD', store)


def test_an_empty_store_says_how_to_fill_it(store):
    with pytest.raises(BadInput, match='trading data pull BTC/USDT'): load_sample('BTC/USDT', store)
    assert store.catalog().empty and not store.root.exists()


def test_gaps_are_refused_where_they_are_and_not_elsewhere(store, sample):
    store.write(replace(sample, bars=sample.bars.drop(sample.bars.index[[10, 11, 30]])), 'venue')
    with pytest.raises(BadInput, match='3 bars missing in 2 places, first 2 after 2024-01-01T09:00Z') as error: load_sample('COIN/USDT', store)
    assert one_line(error)
    assert len(load_sample('COIN/USDT', store, allow_gaps=True).bars) == 47
    assert len(load_sample('COIN/USDT', store, end='2024-01-01T10:00').bars) == 10
    row = store.catalog().iloc[0]
    assert (row.gaps, row.missing, row.bars) == (2, 3, 47)


def test_a_fetch_time_is_what_the_caller_says(store, sample):
    store.write(sample, 'venue', fetched='2024-02-01T00:00Z')
    assert store.catalog().fetched.iloc[0] == pd.Timestamp('2024-02-01', tz='UTC')


# what goes wrong

def full_disk(*_): raise OSError(errno.ENOSPC, 'No space left on device')


@pytest.mark.parametrize('call', ['fsync', 'replace'])
def test_a_full_disk_is_one_line_and_leaves_what_was_there(store, sample, monkeypatch, call):
    store.write(replace(sample, bars=sample.bars[:20]), 'venue')
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(BadInput, match='No space left on device.*Free space') as error: store.write(sample, 'venue')
    monkeypatch.undo()
    assert one_line(error)
    assert store.read('COIN/USDT').bars.equals(sample.bars[:20])
    assert not [p for p in store.root.rglob('*') if p.is_file() and p.suffix not in ('.parquet', '.lock')]


def test_a_store_where_a_file_is_cannot_be_written(tmp_path, sample):
    (tmp_path / 'file').touch()
    with pytest.raises(BadInput, match='cannot be written'): Store(tmp_path / 'file').write(sample, 'venue')


@pytest.mark.parametrize('harm', ['cut', 'empty', 'foreign', 'moved'])
def test_a_damaged_series_is_said_and_never_repaired(store, sample, harm):
    store.write(sample, 'venue')
    path = store.path('venue', 'COIN/USDT', '1h')
    whole = path.read_bytes()
    if harm == 'cut': path.write_bytes(whole[:len(whole) // 2])
    if harm == 'empty': path.write_bytes(b'')
    if harm == 'foreign': sample.bars.reset_index().to_parquet(path)
    if harm == 'moved':
        import pyarrow.parquet as pq
        table = pq.read_table(path)
        pq.write_table(table.set_column(4, 'close', [table['close'].to_numpy() + 1e-6]), path)
    with pytest.raises(Damaged, match='restore it from a backup'): store.read('COIN/USDT')
    with pytest.raises(Damaged): store.write(sample, 'venue')


def test_two_processes_that_write_at_once_lose_nothing(store, sample):
    program = '''
import sys
sys.path[:0] = [sys.argv[3], sys.argv[3] + '/tests']
from test_store import coin, Sample, Store
store, part, bars = Store(sys.argv[1]), int(sys.argv[2]), coin(60)
for i in range(part, 60, 2): store.write(Sample(bars[i:i + 1], 'COIN/USDT', '1h', 'a process'), 'venue')
'''
    both = [subprocess.Popen([sys.executable, '-c', program, str(store.root), str(part), str(ROOT)]) for part in (0, 1)]
    assert [p.wait(120) for p in both] == [0, 0]
    assert store.read('COIN/USDT').bars.equals(coin(60))


def test_a_writer_killed_at_any_moment_leaves_old_or_new(store, sample):
    program = '''
import sys
sys.path[:0] = [sys.argv[2], sys.argv[2] + '/tests']
from test_store import coin, Sample, Store
store, bars = Store(sys.argv[1]), coin(5000)
print('go', flush=True)
for n in range(1, 5000, 50): store.write(Sample(bars[:n + 1], 'COIN/USDT', '1h', 'a process'), 'venue')
'''
    for delay in (.02, .05, .11):
        writer = subprocess.Popen([sys.executable, '-c', program, str(store.root), str(ROOT)], stdout=subprocess.PIPE)
        writer.stdout.readline()
        try: writer.wait(delay)
        except subprocess.TimeoutExpired: pass
        writer.kill(); writer.wait()
        if store.series():
            back = store.read('COIN/USDT')
            assert back.bars.equals(coin(5000)[:len(back.bars)])
    assert store.write(Sample(coin(5000), 'COIN/USDT', '1h', 'a test'), 'venue').bars == 5000


# facts

def test_facts_of_one_moment_are_all_kept_and_none_twice(store):
    at = pd.DatetimeIndex(['2024-01-01T05:00Z', '2024-01-01T05:00Z', '2024-01-01T03:00Z'])
    facts = pd.DataFrame(dict(text=['one', 'two', 'three'], score=[.1, .2, .3]), at)
    assert [store.write_facts('headlines', 'COIN/USDT', facts, 'venue') for _ in range(2)] == [3, 0]
    back = store.read_facts('headlines', 'coinusdt')
    assert back.text.tolist() == ['three', 'one', 'two'] and back.index.name == 'known_at' and str(back.index.tz) == 'UTC'


def test_facts_without_a_known_time_are_refused(store):
    timeless = pd.DataFrame(dict(text=['x']))
    with pytest.raises(BadInput, match='UTC time each became known'): store.write_facts('headlines', 'COIN/USDT', timeless, 'venue')
    with pytest.raises(BadInput, match='no headlines of COIN'): store.read_facts('headlines', 'COIN/USDT')


def test_facts_of_two_exchanges_are_two_series(store):
    real, made = (pd.DataFrame(dict(text=[text]), pd.DatetimeIndex(['2024-01-01T05:00Z'])) for text in ('real', 'made up'))
    store.write_facts('headlines', 'COIN/USDT', real, 'kraken')
    store.write_facts('headlines', 'COIN/USDT', made, 'synthetic')
    assert store.read_facts('headlines', 'coinusdt', 'synthetic').text.tolist() == ['made up']
    choices = '2 times: kraken COIN/USDT, synthetic COIN/USDT; name the exchange'
    with pytest.raises(BadInput, match=choices): store.read_facts('headlines', 'COIN/USDT')
    with pytest.raises(BadInput, match='no headlines of binance COIN/USDT'): store.read_facts('headlines', 'COIN/USDT', 'binance')


# whole folders

def test_a_folder_is_readable_by_others_and_is_never_written_into(tmp_path):
    assert write_folder(tmp_path / 'deep/down', {'a': b'1', 'b': b'2'})
    assert (tmp_path / 'deep/down').stat().st_mode & 0o777 == 0o755
    assert not write_folder(tmp_path / 'deep/down', {'a': b'3', 'c': b'4'})
    assert {p.name: p.read_bytes() for p in (tmp_path / 'deep/down').iterdir()} == {'a': b'1', 'b': b'2'}
    assert [p.name for p in (tmp_path / 'deep').iterdir()] == ['down']


@pytest.mark.parametrize('call', ['fsync', 'rename'])
def test_a_full_disk_leaves_no_part_of_a_folder(tmp_path, monkeypatch, call):
    monkeypatch.setattr(os, call, full_disk)
    with pytest.raises(BadInput, match='No space left on device.*Free space') as error: write_folder(tmp_path / 'model', {'a': b'1'})
    assert one_line(error) and str(tmp_path / 'model') in str(error.value) and not list(tmp_path.iterdir())


# real files

def test_every_real_hourly_file_is_read_and_its_holes_are_as_documented(shared_data, store):
    for path in sorted((shared_data / 'ohlcv/binance_usdm_1h').glob('*.parquet')):
        perp = load_sample(str(path), store)
        assert (perp.symbol, perp.timeframe, len(perp.bars)) == (path.stem, '1h', 27952)
    for path in sorted((shared_data / 'ohlcv/binance_spot_1h').glob('*.parquet')):
        with pytest.raises(BadInput, match='12 bars missing in 5 places, first 2 after 2021-04-20T01:00Z'): load_sample(str(path), store)
        assert load_sample(str(path), store, allow_gaps=True).symbol == path.stem.split('_')[0]


def test_other_real_files_are_what_their_makers_meant(shared_data, store):
    ohlcv = shared_data / 'ohlcv'
    vienna = read_file(ohlcv / 'raw_csv_samples/binance_usdm_SOLUSDT_1h_first2000_tz+0300.csv.gz')
    perp = read_file(ohlcv / 'binance_usdm_1h/SOLUSDT_1h_2020-10_2023-12.parquet')
    assert vienna.fingerprint == replace(perp, bars=perp.bars[:2000]).fingerprint
    assert read_file(ohlcv / 'freqtrade/ETH_BTC-5m.feather').timeframe == '5m'
    assert len(read_file(ohlcv / 'misc/backtestingpy_BTCUSD.csv').bars) == 156
    assert len(read_file(ohlcv / 'binance_daily_all_symbols/binance_daily_ohlcv_2022.parquet', symbol='btcusdt').bars) == 365
    with pytest.raises(BadInput, match='holds 110 symbols; choose one by name'): read_file(ohlcv / 'binance_daily_all_symbols/binance_daily_ohlcv_2022.parquet')
    with pytest.raises(BadInput, match='no column open'): read_file(ohlcv / 'freqtrade/XRP_ETH-trades.parquet')


def test_a_real_file_goes_through_the_store_and_out_of_it(btc_hourly, store, tmp_path):
    perp = read_file(btc_hourly)
    store.write(replace(perp, symbol='BTC/USDT:USDT'), 'binanceusdm')
    assert store.read('BTC/USDT:USDT').fingerprint == perp.fingerprint == read_file(write_file(perp, tmp_path / 'out.csv.gz')).fingerprint
    assert len(read_table(tmp_path / 'out.csv.gz')) == 27952
