"""Backup and restore, within a database and across, and positions that follow from fills."""
import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from local_venue import postgres
from sqlalchemy import text
from test_audit import busy, populated

from production.backup import backup, fingerprints, manifest_of, restore
from production.journal import Journal, moved, opening
from production.journal.positions import Holding, exact
from trading_lib.core.errors import BadInput, Damaged, Refused
from trading_lib.core.settings import Settings
from trading_lib.execution.orders import Fill, Order, OrderState, advance

D, HOUR, ROOT = Decimal, 3_600_000, Path(__file__).parents[1]


@pytest.fixture
def empty(tmp_path):
    "A place for a journal in either database."
    with postgres() as address: yield dict(sqlite=f'sqlite:///{tmp_path / "there" / "journal.db"}', postgresql=address)


@pytest.fixture(params=['sqlite', 'postgresql'])
def settings(request, tmp_path, monkeypatch):
    "Settings whose journal has been busy."
    def load(address):
        monkeypatch.setenv('TRADING__PATHS__JOURNAL', address)
        return Settings.load(tmp_path)
    if request.param == 'sqlite': yield load('sqlite:///var/journal.db')
    else:
        with postgres() as address: yield load(address)


def filled_in(settings):
    with Journal.open(settings.journal_url) as journal:
        bot = busy(journal)
        order = Order('tw-x', 'BTC/USDT', 'sell', 'limit', D('0.001'), D('0.000000000000000001'), group='größer')
        journal.decide(bot, 99 * HOUR, inputs='', target=0.1 + 0.2, outcome='traded', reason='"quoted" \\ \n ünd', close=D('12345678901234567890.123456789012345678'), orders=[order])
        return content(journal)


def content(journal):
    with journal.engine.connect() as connection: return fingerprints(connection)


@pytest.mark.parametrize('there', ['sqlite', 'postgresql'])
def test_a_backup_is_restored_without_loss_also_into_the_other_database(settings, empty, there):
    before = filled_in(settings)
    made = backup(settings)
    assert made['tables'] == before and made['tables']['intent']['rows'] == 6 and made['audit']['rows'] == made['tables']['audit']['rows']
    found = restore(Path(made['file']), empty[there])
    assert found['tables'] == before and found['audit'] == made['audit']
    with Journal.open(empty[there]) as journal:
        assert content(journal) == before
        journal.verify(1)
        journal.resume('bert')   # keys and the chain go on
        journal.enrol('e' * 64, 'second', 'binance', 'ETH/USDT', '1h', 0, D(1), D(0))
        assert journal.verify_audit()['broken'] is None


def test_a_backup_is_made_while_a_bot_writes(settings):
    with Journal.open(settings.journal_url) as journal:
        busy(journal)
        made = backup(settings)
        journal.note('anna', 'later')
        assert made['audit']['rows'] == journal.verify_audit()['rows'] - 1
        end = made['audit']
        assert journal.verify_audit((end['last'], end['digest']))['broken'] is None


def test_a_damaged_backup_is_refused(settings, empty):
    filled_in(settings)
    path = Path(backup(settings)['file'])
    whole = path.read_bytes()
    path.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    with pytest.raises(Damaged, match='not the file that its manifest describes'): restore(path, empty['sqlite'])
    path.write_bytes(whole[:-4096])
    with pytest.raises(Damaged): restore(path, empty['postgresql'])
    path.write_bytes(whole)
    manifest_of(path).write_text('{')
    with pytest.raises(Damaged, match='not a manifest'): restore(path, empty['sqlite'])
    manifest_of(path).unlink()
    with pytest.raises(BadInput, match='no manifest'): restore(path, empty['sqlite'])
    assert not Path(opening.address(empty['sqlite']).database).exists()
    with Journal.open(empty['postgresql']) as journal: assert journal.status()['bots'] == []


def test_a_journal_that_was_tampered_with_is_not_backed_up_as_whole(settings):
    filled_in(settings)
    if settings.journal_url.startswith('postgresql'): pytest.skip('the same code; the triggers are in the way')
    with Journal.open(settings.journal_url) as journal, journal._session() as s:
        s.execute(text('drop trigger audit_no_update'))
        s.execute(text("update audit set actor = 'nobody' where id = 3"))
    with pytest.raises(Damaged, match='audit row 3 .* is broken'): backup(settings)
    assert [p.name for p in (settings.root / 'var' / 'backups').iterdir()] == []


@pytest.mark.parametrize('there', ['sqlite', 'postgresql'])
def test_a_place_that_holds_something_is_refused_and_left_alone(settings, empty, there):
    filled_in(settings)
    path = Path(backup(settings)['file'])
    with Journal.open(empty[there]) as journal:
        journal.halt('anna', 'mine')
        before = content(journal)
    with pytest.raises(Refused, match='is there already|holds a journal already'): restore(path, empty[there])
    with Journal.reader(empty[there]) as journal: assert content(journal) == before


def test_the_log_of_a_journal_that_was_moved_away_is_never_played_into_another(settings, tmp_path):
    filled_in(settings)
    path = Path(backup(settings)['file'])
    (tmp_path / 'there.db-wal').write_bytes(b'old')
    with pytest.raises(Damaged, match='is left of a journal that was moved away'): restore(path, str(tmp_path / 'there.db'))
    with pytest.raises(Damaged, match='is left of a journal that was moved away'): Journal.open(tmp_path / 'there.db')
    (tmp_path / 'there.db-wal').unlink()
    restore(path, str(tmp_path / 'there.db'))


def test_a_backup_of_an_earlier_program_is_brought_to_head(tmp_path, empty, monkeypatch):
    from hashlib import sha256
    path = tmp_path / 'old.db'
    populated(path)
    manifest_of(path).write_text(json.dumps(dict(made='2024-01-01T00:00:00Z', revision='0001', sha256=sha256(path.read_bytes()).hexdigest())))
    for there in empty.values():
        assert restore(path, there)['tables']['fill']['rows'] == 1
        with Journal.open(there) as journal: journal.verify(1)


def test_a_name_that_is_taken_is_refused(settings, tmp_path):
    filled_in(settings)
    (tmp_path / 'mine.db').write_text('precious')
    with pytest.raises(Refused, match='is there already'): backup(settings, tmp_path / 'mine.db')
    assert (tmp_path / 'mine.db').read_text() == 'precious'
    assert Path(backup(settings, tmp_path)['file']).parent == tmp_path


def test_a_kill_in_the_middle_of_a_restore_leaves_an_empty_place(settings, empty):
    filled_in(settings)
    path = Path(backup(settings)['file'])
    code = 'import os, signal, sys; from pathlib import Path; from production import backup as b; real = b.{0}\n' \
           'def {0}(*given):\n    {1}\n    os.kill(os.getpid(), signal.SIGKILL)\nb.{0} = {0}; b.restore(Path(sys.argv[1]), sys.argv[2])'
    for there, where, first in (('postgresql', '_copy', 'real(*given)'), ('sqlite', '_sync', 'pass')):
        died = subprocess.run([sys.executable, '-c', code.format(where, first), str(path), empty[there]], cwd=ROOT, capture_output=True, text=True)
        assert died.returncode == -signal.SIGKILL, died.stderr
        restore(path, empty[there])


def test_a_manifest_shows_no_password(settings, monkeypatch):
    filled_in(settings)
    if settings.journal_url.startswith('sqlite'): pytest.skip('it has none')
    secret = settings.journal_url.replace('postgres@', 'postgres:s3cret@')
    monkeypatch.setenv('TRADING__PATHS__JOURNAL', secret)
    made = backup(Settings.load(settings.root))
    assert 's3cret' not in json.dumps(made) + manifest_of(Path(made['file'])).read_text()


# positions

def traded(journal, *fills, cash='10000', position='0', close='100'):
    bot = journal.enrol('d' * 64, 'main', 'binance', 'BTC/USDT', '1h', 0, D(cash), D(position), 'sma_cross').id
    journal.decide(bot, 0, inputs='', target=0., outcome='held', reason='', close=D(close))
    for n, (side, quantity, price, fee, asset) in enumerate(fills, 1):
        order = Order(f'tw-{n}', 'BTC/USDT', side, 'market', D(quantity))
        journal.decide(bot, n * HOUR, inputs='', target=0., outcome='traded', reason='', close=D(price), orders=[order])
        journal.adopt(order.client_id, advance(OrderState(order), fills=[Fill(order.client_id, n, order.symbol, side, order.quantity, D(price), D(fee), asset, n)], id=n))
    [found] = journal.positions()
    return found


def test_a_position_has_its_average_cost_profit_and_fees(tmp_path):
    with Journal.open(tmp_path / 'j.db') as journal:
        found = traded(journal, ('buy', '1', '100', '0.1', 'USDT'), ('buy', '2', '110', '0.2', 'USDT'), ('sell', '1', '130', '0.13', 'USDT'), ('buy', '1', '120', '0.01', 'BNB'))
    # bought 3 for 320.3, a third of that sold for 129.87, one more for 120 (its fee in a third asset)
    assert found['average_cost'] == exact((Fraction('320.3') * 2 / 3 + 120) / 3)
    assert found['realised'] == exact(Fraction('129.87') - Fraction('320.3') / 3)
    assert found['unrealised'] == exact(3 * 120 - Fraction('320.3') * 2 / 3 - 120)
    assert found['realised'] + found['unrealised'] == found['equity'] - 10_000
    assert found['fees'] == dict(USDT=D('0.43'), BNB=D('0.01')) and found['strategy'] == 'sma_cross'


def test_a_fee_in_the_base_asset_raises_the_average_cost(tmp_path):
    with Journal.open(tmp_path / 'j.db') as journal: found = traded(journal, ('buy', '1', '99.9', '0.001', 'BTC'))
    assert (found['position'], found['average_cost'], found['realised']) == (D('0.999'), D('100'), D(0))


def test_what_was_found_at_the_start_counts_at_the_first_close(tmp_path):
    with Journal.open(tmp_path / 'j.db') as journal: found = traded(journal, ('sell', '2', '150', '0', 'USDT'), position='2', close='100')
    assert (found['average_cost'], found['realised'], found['unrealised'], found['position']) == (None, D(100), D(0), D(0))


def test_a_bot_without_a_decision_has_no_profit_yet(tmp_path):
    with Journal.open(tmp_path / 'j.db') as journal:
        journal.enrol('d', 'main', 'binance', 'BTC/USDT', '1h', 0, D(1), D(2))
        [found] = journal.positions()
    assert (found['unrealised'], found['close'], found['fees']) == (None, None, {})


fill = st.tuples(st.sampled_from(['buy', 'sell']), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(0, 100), st.sampled_from(['USDT', 'BTC', 'BNB']))


@given(st.lists(fill, max_size=30), st.integers(-10**6, 10**6), st.integers(1, 10**6))
def test_realised_and_unrealised_are_together_the_change_of_equity_whatever_was_traded(fills, opening_position, close):
    held, cash, position = Holding().moved(D(-opening_position * close), D(opening_position)), D(0), D(opening_position)
    for side, quantity, price, fee, asset in fills:
        d_cash, d_position = moved('BTC/USDT', Fill('', 1, 'BTC/USDT', side, D(quantity).scaleb(-4), D(price).scaleb(-2), D(fee).scaleb(-4), asset, 1))
        held, cash, position = held.moved(d_cash, d_position), cash + d_cash, position + d_position
    assert held.quantity == Fraction(position)
    assert held.realised + held.unrealised(D(close)) == Fraction(cash) + Fraction(position) * close - Fraction(opening_position) * close
    assert held.average is None or held.average * held.quantity == held.cost


def test_a_number_that_never_ends_is_given_to_eighteen_places():
    assert exact(Fraction(1, 3)) == D('0.333333333333333333') and exact(Fraction(-5, 2)) == D('-2.5') and exact(None) is None and exact(Fraction(10**20)) == D(10**20)


def test_the_backup_folder_is_left_clean(settings):
    filled_in(settings)
    made = Path(backup(settings)['file'])
    assert sorted(os.listdir(made.parent)) == [made.name, made.name + '.json']
