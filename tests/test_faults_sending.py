"Faults 1 to 25: what may go wrong with an order between the decision and its end."
import asyncio
import json
from urllib.parse import parse_qs

import pytest
from faulty import ASK, CANCEL, SEND, TIMES, D, Fault, bot, desk, resting, survives, undisturbed

from production.gate import Gate
from production.journal import Journal
from production.runner import Runner, client_id
from trading_lib.core.errors import BadInput, Refused, Rejected
from trading_lib.execution.orders import Order
from trading_lib.risk.limits import Limits, Prices

PRICES = Prices(30_000., volume=1e9)


def said(code: int, words: str = 'no.') -> str: return json.dumps(dict(code=code, msg=words))


# the answer

async def test_fault_01_answer_lost(tmp_path):
    "The order is taken and its answer is lost → it is looked up by its client id and adopted; it is not sent again."
    d = await survives(tmp_path, Fault(SEND, 'lose_response', times=3))
    assert len(d.sent) == 5 and len(d.doubts) == 3


async def test_fault_02_request_lost(tmp_path):
    "The order never arrives → not found once its window is over, it is sent again under the same client id."
    d = await survives(tmp_path, Fault(SEND, 'lose_request', times=2))
    assert len(d.sent) == 7 and len(set(d.sent)) == 5


async def test_fault_03_answer_cut_off(tmp_path):
    "The answer breaks off in the middle → it proves nothing; the order is looked up."
    d = await survives(tmp_path, Fault(SEND, 'truncate', times=3))
    assert len(d.sent) == 5 and len(d.doubts) == 3


async def test_fault_04_answer_too_late(tmp_path):
    "The order is taken and the answer comes after we gave up waiting → it is looked up and adopted."
    d = await survives(tmp_path, Fault(SEND, 'delay_after', .5), timeout_s=.2)
    assert len(d.sent) == 5


async def test_fault_05_order_arrives_after_we_asked_for_it(tmp_path):
    "The order arrives after the venue said that it does not know it → only a look after the end of its window counts, so none is sent twice."
    d = await survives(tmp_path, Fault(SEND, 'delay', .6), given=bot(order_window_ms=1000), timeout_s=.2)
    assert len(d.sent) == 5 and d.there.faults.fired[SEND, 'delay'] == 1


async def test_fault_06_order_arrives_after_its_window(tmp_path):
    "The order arrives too late and the venue refuses it for good → it is signed anew and sent under the same client id."
    d = await survives(tmp_path, Fault(SEND, 'delay', .5))
    assert len(d.sent) == 6 and len(set(d.sent)) == 5 and '-1021' in d.doubts[0] or 'timestamp' in d.doubts[0].lower()


async def test_fault_07_gateway_error_though_done(tmp_path):
    "502 or 504 for an order that was taken → a server error is never a no; the order is looked up."
    d = await survives(tmp_path, Fault(SEND, 'http_after', 502), Fault(SEND, 'http_after', 504))
    assert len(d.sent) == 5


async def test_fault_08_venue_does_not_know_itself(tmp_path):
    "The venue's own codes for not knowing (-1000, -1001, -1006, -1007) → unknown to us as well; the order is looked up."
    answers = [(500, -1000), (400, -1006), (408, -1007), (500, -1001)]
    d = await survives(tmp_path, *(Fault(SEND, 'http_after', [status, said(code)]) for status, code in answers))
    assert len(d.sent) == 5 and len(d.doubts) == 4


async def test_fault_09_nonsense_with_status_200(tmp_path):
    "HTML, nothing or {} with status 200 → it is no order without number, status and our client id; it is looked up."
    d = await survives(tmp_path, Fault(SEND, 'garbage'), Fault(SEND, 'garbage', ''), Fault(SEND, 'garbage', '{}'))
    assert len(d.sent) == 5 and len(d.doubts) == 3


async def test_fault_10_somebody_elses_answer(tmp_path):
    "The answer is about another order → its client id is not ours, so ours is looked up, and what was said is in the audit."
    d = await survives(tmp_path, Fault(SEND, 'stale'))
    assert len(d.sent) == 5 and undisturbed()['orders'][0][0] in d.doubts[0]


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='an answer about another order raises no alert of its own, only a row of the audit')
async def test_fault_10_somebody_elses_answer_is_told(tmp_path):
    "The answer is about another order → a person is told that somebody mixes up answers."
    d = await survives(tmp_path, Fault(SEND, 'stale'))
    assert 'unknown' in d.alerts


# the client id

async def test_fault_11_duplicate_client_id(tmp_path):
    "Refused as a duplicate → that means the first one is there: it is looked up and adopted, not counted as rejected."
    d = await survives(tmp_path, Fault(SEND, 'http_after', [400, said(-2010, 'Duplicate order sent.')]))
    assert len(d.sent) == 5


async def test_fault_12_repeated_after_it_was_filled(tmp_path):
    "A client id may be used again once the first order is done → nobody repeats a write, neither we nor ccxt, before looking."
    d = await survives(tmp_path, Fault(SEND, 'lose_response'))
    assert sum(method == 'post' for method, *_ in d.wire.sent) == 5


async def test_fault_12_would_double_with_the_librarys_own_retries(tmp_path):
    "ccxt is left to repeat writes by itself → two orders under one client id; which is why it never is."
    async with desk(tmp_path, Fault(SEND, 'lose_response')) as d:
        d.gateway.client.options.update(maxRetriesOnFailure=2, maxRetriesOnFailureDelay=1)
        d.gateway.client.maxRetriesOnFailure = 2
        order = Order('tw-1', 'BTC/USDT', 'buy', 'market', D('0.02'))
        await d.gateway.submit(order, await d.gateway.stamp(), 2000)
        assert d.placed() == ['tw-1', 'tw-1']


# refused for certain

async def test_fault_13_not_enough_money(tmp_path):
    "Refused for lack of money → rejected, told, and not tried again until the target changes."
    async with desk(tmp_path, Fault(SEND, 'http', [400, said(-2010, 'Account has insufficient balance for requested action.')])) as d:
        assert await d.run() == 'done'
        statuses = [order[5] for order in d.books['orders']]
        assert statuses[0] == 'REJECTED' and set(statuses[1:]) == {'FILLED'} and len(d.sent) == len(statuses) and 'rejected' in d.alerts
        assert d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))


@pytest.mark.parametrize('filters', [dict(step='0.01'), dict(min_quantity='5'), dict(min_notional='1000000')])
async def test_fault_14_filter_changed_under_us(tmp_path, filters):
    "The order breaks a filter that was changed since the markets were read → rejected with the reason and told, once a decision."
    async with desk(tmp_path) as d:
        d.there.change('filters', {'BTC/USDT': filters})
        assert await d.run() == 'done'
        orders = d.books['orders']
        assert {order[5] for order in orders} == {'REJECTED'} and len(d.sent) == len(orders) and not d.there.venue.orders
        assert d.alerts.count('rejected') == len(orders) and 'Filter failure' in d.read(Journal.orders)[0]['reason']


async def test_fault_15_market_order_with_a_price(tmp_path):
    "A price on a market order, which ccxt would take for the money to spend → there can be none, and no order on the wire has one."
    with pytest.raises(BadInput): Order('tw-1', 'BTC/USDT', 'buy', 'market', D('0.02'), D(30_000))
    d = await survives(tmp_path)
    wire = [parse_qs(bytes(body).decode()) for method, _, body in d.wire.sent if method == 'post']
    assert len(wire) == 5 and all('quantity' in each and not {'price', 'quoteOrderQty'} & each.keys() for each in wire)


async def test_fault_16_stop_that_would_trigger_at_once(tmp_path):
    "A stop on the wrong side of the price → rejected for certain, in the venue's words."
    async with desk(tmp_path) as d:
        order = Order('tw-1', 'BTC/USDT', 'buy', 'stop', D('0.02'), stop_price=D(1_000))
        with pytest.raises(Rejected, match='trigger immediately'): await d.gateway.submit(order, await d.gateway.stamp(), 2000)
        assert not d.there.venue.orders


@pytest.mark.xfail(strict=True, raises=TypeError, reason='no order kind that only makes: the bot sends market orders, so there is nothing to price anew')
async def test_fault_16_maker_order_would_cross(tmp_path):
    "An order that must not take would take → it is priced anew, a bounded number of times."
    await survives(tmp_path, given=bot(kind='limit_maker', reprices=3))


# filled in part

async def test_fault_17_filled_in_part_then_resting(tmp_path):
    "Filled in part, the rest rests → each fill is booked once, also those that came while nobody looked."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[30])
        d.there.change('max_fill', '0.005')
        for part in range(1, 5):
            with Journal.open(d.path) as journal:
                if part == 1: order = resting(journal, 31, price='40000')
                assert await Runner(bot(max_lateness_ms=10**9), d.gateway, journal).run(TIMES[31]) == 'done'
                [row] = [row for row in journal.orders() if row['client_id'] == order.client_id]
            assert (row['filled'], row['status']) == (D('0.005') * part, 'FILLED' if part == 4 else 'PARTIALLY_FILLED')
            assert d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))
            d.there.step()


async def test_fault_17_filled_while_the_books_are_compared(tmp_path):
    "A resting order fills between the look at it and the comparison of the books → it is looked at again before anybody speaks of a difference."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[30])
        d.there.change('max_fill', '0.005')
        with Journal.open(d.path) as journal: resting(journal, 31, price='40000')
        assert await d.run(bot(max_lateness_ms=10**9)) == 'done'


@pytest.mark.xfail(strict=True, raises=TypeError, reason='no policy that cancels what rests for too long and orders the rest under the next sequence number')
async def test_fault_17_the_rest_is_ordered_anew(tmp_path):
    "The rest does not fill → it is cancelled after a while and ordered under the next sequence number."
    await survives(tmp_path, given=bot(rest_after_bars=1))


async def halted_while_resting(d, *, press=None) -> tuple[str, dict]:
    "A bot with a resting order is halted, which cancels it; the order's name, and its row."
    await d.run(until=TIMES[30])
    with Journal.open(d.path) as journal:
        order = resting(journal, 31)
        runner = d.runner(journal, bot(max_lateness_ms=10**9))
        running = asyncio.create_task(runner.run())
        while not (runner.caught_up and d.there.venue.find(order.client_id)): await asyncio.sleep(.01)
        halting = asyncio.create_task(runner.halt('anna', 'news'))
        if press:
            await asyncio.sleep(.1)
            press(order)
        await halting
        runner.stop()
        await running
    return order.client_id, next(row for row in d.read(Journal.orders) if row['client_id'] == order.client_id)


async def test_fault_18_cancel_races_a_fill(tmp_path):
    "A fill overtakes the cancel → the look-up after the cancel shows it, and what is final at the venue is booked."
    async with desk(tmp_path, Fault(CANCEL, 'delay', .3)) as d:
        _, row = await halted_while_resting(d, press=lambda order: d.there.change('price', {'BTC/USDT': '9000'}))
        assert (row['status'], row['filled']) == ('FILLED', D('0.02')) and d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))


async def test_fault_19_answer_to_a_cancel_lost(tmp_path):
    "The answer to a cancel is lost → what became of the order is looked up, not assumed."
    async with desk(tmp_path, Fault(CANCEL, 'lose_response')) as d:
        name, row = await halted_while_resting(d)
        assert row['status'] == 'CANCELED' == d.there.venue.find(name).status and d.there.faults.fired[CANCEL, 'lose_response'] == 1


async def test_fault_20_market_order_ends_with_a_part_filled(tmp_path):
    "The book is too thin for a market order → it ends expired, and the part that was filled is booked."
    async with desk(tmp_path) as d:
        d.there.change('max_fill', '0.1')
        assert await d.run() == 'done'
        found = d.books
        assert found['orders'][0][4:] == (D('0.1'), 'EXPIRED') and all(order[4] == min(order[3], D('0.1')) for order in found['orders'])
        assert found['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))


# the market

async def test_fault_21_price_gaps_away(tmp_path):
    "The price jumps between the decision and the order → cash and position follow from the fills, not from the price that was expected."
    async with desk(tmp_path) as d:
        stamp = d.gateway.stamp
        async def stamp_and_jump():
            if not d.there.venue.orders: d.there.change('price', {'BTC/USDT': '31000'})
            return await stamp()
        d.gateway.stamp = stamp_and_jump
        assert await d.run() == 'done'
        first = d.books['fills'][0]
        assert first[3] > D(31_000) and d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))


@pytest.mark.xfail(strict=True, raises=TypeError, reason='no guard on the price of a market order before it is sent, and no alert on its slippage afterwards')
async def test_fault_21_price_gaps_away_is_guarded(tmp_path):
    "The price jumps between the decision and the order → beyond a bound it is not sent, and slippage is told."
    await survives(tmp_path, given=bot(limits=Limits(max_slippage=.01)))


@pytest.mark.xfail(strict=True, raises=TypeError, reason='the bot places no stops at the venue, so none is guarded')
async def test_fault_22_stop_gone(tmp_path):
    "The venue or the owner ends a stop → a position is never without one: it is placed again, and a person is told."
    async with desk(tmp_path) as d:
        await d.run(bot(stop_loss=.05), until=TIMES[31])
        assert [state.order.kind for state in d.there.venue.orders.values()][-1] == 'stop'


@pytest.mark.xfail(strict=True, raises=TypeError, reason='the bot places no stops at the venue, so none is replaced')
async def test_fault_23_killed_between_cancel_and_new_stop(tmp_path):
    "Killed between the old stop and the new one → both are one plan in the journal, and the start places it first."
    async with desk(tmp_path) as d:
        await d.run(bot(stop_loss=.05, trail=True), until=TIMES[31])
        assert [state.order.kind for state in d.there.venue.orders.values()][-1] == 'stop'


async def test_fault_24_order_rests_for_ever(tmp_path):
    "An order never fills → it is looked up at every bar, and stands in the journal as it stands at the venue."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[30])
        with Journal.open(d.path) as journal: order = resting(journal, 31)
        before = len(d.wire.sent)
        await d.run(bot(max_lateness_ms=10**9))
        looks = [url for method, url, _ in d.wire.sent[before:] if method == 'get' and '/api/v3/order?' in url and order.client_id in url]
        assert len(looks) >= 5 and d.there.venue.find(order.client_id).status == 'OPEN'
        assert [row['status'] for row in d.read(Journal.orders) if row['client_id'] == order.client_id] == ['OPEN']


@pytest.mark.xfail(strict=True, raises=AssertionError, reason='no policy for the age of an order: it is neither cancelled nor told')
async def test_fault_24_order_rests_for_ever_is_cancelled(tmp_path):
    "An order never fills → after a while it is cancelled, and a person is told."
    async with desk(tmp_path) as d:
        await d.run(until=TIMES[30])
        with Journal.open(d.path) as journal: order = resting(journal, 31)
        await d.run(bot(max_lateness_ms=10**9))
        assert d.there.venue.find(order.client_id).status == 'CANCELED'


async def test_fault_25_two_intents_in_one_bar(tmp_path):
    "One bar wants two orders, or two bots trade one account → each order has its own client id, a second runner is refused, and limits count the account."
    assert len({client_id(bot(), TIMES[31], 0), client_id(bot(), TIMES[31], 1), client_id(bot(dossier='e' * 64), TIMES[31], 0)}) == 3
    async with desk(tmp_path, Fault(SEND, 'lose_response'), Fault(ASK, 'lose_request', times=2)) as d:
        await d.run(until=TIMES[30])
        with Journal.open(d.path) as journal:
            held = journal.bot('d' * 64, 'main', 'BTC/USDT', '1h')
            orders = [Order(client_id(bot(), TIMES[31], seq), 'BTC/USDT', 'buy', 'market', D('0.02')) for seq in (0, 1)]
            journal.decide(held.id, TIMES[31], inputs='', target=1., outcome='traded', reason='', close=D(30_000), orders=orders)
            gate = Gate(Limits(max_exposure=.1), journal, 'binance', 'main')
            gate.mark(held.id, TIMES[31], held.cash)
            another = Order('tw-another', 'BTC/USDT', 'buy', 'market', D('0.01'))
            assert [breach.limit for breach in gate.refusals(another, D(30_000), PRICES, TIMES[31])] == ['max_exposure']
            with journal.lock('main', 'binance'), pytest.raises(Refused, match='in use by another process'): await d.runner(journal, bot(dossier='e' * 64)).run()
        assert await d.run(bot(max_lateness_ms=10**9), until=TIMES[32]) == 'done'
        d.nothing_is_doubled()
        assert [d.placed().count(order.client_id) for order in orders] == [1, 1]
        assert d.books['held'] == (d.there.venue.held('USDT'), d.there.venue.held('BTC'))
