"""Hands on the wheel: what a person asks for is done once, also over a crash, passes the latch only to reduce, and a dry run changes nothing."""
import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from crash import _die_at
from local_venue import postgres, venue
from sqlalchemy import text
from test_runner import BARS, FIRST, ORDER, TIMES, agree_with_the_venue, books, exchange, mandate, run

from production import control
from production.cli import main
from production.deadline import Asked
from production.gateway import Gateway
from production.hands import Hands
from production.journal import HAND, Journal
from production.runner import Runner
from trading_lib.core.errors import BadInput, Damaged, Refused
from trading_lib.core.settings import Settings
from trading_lib.execution.orders import Order
from trading_lib.risk.limits import Limits
from trading_lib.strategies.contract import describe, strategy
from trading_lib.strategies.feeds import decider

D = Decimal


def settings_of(folder) -> Settings: return Settings(root=folder, paths=dict(journal='sqlite:///j.db'))


@asynccontextmanager
async def holding(folder, given=None):
    "A live bot that holds a position, on a market that stands still until it is told to go."
    there, now = exchange(), SimpleNamespace(bar=None, moving=False)
    async with venue(there) as (gateway, wire):
        with Journal.open(folder / 'j.db') as journal:
            def release(bar):
                now.bar = bar
                if now.moving or not journal.bot('d' * 64, 'main', 'BTC/USDT', '1h').position: return there.release(bar)
            async def go():
                now.moving = True
                there.release(now.bar)
                assert await running == 'done'
            bot = Runner(given or mandate(), gateway, journal, release)
            running = asyncio.create_task(bot.run(TIMES[-2]))
            while not (bot.caught_up and bot.bot.position and bot.bot.settled == bot.bot.cursor == now.bar): await asyncio.sleep(.01); assert not running.done(), running.result()
            try: yield SimpleNamespace(there=there, wire=wire, gateway=gateway, journal=journal, bot=bot, running=running, go=go, settings=settings_of(folder))
            finally:
                bot.stop()
                await asyncio.wait([running])


def asked(what, *args, **more): return asyncio.to_thread(what, *args, **more)


def state(live) -> tuple:
    "Everything that a dry run must not change."
    return live.journal.audit(), live.journal.orders(), live.journal.waiting(), len(live.there.venue.orders), dict(live.there.venue.free), [s for s in live.wire.sent if s[0] != 'get']


async def test_a_flatten_by_hand_sells_once_and_the_bot_stays_flat_until_its_target_changes(tmp_path):
    async with holding(tmp_path) as live:
        bar, held = live.bot.bot.cursor, live.bot.bot.position
        done = await asked(control.flatten, live.settings, 'anna', 'news')
        assert done['by'] == 'the runner' and [row['said'] for row in done['bots']] == ['flat; ' + f'{live.bot.bot.position:f} BTC are left, too little to trade or not at the venue']
        [sold] = [o for o in live.journal.orders() if o['seq'] >= HAND]
        assert (sold['side'], sold['kind'], sold['status'], sold['bar']) == ('sell', 'market', 'FILLED', bar) and held - sold['filled'] == live.bot.bot.position < D('0.0001')
        assert not live.bot.halted
        await live.go()
        marks = [m for m in live.journal.equity(live.bot.bot.id) if m['bar'] > bar]
        changed = next(k for k, m in enumerate(marks) if m['target'] != marks[0]['target'])
        assert changed > 0 and all(m['outcome'] == 'held' and m['position'] < D('0.0001') for m in marks[:changed])
        assert any(o['side'] == 'buy' and o['bar'] > bar for o in live.journal.orders())   # it trades on
        assert 'because a person asked to be flat' in ''.join(alert['text'] for alert in live.journal.history())
    agree_with_the_venue(books(tmp_path / 'j.db'), live.there)


async def test_dry_runs_say_exactly_what_would_be_sent_and_change_nothing(tmp_path):
    async with holding(tmp_path) as live:
        resting = Order('tw-resting', 'BTC/USDT', 'buy', 'limit', D('0.001'), D('10000'))
        live.journal.intend(live.bot.bot.id, resting)
        live.journal.adopt(resting.client_id, await live.gateway.submit(resting, await live.gateway.stamp(), 1000))
        before = state(live)
        wanted = {}
        for what, args in dict(flatten=(), cancel=(), halt=()).items():
            wanted[what] = (await asked(getattr(control, what), live.settings, 'anna', 'news', *args, dry_run=True))['requests']
        wanted['halt --flatten'] = (await asked(control.halt, live.settings, 'anna', 'news', dry_run=True, flatten=True))['requests']
        assert await asked(control.cancel, live.settings, 'anna', 'x', 'tw-resting', dry_run=True) == dict(
            would='cancel', by='the runner', open_orders=['tw-resting'], requests=wanted['cancel'])
        with pytest.raises(BadInput, match='order tw-restin is not open; did you mean tw-resting'): await asked(control.cancel, live.settings, 'a', 'b', 'tw-restin', dry_run=True)
        assert state(live) == before and not live.bot.halted
        cancelled = dict(send='cancel', symbol='BTC/USDT', side='buy', type='limit', quantity='0.001', client_id='tw-resting', parameters={})
        assert wanted['cancel'] == wanted['halt'] == [cancelled]
        [first, order] = wanted['flatten']
        assert first == cancelled and [name['client_id'] for name in wanted['halt --flatten']] == ['tw-resting', order['client_id']]
        await asked(control.flatten, live.settings, 'anna', 'news', 'btc/usdt')
        sent = live.journal.intent(order['client_id'])
        assert (order['symbol'], order['side'], order['type'], D(order['quantity'])) == ('BTC/USDT', sent.side, sent.kind, sent.quantity)
        [body] = [data.decode() for method, url, data in live.wire.sent if method == 'post' and order['client_id'] in data.decode()]
        assert order['client_id'] in order['parameters'].values() and f'recvWindow={order["parameters"]["recvWindow"]}' in body and f'quantity={order["quantity"]}' in body
        assert live.journal.intent('tw-resting').status == 'CANCELED'
        with pytest.raises(BadInput, match='no bot trades BTC/USDC; did you mean BTC/USDT'): await asked(control.flatten, live.settings, 'a', 'b', 'BTC/USDC')


async def test_a_halt_that_flattens_passes_its_own_latch_and_nothing_else_does(tmp_path):
    async with holding(tmp_path) as live:
        done = await asked(control.halt, live.settings, 'anna', 'news', flatten=True)
        assert done['bots'][0]['said'].startswith('flat')
        events = [row['event'] for row in live.journal.audit()]
        at = events.index('halt')
        assert [e for e in events[at:] if e in ('halt', 'flatten', 'intend', 'fence', 'adopt', 'done')] == ['halt', 'flatten', 'intend', 'fence', 'adopt', 'done']
        other = Order('tw-other', 'BTC/USDT', 'buy', 'market', D('0.01'))
        live.journal.intend(live.bot.bot.id, other)
        with pytest.raises(Refused, match='would not only reduce a position of'): live.journal.fence(other.client_id, 1, 1000)
        live.journal.withdraw(other.client_id, 'a test')
        assert (await asked(control.resume, live.settings, 'bert'))['released'] == 1
        await live.go()
    agree_with_the_venue(books(tmp_path / 'j.db') | dict(orders=[o for o in books(tmp_path / 'j.db')['orders'] if o[5] == 'FILLED']), live.there)


async def test_without_a_bot_it_is_written_down_and_the_next_start_does_it_first_also_while_halted(tmp_path):
    there, settings = exchange(), settings_of(tmp_path)
    async with venue(there) as (gateway, _):
        at = 35
        while not await held_until(gateway, there, tmp_path / 'j.db', at): at += 1
        assert control.flatten(settings, 'anna', 'news', dry_run=True)['note'] == control.NOBODY
        done = control.halt(settings, 'anna', 'news', flatten=True)
        assert done['by'] == 'this command' and [row['said'] for row in done['bots']] == [control.NOBODY]
        assert [row['what'] for row in control.status_report(settings)['waiting']] == ['flatten']
        orders = len(there.venue.orders)
        with pytest.raises(Refused, match='halted by anna: news'): await run(gateway, there, tmp_path / 'j.db')
        assert len(there.venue.orders) == orders + 1 and there.venue.held('BTC') < D('0.0001')
        assert control.status_report(settings)['waiting'] == []
        control.resume(settings, 'anna')
        assert await run(gateway, there, tmp_path / 'j.db') == 'done'
    agree_with_the_venue(books(tmp_path / 'j.db'), there)


async def held_until(gateway, there, path, k) -> bool:
    "Run up to a bar; is a position held then?"
    await run(gateway, there, path, until=TIMES[k])
    with Journal.reader(path) as journal: return journal.status()['bots'][0]['position'] > D('0.01')


async def test_a_position_that_the_venue_does_not_close_is_tried_so_often_and_a_person_is_told(tmp_path):
    no = ('instead', 400, '{"code":-2010,"msg":"Account has insufficient balance for requested action."}')
    async with holding(tmp_path, mandate(attempts=3)) as live:
        live.wire.faults += [(*ORDER, no)] * 9
        done = await asked(control.halt, live.settings, 'anna', 'news', flatten=True)
        assert 'are left after 3 orders; close them at the venue' in done['bots'][0]['said']
        assert [o['status'] for o in live.journal.orders() if o['seq'] >= HAND] == ['REJECTED'] * 3
        assert len([1 for alert in live.journal.history() if alert['rule'] == 'limit']) == 1 and not live.journal.waiting()
        live.wire.faults.clear()


async def test_a_lost_answer_to_a_closing_order_is_looked_up_and_never_doubles(tmp_path):
    async with holding(tmp_path) as live:
        live.wire.faults += [(*ORDER, 'lose_response'), (*ORDER, 'lose_request')]
        orders = len(live.there.venue.orders)
        assert (await asked(control.flatten, live.settings, 'anna', 'news'))['bots'][0]['said'].startswith('flat')
        assert len(live.there.venue.orders) == orders + 1
        live.wire.faults.clear()


async def test_an_order_is_cancelled_by_its_name_by_the_runner_alone(tmp_path):
    async with holding(tmp_path) as live:
        for name in ('tw-one', 'tw-two'):
            order = Order(name, 'BTC/USDT', 'buy', 'limit', D('0.001'), D('10000'))
            live.journal.intend(live.bot.bot.id, order)
            live.journal.adopt(name, await live.gateway.submit(order, await live.gateway.stamp(), 1000))
        assert (await asked(control.cancel, live.settings, 'anna', 'x', 'tw-one'))['bots'][0]['said'] == 'tw-one is CANCELED'
        assert list(await live.gateway.open_orders('BTC/USDT')) == ['tw-two']
        with pytest.raises(Refused, match='tw-one is CANCELED; there is nothing to cancel'): await asked(control.cancel, live.settings, 'anna', 'x', 'tw-one')
        assert (await asked(control.cancel, live.settings, 'anna', 'x'))['bots'][0]['said'] == 'tw-two is CANCELED'
        assert not live.bot.halted


# killed in the middle

POINTS = {'asked': (Journal, 'halt'), 'cancelled': (Hands, '_closing'), 'intended': (Journal, 'intend'), 'fenced': (Journal, 'fence'), 'sent': (Gateway, 'submit'), 'adopted': (Journal, 'adopt')}


def flattening_process(url: str, folder, point: str | None):
    "A bot in a process of its own: it trades until it holds something, halts itself with --flatten, and dies at the point."
    import aiohttp

    from production.gateway import connect
    from production.local_exchange.client import rewire

    async def main():
        gateway = await connect('binance', 'local-key', 'local-secret', 10**6, redirect=lambda client: rewire(client, url))
        async with aiohttp.ClientSession() as http:
            with Journal.open(folder / 'j.db') as journal:
                async def release(bar):
                    if journal.bot('d' * 64, 'main', 'BTC/USDT', '1h').position > D('0.01') and not journal.halted():
                        if point: _die_at(*POINTS[point], 1)
                        await bot.halt('anna', 'news', flatten=True)
                    async with http.post(f'{url}/control/release', json=dict(through=bar)) as answer: await answer.read()
                bot = Runner(mandate(), gateway, journal, release)
                try: await bot.run(TIMES[-2])
                except Refused: os._exit(7)
    try: asyncio.run(main())
    finally: os._exit(1)


@pytest.mark.parametrize('point', POINTS)
def test_killed_while_it_flattens_the_next_start_finishes_it_before_anything_else(tmp_path, point):
    import ccxt.pro  # noqa: F401  so that a fork has it

    from production.local_exchange.child import start_child
    child = start_child([BARS], tmp_path / 'venue', first=FIRST, slippage='0.0005')
    ends = []
    try:
        for dying in (point, None):
            pid = os.fork()
            if not pid: flattening_process(child.url, tmp_path, dying)
            deadline = time.monotonic() + 30
            while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
                if time.monotonic() > deadline: os.kill(pid, signal.SIGKILL)
                time.sleep(.005)
            ends.append(os.waitstatus_to_exitcode(ended[1]))
    finally: child.stop()
    assert ends == [-signal.SIGKILL, 7]   # killed, and then refused to trade because it is halted
    there = exchange(log=tmp_path / 'venue' / 'exchange.log')
    try:
        found = books(tmp_path / 'j.db')
        agree_with_the_venue(found, there)
        assert there.venue.held('BTC') < D('0.0001')
    finally: there.close()
    with Journal.reader(tmp_path / 'j.db') as journal:
        assert journal.waiting() == [] and journal.halted('binance', 'main')
        assert [o['status'] for o in journal.orders() if o['seq'] >= HAND] == ['FILLED']
        assert journal.verify_audit()['broken'] is None
        after = [row['event'] for row in journal.audit()]
        assert 'decide' not in after[after.index('halt'):]


# money that moved by itself

async def test_money_that_moved_by_itself_is_accepted_by_a_person_and_trading_goes_on(tmp_path):
    there, path, settings = exchange(), tmp_path / 'j.db', settings_of(tmp_path)
    async with venue(there) as (gateway, _):
        await run(gateway, there, path, until=TIMES[40])
        with pytest.raises(Refused, match='nothing to accept'): control.accept(settings, 'anna', 'none')
        there.venue.free['USDT'] -= D('5.00000001')
        there.venue.free['BTC'] = there.venue.free.get('BTC', D(0)) + D('0.25')
        with pytest.raises(Refused, match='the venue and the journal disagree'): await run(gateway, there, path)
        wanted = [dict(account='main', symbol='BTC/USDT', cash='-5.00000001', position='+0.25')]
        def shown(rows): return [{k: v for k, v in row.items() if k != 'why'} for row in rows]
        with Journal.reader(path) as journal: before = journal.audit()
        assert shown(control.accept(settings, 'anna', '', dry_run=True)['booked']) == shown(control.status_report(settings)['differences']) == wanted
        with Journal.reader(path) as journal: assert journal.audit() == before
        with pytest.raises(BadInput, match='--why'): control.accept(settings, 'anna', '')
        assert shown(control.accept(settings, 'anna', 'a fee, and a gift')['booked']) == wanted
        control.resume(settings, 'anna')
        assert await run(gateway, there, path) == 'done'
        with Journal.open(path) as journal:
            [note] = [row for row in journal.audit('accept')]
            assert note['actor'] == 'anna' and note['detail']['position'] == '0.25' and journal.differences() == []
            [bot] = journal.status()['bots']
            journal.verify(bot['id'])
            assert (bot['cash'], bot['position']) == (there.venue.held('USDT'), there.venue.held('BTC'))
            [held] = journal.positions()
            gained = bot['equity'] - bot['opening_cash'] - D('-5.00000001') - D('0.25') * bot['close']
            assert abs(held['realised'] + held['unrealised'] - gained) < D('1e-9')
            with pytest.raises(Refused, match='rows of adjustment are only ever added'): tamper(journal, "update adjustment set position = '0.3'")
            tamper(journal, 'drop trigger adjustment_no_update', "update adjustment set position = '0.3'")
            with pytest.raises(Damaged, match='its fills and adjustments make'): journal.verify(bot['id'])


def tamper(journal, *statements):
    with journal._session() as s:
        for each in statements: s.execute(text(each))


async def test_a_live_bot_that_finds_money_gone_waits_and_goes_on_when_a_person_accepts_it(tmp_path):
    async with holding(tmp_path) as live:
        live.there.venue.free['USDT'] -= 5
        await asked(control.flatten, live.settings, 'anna', 'news')   # books are compared after what was done
        while not live.bot.halted: await asyncio.sleep(.01)
        done = await asked(control.accept, live.settings, 'anna', 'paid out')
        assert done['by'] == 'the runner' and [(row['cash'], row['position']) for row in done['booked']] == [('-5', '+0')]
        await asked(control.resume, live.settings, 'anna')
        await live.go()
        live.journal.verify(live.bot.bot.id)
        assert not live.journal.halted() and live.journal.reread(live.bot.bot.id).cash == live.there.venue.held('USDT')


async def test_a_bot_halted_because_books_differ_can_still_be_flattened_and_sells_no_more_than_there_is(tmp_path):
    async with holding(tmp_path) as live:
        order = Order('tw-tiny', 'BTC/USDT', 'sell', 'limit', D('0.001'), D('90000'))
        live.journal.intend(live.bot.bot.id, order)
        live.journal.adopt(order.client_id, await live.gateway.submit(order, await live.gateway.stamp(), 1000))
        live.there.venue.free['BTC'] -= D('0.1')   # somebody took it away
        await asked(control.cancel, live.settings, 'anna', 'x')
        while not live.bot.halted: await asyncio.sleep(.01)
        assert 'BTC' in live.bot.halted
        done = await asked(control.flatten, live.settings, 'anna', 'news')
        assert done['bots'][0]['said'].startswith('flat; 0.1') and not live.running.done() and live.there.venue.held('BTC') < D('0.0001')
        await asked(control.accept, live.settings, 'anna', 'taken away')
        assert live.journal.reread(live.bot.bot.id).position == live.there.venue.held('BTC')
        await asked(control.resume, live.settings, 'anna')
        await live.go()


async def test_what_is_asked_twice_is_done_once(tmp_path):
    async with holding(tmp_path) as live:
        asked_twice = [live.journal.demand('flatten', who, 'news') for who in ('anna', 'bert')]
        assert asked_twice[0] == asked_twice[1]
        live.bot.wake.set()
        while live.journal.waiting(): await asyncio.sleep(.01)
        assert len([o for o in live.journal.orders() if o['seq'] >= HAND]) == 1


async def test_a_difference_that_has_gone_is_not_accepted_later(tmp_path):
    there, path, settings = exchange(), tmp_path / 'j.db', settings_of(tmp_path)
    async with venue(there) as (gateway, _):
        await run(gateway, there, path, until=TIMES[40])
        there.venue.free['USDT'] -= 5
        with pytest.raises(Refused, match='disagree'): await run(gateway, there, path)
        there.venue.free['USDT'] += 5
        control.resume(settings, 'anna')
        assert await run(gateway, there, path) == 'done'
        with pytest.raises(Refused, match='nothing to accept'): control.accept(settings, 'anna', 'late')


@pytest.mark.parametrize('kind', ['sqlite', 'postgresql'])
def test_an_acceptance_is_whole_or_not_at_all(tmp_path, monkeypatch, kind):
    with nullcontext(tmp_path / 'j.db') if kind == 'sqlite' else postgres() as where, Journal.open(where) as journal:
        bots = [journal.enrol('d' * 64, name, 'v', 'BTC/USDT', '1h', 0, D(100), D(0)).id for name in 'ab']
        for bot in bots: journal.differ(bot, D('1.5'), D('0.1'), 'there is more')
        real, calls = journal._note, []
        def note(*args, **more):
            calls.append(args)
            if len(calls) == 2: raise KeyboardInterrupt
            return real(*args, **more)
        monkeypatch.setattr(journal, '_note', note)
        with pytest.raises(KeyboardInterrupt): journal.accept('anna', 'x')
        monkeypatch.setattr(journal, '_note', real)
        assert len(journal.differences()) == 2 and [journal.reread(bot).cash for bot in bots] == [100, 100]
        journal.accept('anna', 'x')
        for bot in bots: journal.verify(bot)
        assert [journal.reread(bot).cash for bot in bots] == [D('101.5')] * 2


# a strategy that hangs

def endless(bars):
    while True: pass


def asleep(bars): time.sleep(1.5)


@pytest.mark.parametrize('body', [endless, asleep])
async def test_fault_64_a_strategy_that_hangs_is_given_up_and_the_loop_stays_responsive(body):
    "The strategy hangs → it is asked in a thread of its own and given up in time, and everything else goes on."
    late, lags = Asked(body, 'stuck', .3), []
    async def clock():
        while True:
            at = time.monotonic()
            await asyncio.sleep(.01)
            lags.append(time.monotonic() - at)
    ticking = asyncio.create_task(clock())
    with pytest.raises(BadInput, match='stuck did not answer within 0.3 s'): await late(BARS.bars)
    if body is asleep:
        with pytest.raises(BadInput, match='stuck is still busy with an earlier bar'): await late(BARS.bars)
    ticking.cancel()
    late.thread.join(5)
    assert not late.thread.is_alive() and len(lags) > 5 and max(lags) < .25


async def test_fault_64_a_bot_whose_strategy_hangs_holds_counts_it_and_halts(tmp_path):
    "The strategy hangs at every bar → each counts as a failure, and the bot halts."
    @strategy
    def stuck(bars):
        "Hangs from some bar on."
        while bars.index[-1].value // 10**6 >= TIMES[35]: pass
        return np.full(len(bars), .5)
    there = exchange()
    async with venue(there) as (gateway, _):
        with Journal.open(tmp_path / 'j.db') as journal:
            bot = Runner(mandate(strategy=describe(stuck), params={}, strategy_deadline_s=.2, strikes=2), gateway, journal, there.release)
            running = asyncio.create_task(bot.run(TIMES[-2]))
            while not bot.halted: await asyncio.sleep(.02); assert not running.done()
            held = [m for m in journal.equity(bot.bot.id) if m['target'] is None]
            assert [(m['bar'], m['outcome'], m['reason']) for m in held] == [(at, 'held', 'stuck did not answer within 0.2 s') for at in TIMES[35:37]]
            assert 'the strategy failed 2 times in a row' in bot.halted
            bot.stop()
            await running


async def test_an_answer_from_the_thread_is_the_same_to_the_last_bit_and_what_it_raises_arrives():
    given = mandate()
    ask = decider(given.strategy, given.params)
    asked = Asked(ask, 'sma', 10)
    assert [await asked(BARS.bars.iloc[:k]) for k in range(10, 64)] == [ask(BARS.bars.iloc[:k]) for k in range(10, 64)]
    def broken(bars): raise BadInput('no')
    with pytest.raises(BadInput, match='^no$'): await Asked(broken, 'broken', 1)(BARS.bars)


# limits are told

async def test_a_limit_that_refuses_is_told_once_a_day_and_a_breaker_when_it_trips(tmp_path):
    there = exchange()
    async with venue(there) as (gateway, _): await run(gateway, there, tmp_path / 'j.db', mandate(limits=Limits(max_exposure=.5)))
    with Journal.reader(tmp_path / 'j.db') as journal:
        refused = {row['bar'] // 86_400_000 for row in journal.equity(1) if row['reason'].startswith('max_exposure')}
        told = [alert for alert in journal.history() if alert['rule'] == 'limit']
        assert len(told) == len(refused) > 1 and told[0]['title'] == 'Limit: max_exposure on BTC/USDT, main at binance'


async def test_a_breaker_trips_before_the_order_of_its_bar(tmp_path):
    there = exchange()
    async with venue(there) as (gateway, wire):
        with Journal.open(tmp_path / 'j.db') as journal:
            bot = Runner(replace(mandate(), limits=Limits(max_drawdown=.001)), gateway, journal, there.release)
            running = asyncio.create_task(bot.run(TIMES[-2]))
            while not bot.halted: await asyncio.sleep(.01)
            await asyncio.sleep(.2)
            events = [row['event'] for row in journal.audit()]
            assert 'fence' not in events[events.index('halt'):] and 'decide' in events[events.index('halt'):]
            assert [alert['title'] for alert in journal.history() if alert['rule'] == 'limit'] == ['Limit: max_drawdown on BTC/USDT, main at binance']
            bot.stop()
            await running


# what a hostile operator found

async def test_an_exit_that_falls_on_a_halt_is_made_up_for_after_it(tmp_path):
    there, path, halted = exchange(), tmp_path / 'journal.db', []
    async with venue(there) as (gateway, _):
        with Journal.open(path) as journal:
            bot = Runner(mandate(), gateway, journal, there.release)
            plan = bot._plan
            async def halting(at, target, close, *more):
                if target == 0 and bot.bot.position > D('.01') and not halted:
                    halted.append(at)
                    journal.halt('breaker', 'too much was lost')
                return await plan(at, target, close, *more)
            bot._plan = halting
            task = asyncio.create_task(bot.run(TIMES[-2]))
            while not halted: await asyncio.sleep(.01)
            await asyncio.sleep(.2)
            assert bot.bot.position > D('.01') and journal.target(bot.bot.id) == 1
            await bot.resume('ann', 'seen')
            assert await task == 'done'
            rows = journal.equity(bot.bot.id)
    row = next(k for k, each in enumerate(rows) if each['bar'] == halted[0])
    assert rows[row]['outcome'] == 'skipped' and rows[row]['reason'].startswith('due: halted by breaker')
    assert rows[row + 1]['outcome'] == 'traded' and rows[row + 2]['position'] < D('.01')


@pytest.mark.parametrize('who, why', [('op', 'x' * 70_000), ('\udcff', 'x'), ('op', '\udcff')], ids=['long', 'name', 'reason'])
def test_no_halt_is_refused_for_its_words(tmp_path, monkeypatch, capsys, who, why):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'settings.ini').write_text('')
    assert main(['halt', '--who', who, '--why', why]) == 0
    with Journal.reader(tmp_path / 'var' / 'journal.db') as journal: assert journal.halted()


def test_numbers_no_database_holds_are_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'settings.ini').write_text('')
    for argv in (['alerts', 'ack', '9' * 20], ['alerts', '--limit', '9' * 20], ['audit', '--limit', '9' * 20], ['audit', 'verify', '--end', '²:' + 'a' * 64]):
        assert main(argv) == 2, argv
