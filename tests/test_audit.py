"""The audit is a chain, and a journal of an earlier program comes along whole: on SQLite and on PostgreSQL alike."""
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from local_venue import postgres
from sqlalchemy import create_engine, inspect, text

from production.journal import Journal, chain, opening
from production.journal.tables import HEAD
from trading_lib.core.errors import Damaged, Refused
from trading_lib.execution.orders import Fill, Order, OrderState, advance

D, HOUR, ROOT = Decimal, 3_600_000, Path(__file__).parents[1]
OLD = [(i, 1_700_000_000_000 + i, 'runner', 'fence', {'client_id': f'tw-{i}', 'sent_at': i, 'why': 'größer "als" 1.10'}) for i in range(1, 8) if i != 4]


@pytest.fixture(params=['sqlite', 'postgresql'])
def where(request, tmp_path):
    "An address where no journal is yet."
    if request.param == 'sqlite': yield tmp_path / 'journal.db'
    else:
        with postgres() as address: yield address


def raw(where):
    "Straight into the database, as somebody with an editor would."
    return create_engine(opening.address(where))


def populated(where):
    "A journal as the program of revision 0001 left it: a bot, its decision, an order with its fill, a halt, an audit with a gap."
    engine = raw(where)
    with engine.begin() as c:
        opening.upgrade(c, '0001')
        c.execute(text("insert into bot values (1, :d, 'main', 'binance', 'BTC/USDT', '1h', 0, 3600000, 3600000, 'READY', '10000', '0', '1599.9', '0.1998')"), dict(d='d' * 64))
        c.execute(text("insert into decision values (1, 1, 3600000, :d, 0.5, 'traded', '', '42000.5', '10000', '0', 5)"), dict(d='f' * 64))
        c.execute(text('''insert into intent values (1, 'tw-1', 1, 3600000, 0, 'buy', 'market', '0.2', null, null, 'FILLED', '0.2', '', '28', 1000, 5000, 1, 5)'''))
        c.execute(text("insert into fill values (1, 1, 'binance', 'main', 'BTC/USDT', '7', 'buy', '0.2', '42000.5', '0.0002', 'BTC', 9)"))
        c.execute(text("insert into halt values (1, '*', 7, 'anna', 'news', null, null)"))
        audit = sa.table('audit', *(sa.column(n) for n in ('id', 'at', 'actor', 'event')), sa.column('detail', sa.JSON))
        c.execute(audit.insert(), [dict(zip(('id', 'at', 'actor', 'event', 'detail'), row, strict=True)) for row in OLD])
        if c.dialect.name == 'postgresql':
            for table in ('bot', 'decision', 'intent', 'fill', 'halt', 'audit'):
                c.execute(text(f"select setval(pg_get_serial_sequence('{table}', 'id'), (select max(id) from {table}))"))
    engine.dispose()


def busy(journal, bars=range(1, 6)):
    "A bot that trades a little, and a person who interferes."
    bot = journal.enrol('d' * 64, 'main', 'binance', 'BTC/USDT', '1h', 0, D(10_000), D(0), 'sma_cross').id
    for bar in bars:
        order = Order(f'tw-{bar}', 'BTC/USDT', 'buy', 'market', D('0.01'))
        journal.decide(bot, bar * HOUR, inputs='f' * 64, target=.1 * bar, outcome='traded', reason='', close=D('42000.5'), orders=[order])
        journal.fence(order.client_id, bar, 5_000)
        fill = Fill(order.client_id, str(bar), order.symbol, 'buy', order.quantity, D('42000.5'), D('0.00001'), 'BTC', bar)
        journal.adopt(order.client_id, advance(OrderState(order), fills=[fill], id=str(bar)))
    journal.halt('anna', 'news')
    return bot


def tampered(where, *statements):
    "Change rows behind the triggers' back, as a broken disk or a determined person would."
    engine = raw(where)
    with engine.begin() as c:
        if c.dialect.name == 'postgresql': c.execute(text('alter table audit disable trigger all'))
        else:
            for event in ('update', 'delete'): c.execute(text(f'drop trigger audit_no_{event}'))
        for statement in statements: c.execute(text(statement))
    engine.dispose()


def test_every_decision_order_and_hand_movement_is_in_the_audit_and_the_chain_holds(where):
    with Journal.open(where) as journal:
        busy(journal)
        assert {row['event'] for row in journal.audit()} == {'enrol', 'decide', 'fence', 'adopt', 'halt'}
        found = journal.verify_audit()
        assert found['broken'] is None and found['rows'] == found['last'] == len(journal.audit()) == 17
        assert journal.audit('decide')[0]['detail']['orders'] == [dict(client_id='tw-1', side='buy', kind='market', quantity='0.01')]
        assert journal.audit('adopt')[0]['detail']['fills'] == [['1', '0.01', '42000.5', '0.00001', 'BTC']]
        assert journal.verify_audit((found['last'], found['digest']))['broken'] is None


def test_the_digest_does_not_depend_on_the_database(tmp_path):
    ends = []
    with postgres() as address:
        for where in (tmp_path / 'j.db', address):
            with Journal.open(where, now=lambda: 1_700_000_000_000) as journal:
                busy(journal)
                ends.append(journal.verify_audit()['digest'])
    assert ends[0] == ends[1]


@pytest.mark.parametrize(('statement', 'broken'), [
    ("update audit set actor = 'nobody' where id = 9", 9),
    ("update audit set detail = '{}' where id = 3", 3),
    ('delete from audit where id = 5', 6),
    ('delete from audit where id = 1', 2),
    ('delete from audit where id > 12', 13),
    ('delete from audit', 1),
    ('update audit set id = case id when 8 then -1 else id end; update audit set id = 8 where id = 9; update audit set id = 9 where id = -1', 8),
    ("insert into audit (id, at, actor, event, detail, digest) values (99, 1, 'anna', 'halt', '{}', '')", 99)])
def test_a_row_that_is_edited_removed_moved_cut_off_or_added_by_hand_is_named(where, statement, broken):
    with Journal.open(where) as journal: busy(journal)
    tampered(where, *statement.split('; '))
    with Journal.reader(where) as journal: assert journal.verify_audit()['broken'] == broken


def test_a_chain_that_was_forged_whole_is_told_by_an_end_written_down_elsewhere(where):
    with Journal.open(where) as journal:
        busy(journal)
        end = journal.verify_audit()
    tampered(where, 'delete from audit where id > 10', "update audit_end set last = 10, digest = (select digest from audit where id = 10)")
    with Journal.reader(where) as journal:
        assert journal.verify_audit()['broken'] is None
        assert journal.verify_audit((end['last'], end['digest']))['broken'] == end['last']


@pytest.mark.parametrize('table', ['audit', 'decision', 'fill'])
@pytest.mark.parametrize('change', ['update {} set id = id + 100', 'delete from {}'])
def test_the_database_refuses_to_change_or_remove_what_happened(where, table, change):
    with Journal.open(where) as journal:
        busy(journal)
        with pytest.raises(Exception, match=f'rows of {table} are only ever added'), journal._session() as s: s.execute(text(change.format(table)))
        assert journal.verify_audit()['broken'] is None


def test_postgresql_refuses_to_empty_the_audit():
    with postgres() as address, Journal.open(address) as journal:
        busy(journal)
        with pytest.raises(Exception, match='only ever added'), journal._session() as s: s.execute(text('truncate audit'))


def test_a_transaction_that_fails_leaves_no_row_in_the_audit(where):
    with Journal.open(where) as journal:
        bot = busy(journal)
        before = journal.verify_audit()
        with pytest.raises(Refused): journal.adopt('tw-1', OrderState(Order('tw-1', 'BTC/USDT', 'buy', 'market', D(1)), 'OPEN'))
        with pytest.raises(Refused): journal.decide(bot, HOUR, inputs='', target=0., outcome='held', reason='', close=D(1))
        assert journal.verify_audit() == before


def test_several_writers_on_postgresql_make_one_chain():
    with postgres() as address, Journal.open(address) as first, Journal.open(address) as second, Journal.open(address) as third:
        def write(journal):
            for i in range(25): journal.note('anna', 'note', number=i)
        threads = [threading.Thread(target=write, args=(journal,)) for journal in (first, second, third)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert first.verify_audit() | dict(digest='') == dict(rows=75, last=75, digest='', broken=None, why=None)


def test_what_cannot_be_written_the_same_twice_is_refused():
    for value in (float('nan'), {1, 2}, object()):
        with pytest.raises((TypeError, ValueError)): chain.canonical(value)
    assert chain.canonical(dict(b=D('1.10'), a=.1)) == '{"a":0.1,"b":"1.1"}'


# a journal of revision 0001

def test_a_journal_of_an_earlier_program_comes_along_without_loss(where):
    populated(where)
    with pytest.raises(Refused, match='trading migrate'): Journal.reader(where)
    with Journal.open(where) as journal:
        [bot] = journal.status()['bots']
        journal.verify(bot['id'])
        assert (bot['cash'], bot['position'], bot['strategy']) == (D('1599.9'), D('0.1998'), '')
        [order] = journal.orders()
        assert (order['client_id'], order['kind'], order['group'], order['quantity']) == ('tw-1', 'market', None, D('0.2'))
        assert [f['trade_id'] for f in journal.fills()] == ['7'] and journal.halted().startswith('halted by anna')
        assert [tuple(row[k] for k in ('id', 'at', 'actor', 'event', 'detail')) for row in journal.audit()] == OLD
        journal.resume('bert')
        found = journal.verify_audit()
        assert found['broken'] is None and found['rows'] == len(OLD) + 1
        journal.decide(1, 2 * HOUR, inputs='', target=0., outcome='traded', reason='', close=D(1),
                       orders=[Order('tw-2', 'BTC/USDT', 'sell', 'take_profit', D(1), stop_price=D(2), group='exit')])
        assert (journal.intent('tw-2').kind, journal.intent('tw-2').group) == ('take_profit', 'exit')


def test_an_upgraded_journal_has_the_tables_of_a_new_one(where, tmp_path):
    def shape(address):
        engine = raw(address)
        look = inspect(engine)
        found = {table: (sorted((c['name'], str(c['type']), c['nullable']) for c in look.get_columns(table)),
                         sorted(str(u['column_names']) for u in look.get_unique_constraints(table)), sorted(str(i['column_names']) for i in look.get_indexes(table)),
                         [f['referred_table'] for f in look.get_foreign_keys(table)], sorted(c['sqltext'] for c in look.get_check_constraints(table)))
                 for table in look.get_table_names()}
        engine.dispose()
        return found
    populated(where)
    Journal.open(where).close()
    found = shape(where)
    assert "['client_id']" in found['intent'][1] and "['bot_id', 'bar', 'seq']" in found['intent'][1] and "['status']" in found['intent'][2]
    assert found['fill'][3] == ['intent'] and found['intent'][3] == ['bot']
    if str(where).startswith('postgresql'):
        with postgres() as fresh:
            Journal.open(fresh).close()
            assert shape(fresh) == found
    else:
        Journal.open(tmp_path / 'fresh.db').close()
        assert shape(tmp_path / 'fresh.db') == found


KILLED = '''
import os, signal, sys
from alembic import op
from production.journal import Journal
import production.journal.chain as chain
calls = 0
def dying(*given, real=chain.digest_of):
    global calls
    calls += 1
    if calls == {call}: os.kill(os.getpid(), signal.SIGKILL)
    return real(*given)
chain.digest_of = dying
if {call} == 0:
    real_run = op.batch_alter_table
    def batch(name):
        os.kill(os.getpid(), signal.SIGKILL)
    op.batch_alter_table = batch
Journal.open(sys.argv[1])
'''


@pytest.mark.parametrize('call', [0, 1, 4])
def test_a_kill_in_the_middle_of_an_upgrade_recovers(where, call):
    populated(where)
    died = subprocess.run([sys.executable, '-c', KILLED.format(call=call), str(where)], cwd=ROOT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    with pytest.raises(Refused, match='revision 0001'): Journal.reader(where)
    with Journal.open(where) as journal:
        assert journal.verify_audit()['rows'] == len(OLD) and len(journal.orders()) == 1
        journal.verify(1)
    assert not str(where).endswith('.db') or [p for p in os.listdir(Path(where).parent) if 'tmp' in p] == []


def test_a_journal_of_a_newer_program_is_refused_and_left_alone(where):
    Journal.open(where).close()
    engine = raw(where)
    with engine.begin() as c: c.execute(text("update journal_version set version_num = '0999'"))
    for opened in (Journal.open, Journal.reader):
        with pytest.raises(Damaged, match=f'revision 0999 and this program needs {HEAD}'): opened(where)
    with engine.begin() as c: assert c.scalar(text('select version_num from journal_version')) == '0999'
    engine.dispose()


def test_content_that_cannot_be_read_any_more_is_a_broken_row(tmp_path):
    path = tmp_path / 'journal.db'
    with Journal.open(path) as journal:
        for k in range(4): journal.note('ann', 'test', k=k)
    with sqlite3.connect(path) as db: db.executescript("drop trigger audit_no_update; update audit set detail='{bad' where id=3")
    with Journal.reader(path) as journal: assert journal.verify_audit()['broken'] == 3
