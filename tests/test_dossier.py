"The dossier: whole or not at all, and not one byte of it changes unnoticed."
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_lib.core.errors import BadInput, Damaged, Refused
from trading_lib.evidence.dossier import canonical, check_code, check_fresh, digest, read_dossier, write_dossier
from trading_lib.strategies.contract import code_files, find

ROOT = Path(__file__).resolve().parents[1]
RECORD = dict(name='dip', strategy='ideas.py:dip', params=dict(window=20, depth=.02), symbol='BTC/USDT', timeframe='1h', data_fingerprint='da7a',
              window_bars=60, costs=dict(fee_bps=10., slippage_bps=0.), initial_equity=1e4, code={'dip': 'c0de'}, verdict=dict(verdict='pass'),
              result=dict(sharpe=None), created='2024-01-01T00:00Z', expires='2024-03-01T00:00Z', feeds={}, revision='abc', note='größer')
FILES = {'report.html': b'<html>' * 10, 'notebook.ipynb': b'{}'}


@pytest.fixture
def folder(tmp_path) -> Path: return write_dossier(tmp_path / 'promotions', RECORD, FILES)


def test_a_dossier_reads_back_as_it_was_written(folder):
    dossier = read_dossier(folder)
    assert {name: getattr(dossier, name) for name in RECORD if name not in ('revision', 'note')} == {k: v for k, v in RECORD.items() if k not in ('revision', 'note')}
    assert dossier.more == dict(revision='abc', note='größer')
    assert set(dossier.files) == set(FILES) and dossier.id == folder.name


def test_its_json_says_everything_that_was_recorded(folder):
    dossier = read_dossier(folder)
    told = json.loads(json.dumps(dossier.json()))
    assert told['id'] == folder.name and told['folder'] == str(folder) and told['digest'] == dossier.digest
    assert {k: v for k, v in told.items() if k in RECORD} | told['more'] == RECORD


def test_it_is_found_by_folder_page_name_and_beginning_of_the_name(folder):
    root = folder.parent
    for name in (folder, str(folder), folder / 'dossier.json', folder.name, folder.name[:8], 'dip'):
        assert read_dossier(name, root).folder == folder


def test_an_ambiguous_beginning_is_refused_with_the_names(folder):
    other = write_dossier(folder.parent, {**RECORD, 'created': '2024-01-02T00:00Z'})
    with pytest.raises(BadInput, match=f'{min(folder, other).name}, {max(folder, other).name}'): read_dossier('dip', folder.parent)


def test_a_missing_one_is_answered_with_the_nearest_name(folder, tmp_path):
    with pytest.raises(BadInput, match=f'did you mean {folder.name}'): read_dossier(folder.name.replace('dip', 'dop'), folder.parent)
    with pytest.raises(BadInput, match='there is no promotion'): read_dossier('dip', tmp_path / 'nowhere')


def test_any_changed_byte_of_any_file_is_noticed(folder):
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for at in range(len(whole)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
            with pytest.raises(Damaged) as said: read_dossier(folder)
            assert path.name in str(said.value) and '\n' not in str(said.value)
        path.write_bytes(whole)
    read_dossier(folder)


@pytest.mark.parametrize('harm', [lambda p: p.write_bytes(b''), lambda p: p.write_bytes(p.read_bytes()[:-9]), lambda p: p.write_bytes(p.read_bytes() + b'\n'),
                                  lambda p: p.write_text('[]'), lambda p: p.write_text('{"digest": 3}'), lambda p: p.write_bytes(b'\xff\xfe'),
                                  lambda p: p.write_text(json.dumps(json.loads(p.read_text())))])
def test_a_page_that_was_cut_extended_or_rewritten_is_damaged(folder, harm):
    harm(folder / 'dossier.json')
    with pytest.raises(Damaged): read_dossier(folder)


def test_a_removed_file_and_a_renamed_folder_are_damage(folder):
    renamed = folder.rename(folder.with_name('dip-000000000000'))
    with pytest.raises(Damaged): read_dossier(renamed)
    renamed.rename(folder)
    (folder / 'report.html').unlink()
    with pytest.raises(Damaged, match='report.html'): read_dossier(folder)


def test_the_same_dossier_written_twice_is_one_folder_and_another_parameter_another(folder):
    assert write_dossier(folder.parent, dict(reversed(RECORD.items())), FILES) == folder
    assert write_dossier(folder.parent, {**RECORD, 'params': dict(window=21, depth=.02)}, FILES) != folder


def test_nothing_is_left_behind_when_the_disk_is_full(tmp_path):
    program = ('import resource, sys; from test_dossier import RECORD; from trading_lib.evidence.dossier import write_dossier\n'
               'from trading_lib.core.errors import BadInput\n'
               'resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n'
               'try: write_dossier(sys.argv[1], RECORD, {"a": b"x" * 100})\n'
               'except BadInput as error: sys.exit(str(error))')
    done = subprocess.run([sys.executable, '-B', '-c', program, str(tmp_path / 'p')], cwd=ROOT / 'tests', env={'PYTHONPATH': str(ROOT)}, capture_output=True, text=True)
    assert 'cannot be written' in done.stderr and len(done.stderr.splitlines()) == 1
    assert list((tmp_path / 'p').iterdir()) == []


@pytest.mark.parametrize('name', ['../escape', 'a/b', '.hidden', 'dossier.json', ''])
def test_file_names_cannot_leave_the_folder(tmp_path, name):
    with pytest.raises(BadInput, match='give a plain name'): write_dossier(tmp_path, RECORD, {name: b''})


def test_a_record_that_lacks_an_entry_or_a_file_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match='needs symbol'): write_dossier(tmp_path, {k: v for k, v in RECORD.items() if k != 'symbol'})
    with pytest.raises(BadInput, match='nowhere.html'): write_dossier(tmp_path, RECORD, {'page': tmp_path / 'nowhere.html'})
    assert list(tmp_path.iterdir()) == []


def test_changed_code_is_refused_by_its_name():
    strategy = find('sma_cross')
    code = code_files(strategy)
    judged = lambda code, root: read_dossier(write_dossier(root, {**RECORD, 'code': code}))
    root = Path(tempfile.mkdtemp())
    check_code(judged(code, root), strategy)
    with pytest.raises(Refused, match='trading_lib.signals.indicators changed'):
        check_code(judged({**code, 'trading_lib.signals.indicators': 'older'}, root), strategy)
    with pytest.raises(Refused, match='gone.py changed'): check_code(judged({**code, 'gone.py': 'x'}, root), strategy)


def test_it_is_fresh_until_the_moment_it_expires(folder):
    dossier = read_dossier(folder)
    check_fresh(dossier, '2024-02-29T23:59Z')
    with pytest.raises(Refused): check_fresh(dossier, '2024-03-01T00:00Z')


json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_canonical_text_does_not_depend_on_order_and_survives_a_round_trip(record):
    shuffled = dict(reversed(record.items()))
    assert canonical(shuffled) == canonical(record)
    assert canonical(json.loads(canonical(record))) == canonical(record)
    assert digest({**record, 'digest': 'x'}) == digest({k: v for k, v in record.items() if k != 'digest'})


def test_reading_a_dossier_loads_nothing_heavy(folder):
    program = ('import sys; from trading_lib.evidence.dossier import read_dossier; read_dossier(sys.argv[1])\n'
               'heavy = {"vectorbt", "sklearn", "jupyter_core", "nbformat", "plotly", "matplotlib", "IPython", "numba"} & set(sys.modules)\n'
               'sys.exit(f"loaded: {heavy}" if heavy else 0)')
    done = subprocess.run([sys.executable, '-c', program, str(folder)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('page', ['[]\n', 'null\n', '3\n', '"text"\n', '{}\n'])
def test_a_page_that_is_no_record_is_damaged(folder, page):
    (folder / 'dossier.json').write_text(page)
    with pytest.raises(Damaged, match='is not what was promoted'): read_dossier(folder)
