"Faults 40 to 56: the line to a venue, its limits, its clock, its doors and its streams."
import asyncio
import json
import time
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import aiohttp
import pandas as pd
import pytest
import time_machine
import yarl
from faulty import ACCOUNT, SEND, TIMES, UNTIL, D, Fault, bot, desk, later, resting, survives, undisturbed
from local_venue import venue
from test_runner import BARS, FIRST, exchange

from production.journal import Journal
from production.local_exchange.exchange import LocalExchange
from trading_lib.core.errors import Refused
from trading_lib.execution.orders import Order

EVERYTHING = '* /api/v3/*'
MIDDLE = 31   # the bar after which things happen


def once(do):
    "Something to do after the bar in the middle."
    return lambda d, row: do(d) if row == MIDDLE else None


# clocks

async def test_fault_40_venue_clock_jumps(tmp_path):
    "The venue's clock jumps 20 s ahead and back → signed requests follow its clock, and every order bears its time."
    def each(d, row): d.there.faults.ail(skew={31: 20_000, 33: 0}[row]) if row in (31, 33) else None
    await survives(tmp_path, each=each)


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='the skew of the clocks is followed silently: no bound beyond which sending pauses, and nobody is told')
async def test_fault_40_venue_clock_jumps_is_told(tmp_path):
    "The venue's clock jumps 20 s ahead → a person is told."
    d = await survives(tmp_path, each=once(lambda d: d.there.faults.ail(skew=20_000)))
    assert set(d.alerts) & {'stale_data', 'limit', 'parity'}


async def test_fault_41_our_clock_stepped_back(tmp_path):
    "Our clock is set back by an hour → limits and patience run on a clock that only rises, and order times come from the venue; nothing stalls."
    with time_machine.travel(time.time(), tick=True) as clock:
        began = time.monotonic()
        await survives(tmp_path, each=once(lambda d: clock.shift(timedelta(hours=-1))))
        assert time.monotonic() - began < 20


@pytest.mark.parametrize('day, zone', [('2024-03-10', 'America/New_York'), ('2024-02-29', 'Pacific/Auckland')])
async def test_fault_42_summer_time_leap_day_and_end_of_month(tmp_path, monkeypatch, day, zone):
    "Summer time begins, or a leap day and a month end, where the machine stands → bars are counted in UTC, and nothing changes."
    monkeypatch.setenv('TZ', zone)
    time.tzset()
    try:
        shift = pd.Timestamp(day, tz='UTC') - pd.Timestamp('2024-01-02', tz='UTC')
        moved = shift // pd.Timedelta('1ms')
        there = LocalExchange([replace(BARS, bars=BARS.bars.set_axis(BARS.bars.index + shift))], first=FIRST, slippage='0.0005')
        async with desk(tmp_path, there=there) as d:
            assert await d.run(bot(start=TIMES[FIRST - 1] + moved), until=UNTIL + moved) == 'done'
            assert [(mark[0] - moved, *mark[2:]) for mark in d.books['marks']] == [(mark[0], *mark[2:]) for mark in undisturbed()['marks']]
    finally:
        monkeypatch.undo()
        time.tzset()


# limits and doors

async def test_fault_43_too_many_requests(tmp_path):
    "429 with a time to wait → nobody asks anything until it is over, then all goes on."
    pauses = []
    def listen(d):
        pause = d.gateway.limiter.pause
        def paused(seconds):
            pauses.append([seconds, len(d.wire.sent)])
            later(seconds * .9, lambda: pauses[-1].append(len(d.wire.sent)))
            pause(seconds)
        d.gateway.limiter.pause = paused
        d.there.faults.add(Fault(ACCOUNT, 'http', [429, '{}', {'Retry-After': '0.4'}]))
    await survives(tmp_path, each=once(listen))
    [(seconds, before, after)] = pauses
    assert seconds == .4 and before == after


async def test_fault_44_banned(tmp_path):
    "418 until a moment → nothing is asked until then, and whoever wants to know is told until when."
    told = []
    d = await survives(tmp_path, each=once(lambda d: d.there.faults.ail(banned_until=TIMES[MIDDLE + 2] + 600)), on_ban=lambda until, why: told.append((until, why)))
    assert len(told) == 1 and d.gateway.banned_until == told[0][0] and 'banned' in told[0][1]


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='the end of a ban is told by the gateway and understood by it at a start, but no runner keeps it in between')
async def test_fault_44_ban_outlives_a_restart(tmp_path):
    "418 until a moment → the journal keeps it, so that a restart does not ask earlier."
    d = await survives(tmp_path, each=once(lambda d: d.there.faults.ail(banned_until=TIMES[MIDDLE + 2] + 600)))
    assert any('banned' in json.dumps(row['detail']) for row in d.read(lambda journal: journal.audit()))


async def test_fault_45_too_many_orders(tmp_path):
    "The venue counts too many orders (-1015) → the order is looked up, and sent again once its window is over."
    no = json.dumps(dict(code=-1015, msg='Too many new orders.'))
    d = await survives(tmp_path, Fault(SEND, 'http', [400, no]), Fault(SEND, 'http', [429, no, {'Retry-After': '0.1'}]))
    assert len(d.sent) == 7 and len(set(d.sent)) == 5


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='orders share the pace of all requests: nothing counts them apart, as the venue does (50 in 10 s)')
async def test_fault_45_orders_have_a_pace_of_their_own(tmp_path):
    "Many orders at once → they are paced below what the venue counts, whatever weight is left."
    async with desk(tmp_path, timeout_s=2) as d:
        async def flood():
            for k in range(60): await d.gateway.submit(Order(f'tw-{k}', 'BTC/USDT', 'buy', 'market', D('0.001')), await d.gateway.stamp(), 2000)
        with suppress(TimeoutError): await asyncio.wait_for(flood(), 8)
        assert len(d.placed()) <= 50


@pytest.mark.parametrize('status', [403, 451])
async def test_fault_46_not_from_here(tmp_path, status):
    "A firewall or a forbidden region → halt at once and tell a person; nothing more is asked."
    async with desk(tmp_path) as d:
        def shut(row): d.there.faults.add(Fault(EVERYTHING, 'http', [status, 'Forbidden'], times=None)) if row == MIDDLE else None
        assert 'does not let us in' in await d.halts(each=shut)
        assert 'halt' in d.alerts and sum(d.there.faults.fired.values()) < 5


async def test_fault_47_key_revoked(tmp_path):
    "The key is revoked, which ccxt takes for too many requests → its code is read: halt and tell a person."
    async with desk(tmp_path) as d:
        def revoke(row): d.there.faults.ail(revoked=['local-key']) if row == MIDDLE else None
        assert 'check the API key, its rights and its IP list' in await d.halts(each=revoke)
        assert 'halt' in d.alerts


async def test_fault_48_key_may_withdraw(tmp_path):
    "The key may take money out → with real money the bot does not even start."
    there = exchange()
    there.faults.ail(can_withdraw=True)
    with pytest.raises(Refused, match='may withdraw: make one that may only read and trade'):
        async with venue(there, live=True): pass
    there = exchange()
    async with venue(there, live=True) as (gateway, _): assert (await gateway.rights())['withdraw'] is False


async def test_fault_49_maintenance(tmp_path):
    "The venue is under maintenance → a breaker opens, only probes are sent, and the bot goes on with the same books."
    opened = []
    def close(d):
        d.gateway.breaker.after, d.gateway.breaker.first_s = 3, .5
        d.there.faults.ail(maintenance=True)
        later(.6, lambda: (opened.append((d.gateway.breaker.state, len(d.there.venue.orders))), d.there.faults.ail(maintenance=False)))
        opened.append(len(d.there.venue.orders))
    await survives(tmp_path, each=once(close))
    assert opened[1] == ('open', opened[0])


@pytest.mark.parametrize('nowhere', ['http://127.0.0.1:9', 'http://venue.invalid'], ids=['no way there', 'no such name'])
async def test_fault_50_no_network(tmp_path, nowhere):
    "No connection, or no such name → as if the venue were away; what is unknown stays unknown until it can be looked up."
    def cut(d):
        session, home = d.wire.session, d.wire.session.base
        d.there.faults.add(Fault(SEND, 'lose_response'))
        submit = d.gateway.submit
        async def gone(*order):
            try: return await submit(*order)
            finally:
                session.base = yarl.URL(nowhere)
                later(.3, lambda: setattr(session, 'base', home))
                d.gateway.submit = submit
        d.gateway.submit = gone
    d = await survives(tmp_path, each=once(cut))
    assert len(d.doubts) == 1 and len(d.sent) == 5


# streams

LISTENING = dict(pace_s=.08, given=bot(poll_s=.3))   # bars come while the bot waits for them, and its own questions are rarer than that


async def streams(d) -> int:
    "How many streams of bars the venue has listeners for."
    async with aiohttp.ClientSession() as http, http.get(f'{d.url}/control/overview') as answer: return (await answer.json())['sockets']


@pytest.mark.parametrize('code', [1001, 1006])
async def test_fault_51_stream_closed(tmp_path, code):
    "The stream is closed, with or without a word → it is listened to again, and meanwhile bars are asked for."
    heard = []
    async def drop(d, row):
        if row == MIDDLE:
            heard.append(await streams(d))
            await d.press(drop_ws=code)
            d.pace_s = .35
        elif row > MIDDLE: heard.append(await streams(d))
    await survives(tmp_path, each=drop, **LISTENING)
    assert heard[0] == 1 and 0 in heard and heard[-1] == 1


async def test_fault_52_stream_half_open(tmp_path):
    "The stream is open and says nothing → bars are asked for all the same, so silence delays by one poll at most."
    async with desk(tmp_path, pace_s=LISTENING['pace_s']) as d:
        began = time.monotonic()
        assert await d.run(LISTENING['given'], each=lambda row: d.press(freeze_ws=True) if row == MIDDLE else None) == 'done'
        assert time.monotonic() - began < 10 and await streams(d) == 1
        await d.press(drop_ws=1006)
    d.as_if_nothing_had_happened()


async def test_fault_53_user_stream_ended_by_the_venue(tmp_path):
    "The venue ends the stream of our orders → nothing waits for it: what became of an order is asked for."
    await survives(tmp_path, each=once(lambda d: d.press(end_user_stream=True, muted=['user'])), **LISTENING)


async def test_fault_54_one_fill_not_heard(tmp_path):
    "A fill is missing in the stream → the look at every open order at the next bar finds it."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[30])
        await d.press(user_events=['drop'] * 3)
        with Journal.open(d.path) as journal: order = resting(journal, 31, price='29000')
        async def jump(row):
            if row == 33: d.there.change('price', {'BTC/USDT': '28000'})
            if row == 34: assert d.books['orders'][[o[0] for o in d.books['orders']].index(order.client_id)][5] == 'FILLED'
        assert await d.run(bot(max_lateness_ms=10**9), each=jump) == 'done'
        assert d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))


async def test_fault_55_events_twice_and_out_of_order(tmp_path):
    "Events come twice or in the wrong order → what is filled only grows, and what is final stays final."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[30])
        d.there.change('max_fill', '0.01')
        with Journal.open(d.path) as journal:
            order = resting(journal, 31, price='40000')
            journal.fence(order.client_id, await d.gateway.stamp(), 2000)
            part = await d.gateway.submit(order, await d.gateway.stamp(), 2000)
            d.there.step()
            whole = await d.gateway.lookup(order)
            assert (part.status, whole.status) == ('PARTIALLY_FILLED', 'FILLED')
            for state in (whole, whole): journal.adopt(order.client_id, state)
            with pytest.raises(Refused, match='cannot become PARTIALLY_FILLED'): journal.adopt(order.client_id, part)
            assert journal.intent(order.client_id).status == 'FILLED'
        assert d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))


async def test_fault_56_flood_of_messages(tmp_path):
    "Ten thousand messages at once → they are hints about bars and no more, so orders do not wait behind them."
    began = time.monotonic()
    await survives(tmp_path, each=once(lambda d: d.press(flood=10_000)), **LISTENING)
    assert time.monotonic() - began < 20
