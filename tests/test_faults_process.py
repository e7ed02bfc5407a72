"Faults 57 to 72: the process, its disk, its strategy, and people."
import asyncio
import os
import random
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from crash import _life, cut, judge
from faulty import ASK, BARS_OF, SEND, TIMES, UNTIL, D, Fault, bot, desk, resting, undisturbed
from sqlalchemy import create_engine
from test_runner import BARS, FIRST

from production import control
from production.backup import backup, restore
from production.journal import Journal, opening
from production.local_exchange.child import start_child
from production.runner import client_id
from trading_lib.core.errors import BadInput, Damaged, Refused
from trading_lib.core.settings import Settings
from trading_lib.risk.limits import Limits
from trading_lib.strategies.contract import describe, strategy

MIDDLE = 31   # the bar after which things happen


def settings(folder) -> Settings: return Settings(root=folder, paths=dict(journal='sqlite:///journal.db'))


# ends

def lives(folder: Path, points: tuple[str, ...], power_loss: bool = False) -> list[str]:
    "Killed at each of these points, then left alone to the end: what is not as it should be."
    import ccxt.pro  # noqa: F401  so that a fork has it
    child, journal, first_time = start_child([BARS], folder / 'venue', first=FIRST, slippage='0.0005'), folder / 'j.db', SimpleNamespace(randint=lambda a, b: 1)
    try:
        for point in points:
            assert _life(child.url, journal, point, first_time, '', False, 10) == (-signal.SIGKILL, True), point
            if power_loss: assert cut(journal, random.Random(point))
        assert _life(child.url, journal, None, first_time, '', False, None) == (0, True)
    finally: child.stop()
    return judge(journal, folder / 'venue')


@pytest.mark.parametrize('points', [('enrolled', 'decided', 'books verified', 'fenced, not sent'), ('sent', 'looked up', 'adopted', 'settled')])
def test_fault_57_killed_at_every_step(tmp_path, points):
    "Killed at every step, also on the way back → the start is the recovery, and all invariants hold."
    assert lives(tmp_path, points) == []


def test_fault_58_power_loss(tmp_path):
    "A power cut takes the end of the journal along → orders are named after their decision, so the first look finds them."
    assert lives(tmp_path, ('fenced, not sent', 'sent', 'adopted'), power_loss=True) == []


@pytest.mark.parametrize('trouble, said', [('full', 'full'), ('locked', 'locked')])
async def test_fault_59_journal_cannot_be_written(tmp_path, trouble, said):
    "The disk is full, or somebody else holds the journal → what cannot be written is not sent; the bot ends, and goes on when there is room."
    async with desk(tmp_path) as d:
        with Journal.open(d.path) as journal, closing(sqlite3.connect(d.path, isolation_level=None)) as another:
            def spoil(row):
                if row != MIDDLE: return
                with journal.engine.connect() as connection:
                    for pragma in ('busy_timeout=0', f'max_page_count={connection.exec_driver_sql("PRAGMA page_count").scalar()}' if trouble == 'full' else 'cache_size'):
                        connection.exec_driver_sql(f'PRAGMA {pragma}')
                if trouble == 'locked': another.execute('BEGIN IMMEDIATE')
            with pytest.raises(BadInput, match=f'cannot be used .*{said}'): await d.runner(journal, each=spoil).run(UNTIL)
        assert set(d.placed()) <= set(d.sent)
        assert await d.run() == 'done'
        d.as_if_nothing_had_happened()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='alerts are kept in the journal: where it cannot be written, nobody is told but whoever watches the process')
async def test_fault_59_journal_cannot_be_written_is_told(tmp_path):
    "The disk is full → a person is told by a way that needs no journal."
    async with desk(tmp_path) as d:
        with Journal.open(d.path) as journal:
            def spoil(row):
                with journal.engine.connect() as connection: connection.exec_driver_sql(f'PRAGMA max_page_count={connection.exec_driver_sql("PRAGMA page_count").scalar()}')
            with suppress(BadInput): await d.runner(journal, each=spoil).run(UNTIL)
        assert 'halt' in d.alerts


async def test_fault_60_journal_damaged(tmp_path):
    "The journal is damaged → it is refused; restored from a backup, what it lacks is found at the venue."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[31])
        kept = backup(settings(tmp_path))['file']
        await d.run(until=TIMES[33])
        whole = d.path.read_bytes()
        d.path.write_bytes(whole[:4096] + bytes(reversed(whole[4096:])))
        with pytest.raises(Damaged, match='restore it from a backup'): await d.run()
        for part in tmp_path.glob('journal.db*'): part.unlink()
        restore(Path(kept), f'sqlite:///{d.path}')
        assert await d.run() == 'done'
        d.as_if_nothing_had_happened()


async def test_fault_61_two_runners_on_one_account(tmp_path):
    "A second runner is started on the account → it is refused, and the first one trades on."
    async with desk(tmp_path) as d:
        refused = []
        async def second(row):
            if row != MIDDLE: return
            with Journal.open(tmp_path / 'another.db') as journal, pytest.raises(Refused, match='in use by another process'): await d.runner(journal).run(UNTIL)
            refused.append(row)
        assert await d.run(each=second) == 'done' and refused
        d.as_if_nothing_had_happened()


# people

async def trade_by_hand(d, row):
    if row == MIDDLE: await d.press(trade=dict(symbol='BTC/USDT', side='buy', quantity='0.05'))


async def test_fault_62_trade_by_hand(tmp_path):
    "Somebody trades by hand on the account → the bot halts and says by how much the books differ; it does not trade against them."
    async with desk(tmp_path) as d:
        assert 'the venue and the journal disagree: USDT' in await d.halts(each=lambda row: trade_by_hand(d, row))
        assert 'halt' in d.alerts and [name for name in d.placed() if name.startswith('web_')] == ['web_3']


async def test_fault_62_trade_by_hand_is_accepted(tmp_path):
    "The owner accepts the trade → it is booked as an adjustment with a name and a reason, and the bot goes on with it."
    async with desk(tmp_path) as d:
        await d.halts(each=lambda row: trade_by_hand(d, row))
        control.accept(settings(tmp_path), 'anna', 'bought by hand')
        control.resume(settings(tmp_path), 'anna')
        assert await d.run(bot(max_lateness_ms=10**9)) == 'done'
        assert d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))
        assert [row['actor'] for row in d.read(lambda journal: journal.audit('accept'))] == ['anna']


async def test_fault_63_venue_forgets_everything(tmp_path):
    "The test network is reset: orders and money are gone → that many not found is a reason to halt, not to send again."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[33])
        d.there.change('restart', True)
        with Journal.open(d.path) as journal: order = resting(journal, 34)
        with Journal.open(d.path) as journal:   # as if it had been open before the reset
            journal.fence(order.client_id, TIMES[34], 200)
            with journal.engine.begin() as connection: connection.exec_driver_sql("update intent set status='OPEN' where client_id=?", (order.client_id,))
        before = len(d.sent)
        assert 'the venue does not know it any more' in await d.halts()
        assert d.placed() == [] and len(d.sent) == before and 'halt' in d.alerts


# strategies

def strange(answer):
    @strategy
    def odd(bars):
        "Strange for three bars."
        if TIMES[31] <= bars.index[-1].value // 10**6 <= TIMES[33]: return answer(bars)
        return np.full(len(bars), .5)
    return describe(odd)


def stop_answering(bars):
    for _ in range(200): time.sleep(.01)


ODD = {'raises': lambda bars: 1 / 0, 'without end': lambda bars: np.full(len(bars), np.inf), 'hangs': stop_answering}


@pytest.mark.parametrize('way', ODD)
async def test_fault_64_strategy_fails(tmp_path, way):
    "The strategy raises, answers with infinity, or does not answer → the bot holds and tells; after three times in a row it halts."
    async with desk(tmp_path) as d:
        assert 'failed 3 times in a row' in await d.halts(bot(strategy=strange(ODD[way]), strategy_deadline_s=.2))
        marks = d.read(lambda journal: journal.equity(1))
        assert [mark['bar'] for mark in marks if mark['target'] is None] == TIMES[31:34] and len(d.placed()) == 1
        assert d.alerts.count('strategy_error') == 3 and 'halt' in d.alerts


async def test_fault_64_strategy_says_nothing(tmp_path):
    "The strategy answers NaN at the newest bar → what it said before holds."
    async with desk(tmp_path) as d:
        assert await d.run(bot(strategy=strange(lambda bars: np.r_[np.full(len(bars) - 1, .5), np.nan]))) == 'done'
        assert {mark['target'] for mark in d.read(lambda journal: journal.equity(1))} == {.5} and len(d.placed()) == 1


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='an answer that is NaN from end to end counts as flat, as before a first signal, so the bot sells')
async def test_fault_64_strategy_says_nothing_at_all(tmp_path):
    "The strategy answers NaN from end to end → the bot holds and tells."
    async with desk(tmp_path) as d:
        assert await d.run(bot(strategy=strange(lambda bars: np.full(len(bars), np.nan)))) == 'done'
        assert len(d.placed()) == 1


async def test_fault_64_strategy_cannot_see_the_future(tmp_path):
    "The strategy looks for more than it is shown → there is none: its window ends with the bar that is decided."
    shown = []
    @strategy
    def curious(bars):
        "Remembers what it saw."
        shown.append(bars.index[-1].value // 10**6)
        return np.zeros(len(bars))
    async with desk(tmp_path) as d:
        assert await d.run(bot(strategy=describe(curious))) == 'done'
        assert shown == [mark['bar'] for mark in d.read(lambda journal: journal.equity(1))]


async def test_fault_65_another_version_has_other_names(tmp_path):
    "The strategy or its model is promoted anew → it is another dossier, whose orders have other client ids."
    assert not {client_id(bot(), at, 0) for at in TIMES} & {client_id(bot(dossier='e' * 64), at, 0) for at in TIMES}


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='no digest of the strategy and its models in a decision; they are compared with the dossier at the start only')
async def test_fault_65_files_changed_under_a_running_strategy(tmp_path):
    "The files of a strategy change while it runs → each decision says what made it, and a change is noticed."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[30])
        assert all('artefact' in row['detail'] for row in d.read(lambda journal: journal.audit('decide')))


# hands on the wheel

async def test_fault_66_halt_while_an_order_is_unknown(tmp_path):
    "Halted while nobody knows what became of an order → the halt is written first, the order is found out about, nothing new is sent, also after a restart."
    async with desk(tmp_path, Fault(SEND, 'lose_response'), Fault(ASK, 'http', 503, times=3)) as d:
        with Journal.open(d.path) as journal:
            runner = d.runner(journal)
            running = asyncio.create_task(runner.run(UNTIL))
            while not (runner.bot and journal.intents(runner.bot.id, ('UNKNOWN',))): await asyncio.sleep(.01)
            await runner.halt('anna', 'news')
            assert journal.halted() and journal.intents(runner.bot.id, ('UNKNOWN',))
            while journal.intents(runner.bot.id, ('UNKNOWN',)): await asyncio.sleep(.01)
            runner.stop()
            await running
        assert len(d.sent) == 1 == len(d.placed())
        with pytest.raises(Refused, match='halted by anna: news'): await d.run()
        assert len(d.sent) == 1 and control.resume(settings(tmp_path), 'anna')['released'] == 1
        assert await d.run() == 'done'
        d.as_if_nothing_had_happened()


async def test_fault_66_halt_and_flatten(tmp_path):
    "Halted with the wish to be flat → what is open is cancelled and the position is sold, by orders that are in the journal first."
    async with desk(tmp_path) as d:
        with Journal.open(d.path) as journal:
            halting = []
            def halt(row):
                if row == 33: halting.append(asyncio.create_task(asyncio.to_thread(control.halt, settings(tmp_path), 'anna', 'news', flatten=True)))
            runner = d.runner(journal, each=halt)
            running = asyncio.create_task(runner.run(UNTIL))
            while not halting: await asyncio.sleep(.01)
            async with asyncio.timeout(5): assert 'flat' in str(await halting[0])
            runner.stop()
            await running
        assert d.there.venue.held('BTC') < D('0.0001') and sorted(d.placed()) == sorted(d.sent) and d.read(Journal.halted)
        assert d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))


@pytest.mark.parametrize('spikes', [1, 2])
async def test_fault_67_price_spike(tmp_path, spikes):
    "One close is far off → it trips no breaker; a second one in a row does, and that holds over a restart."
    async with desk(tmp_path) as d:
        tight = bot(limits=Limits(max_drawdown=.2))
        def spike(row): d.there.faults.add(Fault(BARS_OF, 'patch', {'-2.3': '15000', '-2.4': '15000'})) if row in (32, 33)[:spikes] else None
        if spikes == 1:
            assert await d.run(tight, each=spike) == 'done' and 'halt' not in d.alerts
        else:
            assert 'max_drawdown' in await d.halts(tight, each=spike)
            with pytest.raises(Refused, match='max_drawdown'): await d.run(tight)


async def test_fault_69_storm_of_commands(tmp_path):
    "Commands pour in, and nonsense among them, while it trades → each is answered or refused, and no bar waits for them."
    async with desk(tmp_path) as d:
        url, answers = opening.address(d.path), []
        def pour():
            for k in range(40):
                try: answers.append(control.ask(url, dict(do='status' if k % 2 else 'sell everything')))
                except Refused as error: answers.append(str(error))
        storms = []
        assert await d.run(each=lambda row: storms.extend(asyncio.get_running_loop().run_in_executor(None, pour) for _ in range(4)) if row == MIDDLE else None) == 'done'
        await asyncio.gather(*storms)
        assert len(answers) == 160 and sum('not a command' in str(answer) for answer in answers) > 20 and dict(pid=os.getpid()) in answers
        d.as_if_nothing_had_happened()


async def test_fault_70_terminated_during_a_send(tmp_path):
    "Told to end while an order is on its way → no further bar is decided, what became of the order is found out, and the next start goes on."
    async with desk(tmp_path, Fault(SEND, 'delay_after', .1), Fault(SEND, 'lose_response')) as d:
        submit, sent = d.gateway.submit, []
        async def terminated(*order):
            asyncio.get_running_loop().call_later(.03, os.kill, os.getpid(), signal.SIGTERM)
            sent.append(order)
            return await submit(*order)
        d.gateway.submit = terminated
        for k in (1, 2):
            assert await d.run() == 'signal' and len(sent) == k
            assert not d.read(lambda journal: journal.intents(1, ('NEW', 'UNKNOWN')))
        d.gateway.submit = submit
        assert await d.run() == 'done'
        d.as_if_nothing_had_happened()


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='nothing measures how late the event loop is, and no watchdog of the system is fed')
async def test_fault_71_event_loop_stalls(tmp_path):
    "The event loop stands still → it is measured and told, and the system restarts what does not move any more."
    async with desk(tmp_path) as d:
        assert await d.run(each=lambda row: time.sleep(.5) if row == MIDDLE else None) == 'done'
        assert set(d.alerts) - {'start', 'stop', 'fill', 'daily_loss'}


# a new program

def as_left_by_the_first_program(new: Path, old: Path):
    "The same rows in a journal of the first revision."
    engine = create_engine(opening.address(old))
    with engine.begin() as connection: opening.upgrade(connection, '0001')
    engine.dispose()
    with closing(sqlite3.connect(old, isolation_level=None)) as db:
        db.execute('attach ? as new', (str(new),))
        for table in ('bot', 'decision', 'intent', 'fill'):
            columns = ', '.join(f'"{row[1]}"' for row in db.execute(f'pragma main.table_info({table})'))
            db.execute(f'insert into main.{table} ({columns}) select {columns} from new.{table}')


async def test_fault_72_upgraded_with_an_open_order(tmp_path):
    "The program is replaced while an order is open → the journal is brought along, the order is looked up before anything else, and trading goes on."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[31])
        with Journal.open(d.path) as journal:
            [first, *_] = journal.orders()
            with journal.engine.begin() as connection: connection.exec_driver_sql("update intent set status='UNKNOWN', sent_at=1, window=1 where client_id=?", (first['client_id'],))
        old = tmp_path / 'old.db'
        as_left_by_the_first_program(d.path, old)
        d.path = old
        assert await d.run() == 'done'
        assert d.books == undisturbed()


@pytest.mark.xfail(strict=True, raises=TypeError, reason='an upgrade is not rehearsed: the new program does not replay the journal and compare before it starts')
async def test_fault_72_upgrade_is_rehearsed(tmp_path):
    "The program is replaced → it first replays the journal without writing, and starts only if it comes to the same state."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[31])
        with Journal.open(d.path, rehearse=True) as journal: journal.verify(1)
