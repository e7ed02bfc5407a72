"""The journal: each step whole or not at all, on SQLite and on PostgreSQL alike."""
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from local_venue import postgres
from sqlalchemy import text

from production.journal import Journal
from production.journal.tables import HEAD, Table
from trading_lib.core.errors import BadInput, Damaged, Refused
from trading_lib.execution.orders import Fill, Order, OrderState, advance

D, HOUR = Decimal, 3_600_000


@pytest.fixture(params=['sqlite', 'postgresql'])
def where(request, tmp_path):
    "An address where no journal is yet."
    if request.param == 'sqlite': yield tmp_path / 'journal.db'
    else:
        with postgres() as address: yield address


@pytest.fixture
def journal(where):
    with Journal.open(where, now=lambda: 1_700_000_000_000) as journal: yield journal


def enrolled(journal): return journal.enrol('d' * 64, 'main', 'binance', 'BTC/USDT', '1h', 0, D(10_000), D(0)).id


def order(name='tw-1', side='buy', quantity='0.2'): return Order(name, 'BTC/USDT', side, 'market', D(quantity))


def decided(journal, bot, bar=HOUR, orders=(), outcome='traded', **more):
    return journal.decide(bot, bar, **dict(inputs='f' * 64, target=.5, outcome=outcome, reason='', close=D('42000.5'), orders=orders) | more)


def filled(order, trade='7', price='42000.5', fee='0.0002', asset='BTC'):
    fill = Fill(order.client_id, trade, order.symbol, order.side, order.quantity, D(price), D(fee), asset, 1_700_000_000_000)
    return advance(OrderState(order), fills=[fill], id='28')


def test_a_new_journal_is_at_head_and_its_tables_are_the_models(where):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext
    with Journal.open(where) as journal, journal.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={'version_table': 'journal_version', 'compare_type': True})
        assert context.get_current_revision() == HEAD
        assert compare_metadata(context, Table.metadata) == []


def test_head_is_the_newest_revision():
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    config = Config()
    config.set_main_option('script_location', 'production.journal:migrations')
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_money_comes_back_as_it_was_written(journal):
    bot = journal.enrol('d', 'main', 'v', 'BTC/USDT', '1h', 0, D('12345678901234567890.123456789012345678'), D('1E-8'))
    row = journal.reread(bot.id)
    assert (row.cash, row.position) == (D('12345678901234567890.123456789012345678'), D('0.00000001'))


def test_a_float_is_never_written_as_money(journal):
    with pytest.raises(Exception, match='money must be Decimal, not float'): journal.enrol('d', 'a', 'v', 'BTC/USDT', '1h', 0, 10_000., D(0))


def test_a_decision_is_written_with_its_intents_and_cursor(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order('tw-1'), order('tw-2')])
    assert journal.reread(bot).cursor == HOUR
    assert [(i.client_id, i.seq, i.status, i.quantity) for i in journal.intents(bot)] == [('tw-1', 0, 'NEW', D('0.2')), ('tw-2', 1, 'NEW', D('0.2'))]
    assert journal.target(bot) == .5


def test_a_bar_is_decided_once(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    with pytest.raises(Refused, match='decided before'): decided(journal, bot, orders=[order('tw-2')])
    assert [i.client_id for i in journal.intents(bot)] == ['tw-1']


def test_a_decision_that_cannot_be_whole_is_not_there_at_all(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    with pytest.raises(Refused, match='written down before'): decided(journal, bot, bar=2 * HOUR, orders=[order('tw-2'), order('tw-1')])
    assert journal.reread(bot).cursor == HOUR
    assert len(journal.equity(bot)) == len(journal.intents(bot)) == 1


def test_fence_records_the_timestamp_and_each_attempt(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    journal.fence('tw-1', 1_000, 5_000)
    again = journal.fence('tw-1', 9_000, 5_000)
    assert (again.status, again.sent_at, again.window, again.attempts) == ('UNKNOWN', 9_000, 5_000, 2)
    assert [row['detail']['sent_at'] for row in journal.audit('fence')] == [1_000, 9_000]


def test_adopting_moves_cash_and_position_once(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    journal.fence('tw-1', 1_000, 5_000)
    for _ in range(3): journal.adopt('tw-1', filled(order()))
    row = journal.reread(bot)
    assert (row.cash, row.position) == (D(10_000) - D('8400.1'), D('0.1998'))
    assert [(f['trade_id'], f['client_id']) for f in journal.fills(bot)] == [('7', 'tw-1')]
    journal.verify(bot)


def test_a_sale_pays_its_fee_from_what_it_receives_and_a_third_asset_moves_neither(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order(), order('tw-2', 'sell'), order('tw-3', 'sell')])
    journal.adopt('tw-1', filled(order(), '7', '100', '0.0002', 'BTC'))
    journal.adopt('tw-2', filled(order('tw-2', 'sell'), '8', '200', '0.04', 'USDT'))
    journal.adopt('tw-3', filled(order('tw-3', 'sell'), '9', '200', '0.001', 'BNB'))
    row = journal.reread(bot)
    assert (row.cash, row.position) == (D(10_000) - 20 + D('39.96') + 40, D('0.1998') - D('0.4'))


def test_what_is_final_stays_final(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    journal.adopt('tw-1', filled(order()))
    with pytest.raises(Refused, match='cannot become'): journal.adopt('tw-1', OrderState(order(), 'CANCELED', filled=D('0.2')))
    with pytest.raises(Refused, match='cannot become'): journal.adopt('tw-1', OrderState(order(), 'FILLED', filled=D('0.1')))
    with pytest.raises(Refused, match='cannot become'): journal.reject('tw-1', 'LOT_SIZE')
    with pytest.raises(Refused, match='not sent again'): journal.fence('tw-1', 1, 1)


def test_fills_that_do_not_sum_to_what_the_venue_says_are_refused_whole(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    short = filled(order())
    with pytest.raises(Refused, match='fills sum'): journal.adopt('tw-1', OrderState(order(), 'FILLED', D('0.2'), D(1), (), id='28'))
    with pytest.raises(Refused, match='was answered with'): journal.adopt('tw-1', filled(order('other')))
    assert journal.fills(bot) == [] and journal.reread(bot).cash == 10_000
    journal.adopt('tw-1', short)


def test_a_bar_without_orders_is_settled_as_it_is_decided(journal):
    bot = enrolled(journal)
    decided(journal, bot, outcome='held')
    assert journal.reread(bot).settled == HOUR
    decided(journal, bot, bar=2 * HOUR, orders=[order()])
    assert journal.reread(bot).settled == HOUR


def test_a_bar_in_doubt_cannot_be_settled(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    journal.fence('tw-1', 1_000, 5_000)
    journal.unknown('tw-1', 'connection reset')
    with pytest.raises(Refused, match='tw-1 unresolved'): journal.settle(bot, HOUR)
    journal.adopt('tw-1', filled(order()))
    journal.settle(bot, HOUR)
    assert journal.reread(bot).settled == HOUR


def test_while_the_latch_holds_nothing_is_fenced(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    journal.halt('anna', 'news', scope='binance/other')
    journal.fence('tw-1', 1, 1)
    journal.halt('anna', 'a strange price')
    with pytest.raises(Refused, match='halted by anna: a strange price'): journal.fence('tw-1', 2, 1)
    assert journal.intent('tw-1').attempts == 1
    assert journal.resume('bert') == 2
    journal.fence('tw-1', 3, 1)
    assert [(row['actor'], row['event']) for row in journal.audit() if row['event'] in ('halt', 'resume')] == [
        ('anna', 'halt'), ('anna', 'halt'), ('bert', 'resume')]


def test_the_latch_survives_a_restart(where):
    with Journal.open(where) as journal: journal.halt('anna', 'news')
    with Journal.open(where) as journal: assert journal.halted('binance', 'main').startswith('halted by anna: news')


def test_readers_see_the_books_while_a_runner_writes(where):
    with Journal.open(where) as journal:
        bot = enrolled(journal)
        decided(journal, bot, orders=[order()])
        reader = Journal.reader(where)
        journal.adopt('tw-1', filled(order()))
        decided(journal, bot, bar=2 * HOUR, outcome='held', close=D(43_000))
        [seen] = reader.status()['bots']
        assert (seen['cursor'], seen['decisions'], seen['orders']) == (2 * HOUR, {'traded': 1, 'held': 1}, {'FILLED': 1})
        assert seen['equity'] == seen['cash'] + D('0.1998') * 43_000
        assert [mark['equity'] for mark in reader.equity(bot)] == [D(10_000), seen['equity']]
        assert reader.positions()[0]['position'] == D('0.1998')
        assert reader.orders(open_only=True) == []
        with pytest.raises((BadInput, Exception), match='read.?only'): reader.halt('anna', 'from the outside')
        assert journal.halted() is None
        reader.close()


def test_a_second_runner_on_the_account_is_refused(where):
    with Journal.open(where) as journal, journal.lock('main', 'binance'):
        try: other = Journal.open(where)
        except Refused as refused: assert 'in use by another process' in str(refused)
        else:
            with other, pytest.raises(Refused, match='binance-main is in use'), other.lock('main', 'binance'): pass
            with other, other.lock('second', 'binance'): pass
    with Journal.open(where) as journal, journal.lock('main', 'binance'): pass


def test_one_lock_holds_across_journals_in_a_folder(tmp_path):
    with Journal.open(tmp_path / 'a.db') as a, Journal.open(tmp_path / 'b.db') as b, a.lock('main', 'binance'):
        with pytest.raises(Refused, match='binance-main is in use'), b.lock('main', 'binance'): pass


def test_a_dead_process_leaves_no_lock(tmp_path):
    code = f'from production.journal import Journal; import os, signal; j = Journal.open({str(tmp_path / "j.db")!r}); j.lock("a", "b").__enter__(); ' \
           'os.kill(os.getpid(), signal.SIGKILL)'
    assert subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[1]).returncode == -9
    with Journal.open(tmp_path / 'j.db') as journal, journal.lock('a', 'b'): pass


def test_another_revision_is_refused_in_one_line(where):
    with Journal.open(where) as journal, journal.engine.begin() as connection:
        connection.execute(text("update journal_version set version_num = '9999'"))
    for opened in (Journal.open, Journal.reader):
        with pytest.raises(Damaged, match='revision 9999 and this program needs') as caught: opened(where)
        assert '\n' not in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'garbage, and more of it than a header has ' * 40, b'SQLite format 3\0' + b'\0' * 4000])
def test_a_foreign_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / 'journal.db'
    path.write_bytes(content)
    for opened in (Journal.open, Journal.reader):
        with pytest.raises(Damaged) as caught: opened(path)
        assert '\n' not in str(caught.value) and 'journal.db' in str(caught.value) and 'move it away' in str(caught.value)
    assert path.read_bytes() == content


def test_a_damaged_journal_is_refused(tmp_path):
    path = tmp_path / 'journal.db'
    with Journal.open(path) as journal:
        bot = enrolled(journal)
        for bar in range(1, 400): decided(journal, bot, bar=bar)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + os.urandom(len(whole) - 16384) + whole[-8192:])
    with pytest.raises(Damaged, match='is damaged'): Journal.open(path)


def test_a_journal_is_made_whole_or_not_at_all(tmp_path, monkeypatch):
    from production.journal import opening
    def broken(connection): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(opening, 'upgrade', broken)
    with pytest.raises(BadInput, match='No space left') as caught: Journal.open(tmp_path / 'journal.db')
    assert caught.value.exit_code == 2
    assert [p.name for p in tmp_path.iterdir() if not p.name.endswith('.lock')] == []
    monkeypatch.undo()
    Journal.open(tmp_path / 'journal.db').close()


def test_addresses_that_cannot_hold_a_journal_are_refused(tmp_path):
    with pytest.raises(BadInput, match='SQLite or PostgreSQL'): Journal.open('mysql://x/y')
    with pytest.raises(BadInput, match='write a path'): Journal.open('://')
    with pytest.raises(BadInput, match='there is no journal'): Journal.reader(tmp_path / 'none.db')
    (tmp_path / 'file').write_text('')
    with pytest.raises(BadInput, match='cannot be used'): Journal.open(tmp_path / 'file' / 'journal.db')


def test_a_password_is_never_shown():
    with pytest.raises(Exception) as caught: Journal.open('postgresql+psycopg://user:s3cret@127.0.0.1:1/x')
    assert caught.value.exit_code == 3 and 's3cret' not in str(caught.value)


def test_books_that_do_not_follow_from_their_fills_are_noticed(journal):
    bot = enrolled(journal)
    decided(journal, bot, orders=[order()])
    journal.adopt('tw-1', filled(order()))
    with journal._session() as s: s.execute(text("update bot set cash = '1'"))
    with pytest.raises(Damaged, match='holds 1 and'): journal.verify(bot)
