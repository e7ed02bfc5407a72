"""One bot against the local exchange, through unmodified ccxt: equal to replay, and equal again when the wire or the process breaks."""
import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from local_venue import HOUR, postgres, sample, venue

from production import control
from production.journal import Journal
from production.local_exchange.exchange import LocalExchange
from production.runner import Mandate, Runner, client_id
from trading_lib.backtest.replay import replay_venue
from trading_lib.core.errors import Refused
from trading_lib.core.settings import Settings
from trading_lib.execution.orders import Order
from trading_lib.strategies.contract import describe, find, strategy
from trading_lib.strategies.feeds import decider

D = Decimal
FIRST, WINDOW = 30, 25
ORDER = ('post', '/api/v3/order')
BARS = sample()
TIMES = BARS.bars.index.as_unit('ms').asi8.tolist()


def mandate(**changes) -> Mandate:
    given = Mandate('d' * 64, 'main', find('sma_cross'), dict(fast=2, slow=6), 'BTC/USDT', '1h', WINDOW, TIMES[FIRST - 1],
                    order_window_ms=200, poll_s=.02, recheck_s=(.05,))
    return replace(given, **changes)


def exchange(**settings) -> LocalExchange: return LocalExchange([BARS], first=FIRST, slippage='0.0005', **settings)


async def run(gateway, there, path, given=None, until=TIMES[-2], **more):
    "One bot, and the market moves on when it has settled a bar."
    with Journal.open(path) as journal: return await Runner(given or mandate(), gateway, journal, there.release, **more).run(until)


def books(path) -> dict:
    "What must not depend on what broke: everything but moments, attempts and reasons."
    with Journal.reader(path) as journal:
        [bot] = journal.status()['bots']
        journal.verify(bot['id'])
        return dict(
            marks=[tuple(m[k] for k in ('bar', 'inputs', 'target', 'outcome', 'close', 'cash', 'position', 'equity')) for m in journal.equity(bot['id'])],
            orders=[tuple(o[k] for k in ('client_id', 'bar', 'side', 'quantity', 'filled', 'status')) for o in journal.orders()],
            fills=[tuple(f[k] for k in ('client_id', 'side', 'quantity', 'price', 'fee', 'fee_asset')) for f in journal.fills()],
            held=(bot['cash'], bot['position']))


def agree_with_the_venue(found: dict, there: LocalExchange):
    "Each order once at the venue and in the journal, with the same fills; the same money."
    at_venue = list(there.venue.orders.values())
    names = [o.order.client_id for o in at_venue]
    assert len(set(names)) == len(names)
    assert [(o.order.client_id, o.order.quantity, o.filled) for o in at_venue] == [(o[0], o[3], o[4]) for o in found['orders'] if o[5] == 'FILLED']
    assert found['held'] == (there.venue.held('USDT'), there.venue.held('BTC'))


def agree_with_replay(found: dict, until=TIMES[-2]):
    "Decisions, books, orders and fills of every bar are those of replay, to the last digit."
    rules = exchange().rules['BTC/USDT']
    replayed = replay_venue(decider(find('sma_cross'), dict(fast=2, slow=6)), BARS.bars, rules, WINDOW, D(10_000), mandate().buffer, FIRST - 1, D('0.0005'))
    theirs = [d for d in replayed.decisions if d.time.value // 10**6 <= until]
    assert [(m[0], m[2], *m[4:]) for m in found['marks']] == [(d.time.value // 10**6, d.target, d.close, d.cash, d.position, d.equity) for d in theirs]
    assert [f[1:] for f in found['fills']] == [(f.side, f.quantity, f.price, f.fee, f.fee_asset) for d in theirs if d.order for f in d.order.fills]
    assert len(found['fills']) > 5


@pytest.fixture(scope='module')
def uncrashed(tmp_path_factory) -> dict:
    "The books of a run in which nothing breaks."
    async def whole():
        there = exchange()
        async with venue(there) as (gateway, _): assert await run(gateway, there, path) == 'done'
        return there
    path = tmp_path_factory.mktemp('uncrashed') / 'journal.db'
    there = asyncio.run(whole())
    found = books(path)
    agree_with_the_venue(found, there)
    return found


def test_an_uncrashed_run_equals_replay_to_the_last_digit(uncrashed): agree_with_replay(uncrashed)


def test_a_client_id_names_the_decision_and_is_legal():
    import re
    name = client_id(mandate(), HOUR, 0)
    assert name == client_id(mandate(), HOUR, 0) and re.fullmatch(r'[a-zA-Z0-9-_]{1,36}', name)
    others = [client_id(mandate(**change), HOUR, 0) for change in (dict(dossier='e' * 64), dict(account='b'), dict(symbol='ETH/USDT'), dict(timeframe='4h'))]
    assert len({name, *others, client_id(mandate(), 2 * HOUR, 0), client_id(mandate(), HOUR, 1)}) == 7


async def test_without_a_look_up_orders_are_doubled_so_these_tests_have_teeth(tmp_path, monkeypatch):
    @strategy
    def third(bars):
        "A third, always."
        return np.full(len(bars), .3)
    async def blind(self, order, intent): return None
    monkeypatch.setattr(Runner, '_found', blind)
    there = exchange()
    async with venue(there) as (gateway, wire):
        wire.faults.append((*ORDER, 'lose_response'))
        with pytest.raises(Refused, match='the venue and the journal disagree'): await run(gateway, there, tmp_path / 'j.db', mandate(strategy=describe(third), params={}))
        assert len(there.venue.orders) == 2 and len({state.order.client_id for state in there.venue.orders.values()}) == 1


async def test_no_resend_precedes_its_fence_and_each_is_signed_as_journalled(tmp_path):
    from urllib.parse import parse_qs
    there = exchange()
    async with venue(there) as (gateway, wire):
        wire.faults += [(*ORDER, 'lose_request')] * 2
        await run(gateway, there, tmp_path / 'j.db')
        sent = [{k: v for k, [v] in parse_qs(body.decode()).items()} for method, url, body in wire.sent if method == 'post']
    with Journal.reader(tmp_path / 'j.db') as journal: fences = [row['detail'] for row in journal.audit('fence')]
    assert [(s['newClientOrderId'], int(s['timestamp']), int(s['recvWindow'])) for s in sent] == [(f['client_id'], f['sent_at'], f['window']) for f in fences]
    first, second, third = fences[:3]
    assert first['client_id'] == second['client_id'] == third['client_id']
    assert second['sent_at'] > first['sent_at'] + first['window'] and third['sent_at'] > second['sent_at'] + second['window']


async def test_an_order_the_venue_never_takes_halts_for_a_person(tmp_path, uncrashed):
    there = exchange()
    async with venue(there) as (gateway, wire):
        wire.faults += [(*ORDER, 'lose_request')] * 50
        with Journal.open(tmp_path / 'j.db') as journal:
            bot = Runner(mandate(attempts=2), gateway, journal, there.release)
            running = asyncio.create_task(bot.run(TIMES[-2]))
            while not bot.halted: await asyncio.sleep(.05)
            assert 'sent 2 times in a row and the venue does not know it' in bot.halted
            await asyncio.sleep(.3)
            assert len([1 for method, *_ in wire.sent if method == 'post']) == 2
            wire.faults.clear()
            await bot.resume('anna')   # the order is still wanted: it is looked up, then sent once more
            assert await running == 'done'
    assert books(tmp_path / 'j.db') == uncrashed


async def test_a_stop_and_a_start_go_on_where_it_was_left(tmp_path, uncrashed):
    there = exchange()
    async with venue(there) as (gateway, _):
        for until in (TIMES[40], TIMES[41], TIMES[-2]): assert await run(gateway, there, tmp_path / 'j.db', until=until) == 'done'
    assert books(tmp_path / 'j.db') == uncrashed


async def test_orders_of_a_lost_journal_tail_are_found_not_sent_again(tmp_path, uncrashed):
    there = exchange()
    async with venue(there) as (gateway, wire):
        with Journal.open(tmp_path / 'j.db') as journal:
            told = []
            def release(bar):
                told.append(bar)
                if journal.bot('d' * 64, 'main', 'BTC/USDT', '1h').position and len(told) > 3: bot.stop()   # the bar of the first buy
                return there.release(bar)
            bot = Runner(mandate(), gateway, journal, release)
            saved = tmp_path / 'saved.db'
            original = journal.decide
            def decide(*args, orders=(), **given):
                if orders and not saved.exists():   # what a power cut would leave: everything before this decision
                    with journal.engine.connect() as connection:
                        connection.rollback()
                        connection.connection.driver_connection.execute(f"VACUUM INTO '{saved}'")
                return original(*args, orders=orders, **given)
            journal.decide = decide
            assert await bot.run(TIMES[-2]) == 'signal'
        assert len(there.venue.orders) == 1
        assert await run(gateway, there, saved) == 'done'
    found = books(saved)
    assert found == uncrashed
    agree_with_the_venue(found, there)


async def test_a_halt_commits_first_then_cancels_and_nothing_is_sent_until_a_person_resumes(tmp_path, uncrashed):
    there = exchange()
    settings = Settings(root=tmp_path, paths=dict(journal='sqlite:///j.db'))
    async with venue(there) as (gateway, wire):
        with Journal.open(tmp_path / 'j.db') as journal:
            settled = []
            async def release(bar):
                settled.append(bar)
                if len(settled) == 10:
                    assert await asyncio.to_thread(control.halt, settings, 'anna', 'a strange price') == dict(done='halt', by='the runner')
                return there.release(bar)
            running = asyncio.create_task(Runner(mandate(), gateway, journal, release).run(TIMES[-2]))
            while len(settled) < 10: await asyncio.sleep(.01)
            await asyncio.sleep(.3)
            assert len(settled) == 10
            report = await asyncio.to_thread(control.status_report, settings)
            assert (report['halt']['who'], report['bots'][0]['state'], report['runner']) == ('anna', 'HALTED', dict(pid=os.getpid()))
            assert (await asyncio.to_thread(control.resume, settings, 'bert'))['released'] == 1
            assert await running == 'done'
    assert books(tmp_path / 'j.db') == uncrashed   # on the local exchange the market waited


async def test_an_order_decided_but_not_sent_when_the_halt_comes_is_never_sent(tmp_path):
    there = exchange()
    async with venue(there) as (gateway, _):
        with Journal.open(tmp_path / 'j.db') as journal:
            bot = Runner(mandate(), gateway, journal, there.release)
            stamp = gateway.stamp
            async def stamp_and_halt():
                if not journal.halted(): await bot.halt('anna', 'between the decision and the fence')
                return await stamp()
            gateway.stamp = stamp_and_halt
            running = asyncio.create_task(bot.run(TIMES[-2]))
            while not bot.halted: await asyncio.sleep(.01)
            await asyncio.sleep(.2)
            [order] = journal.orders()
            assert (order['status'], order['attempts']) == ('CANCELED', 0) and 'halted by anna' in order['reason']
            bot.stop()
            await running
        assert not there.venue.orders


async def test_while_halted_a_bot_does_not_start_and_open_orders_are_cancelled(tmp_path):
    there = exchange()
    settings = Settings(root=tmp_path, paths=dict(journal='sqlite:///j.db'))
    async with venue(there) as (gateway, _):
        await run(gateway, there, tmp_path / 'j.db', until=TIMES[40])
        resting = Order(client_id(mandate(), TIMES[41], 7), 'BTC/USDT', 'buy', 'limit', D('0.001'), D('10000'))
        with Journal.open(tmp_path / 'j.db') as journal:
            bot = journal.bot('d' * 64, 'main', 'BTC/USDT', '1h')
            journal.decide(bot.id, TIMES[41], inputs='', target=.5, outcome='traded', reason='', close=D(1), orders=[resting])
            journal.adopt(resting.client_id, await gateway.submit(resting, await gateway.stamp(), 1000))
        assert control.halt(settings, 'anna', 'news', dry_run=True) == dict(would='halt', by='this command', open_orders=[resting.client_id])
        assert control.halt(settings, 'anna', 'news') == dict(done='halt', by='this command')
        with pytest.raises(Refused, match='halted by anna: news'): await run(gateway, there, tmp_path / 'j.db')
        assert await gateway.open_orders('BTC/USDT') == {}
    assert control.order_report(settings, 1)[0]['status'] == 'CANCELED'
    assert control.resume(settings, 'anna')['released'] == 1


async def test_money_that_nobody_here_moved_halts(tmp_path):
    there = exchange()
    async with venue(there) as (gateway, _):
        await run(gateway, there, tmp_path / 'j.db', until=TIMES[40])
        there.venue.free['USDT'] -= 5
        with pytest.raises(Refused, match='the venue and the journal disagree: USDT'): await run(gateway, there, tmp_path / 'j.db')


async def test_an_order_under_our_name_that_the_journal_does_not_know_halts(tmp_path):
    there = exchange()
    async with venue(there) as (gateway, _):
        order = Order('tw-from-elsewhere', 'BTC/USDT', 'buy', 'limit', D('0.001'), D('10000'))
        await gateway.submit(order, await gateway.stamp(), 1000)
        with pytest.raises(Refused, match='the journal disagree: order tw-from-elsewhere is open there only'): await run(gateway, there, tmp_path / 'j.db')


async def test_a_strategy_that_fails_holds_and_then_halts(tmp_path):
    @strategy
    def moody(bars):
        "Fails for three bars."
        if TIMES[35] <= bars.index[-1].value // 10**6 < TIMES[38]: raise ZeroDivisionError('nothing to divide')
        return np.full(len(bars), .5)
    there = exchange()
    async with venue(there) as (gateway, _):
        with Journal.open(tmp_path / 'j.db') as journal:
            given = mandate(strategy=describe(moody), params={})
            bot = Runner(replace(given, strikes=4), gateway, journal, there.release)
            assert await bot.run(TIMES[-2]) == 'done'
            held = [m for m in journal.equity(bot.bot.id) if m['target'] is None]
            assert [(m['bar'], m['outcome']) for m in held] == [(at, 'held') for at in TIMES[35:38]]
            assert 'moody raised ZeroDivisionError (nothing to divide)' in held[0]['reason']
            assert len(journal.orders()) == 1   # as before, before and after
    there = exchange()
    async with venue(there) as (gateway, _):
        with Journal.open(tmp_path / 'k.db') as journal:
            bot = Runner(given, gateway, journal, there.release)
            running = asyncio.create_task(bot.run(TIMES[-2]))
            while not bot.halted and not running.done(): await asyncio.sleep(.02)
            assert 'failed 3 times in a row' in bot.halted
            bot.stop()
            assert await running == 'signal'


async def test_a_command_that_is_none_is_answered_and_does_no_harm(tmp_path):
    with Journal.open(tmp_path / 'j.db') as journal:
        async with control.listening(journal, None, None):
            with pytest.raises(Refused, match='not a command'): await asyncio.to_thread(control.ask, journal.url, dict(do='sell everything'))
            assert (await asyncio.to_thread(control.ask, journal.url, dict(do='status')))['pid'] == os.getpid()
            assert control.socket_of(journal.url).stat().st_mode & 0o777 == 0o600
        assert control.ask(journal.url, dict(do='status')) is None


def bot_process(url: str, path: str):
    "A bot in a process of its own, forked because ccxt takes seconds to import."
    import aiohttp

    from production.gateway import connect
    from production.local_exchange.client import rewire

    async def main():
        gateway = await connect('binance', 'local-key', 'local-secret', 10**6, redirect=lambda client: rewire(client, url))
        async with aiohttp.ClientSession() as http:
            async def release(bar):
                async with http.post(f'{url}/control/release', json=dict(through=bar)) as answer: await answer.read()
                await asyncio.sleep(.04)   # time to be killed in
            with Journal.open(path) as journal: return await Runner(mandate(), gateway, journal, release).run(TIMES[-2])
    code = 1
    try: code = {'done': 0, 'signal': 3}[asyncio.run(main())]
    finally: os._exit(code)


def test_killed_again_and_again_it_ends_in_the_same_books(tmp_path, uncrashed):
    import ccxt.pro  # noqa: F401  so that a fork has it

    from production.local_exchange.child import start_child
    child, chance, ends = start_child([BARS], tmp_path / 'venue', first=FIRST, slippage='0.0005'), random.Random(11), []
    try:
        while not ends or ends[-1] != 0:
            assert len(ends) < 20
            pid = os.fork()
            if not pid: bot_process(child.url, str(tmp_path / 'j.db'))
            deadline = time.monotonic() + (chance.uniform(.3, .7) if len(ends) < 8 else 60)
            while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGTERM if len(ends) % 4 == 3 else signal.SIGKILL)
                    ended = os.waitpid(pid, 0)
                    break
                time.sleep(.005)
            ends.append(os.waitstatus_to_exitcode(ended[1]))
        state = json.load(urllib.request.urlopen(f'{child.url}/control/state'))
    finally: child.stop()
    found = books(tmp_path / 'j.db')
    assert ends.count(-signal.SIGKILL) >= 5 and set(ends) <= {-signal.SIGKILL, -signal.SIGTERM, 3, 0}
    assert found == uncrashed
    assert state['orders'] == len(found['orders']) and state['trades'] == len(found['fills'])
    assert tuple(D(state['balances'][a]['free']) for a in ('USDT', 'BTC')) == found['held']


async def test_on_postgresql_it_is_the_same_and_a_halt_written_by_anyone_holds(uncrashed):
    there = exchange()
    with postgres() as address:
        async with venue(there) as (gateway, _):
            with Journal.open(address) as journal, Journal.open(address) as another:
                settled = []
                def release(bar):
                    settled.append(bar)
                    if len(settled) == 10: another.halt('anna', 'from another host')
                    return there.release(bar)
                running = asyncio.create_task(Runner(mandate(), gateway, journal, release).run(TIMES[-2]))
                while len(settled) < 10: await asyncio.sleep(.01)
                await asyncio.sleep(.3)
                assert (len(settled), another.status()['bots'][0]['state']) == (10, 'HALTED')
                another.resume('anna')
                assert await running == 'done'
        assert books(address) == uncrashed


def test_a_socket_of_a_dead_runner_does_not_stand_in_the_way(tmp_path):
    settings = Settings(root=tmp_path, paths=dict(journal='sqlite:///j.db'))
    with socket.socket(socket.AF_UNIX) as dead: dead.bind(str(tmp_path / 'j.sock'))
    assert control.status_report(settings)['bots'] == []
    assert control.halt(settings, 'anna', 'news') == dict(done='halt', by='this command')
    assert control.status_report(settings)['halt']['why'] == 'news'


def test_a_running_bot_imports_no_notebook_and_no_research_stack(tmp_path):
    code = f'''
import asyncio, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from local_venue import venue
from test_runner import *
async def main():
    there = exchange()
    async with venue(there) as (gateway, _): await run(gateway, there, {str(tmp_path / 'j.db')!r}, until=TIMES[40])
before = set(sys.modules)
asyncio.run(main())
heavy = ('vectorbt', 'IPython', 'jupyter_client', 'jupyterlab', 'notebook', 'ipykernel', 'ipywidgets', 'plotly', 'sklearn', 'matplotlib', 'transformers')
print([name for name in heavy if name in sys.modules])
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.stdout.strip() == '[]', done.stdout + done.stderr[-2000:]
