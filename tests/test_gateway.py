"""The gateway against the local exchange, through unmodified ccxt, over a wire that fails in every way it can."""
import asyncio
from dataclasses import replace
from decimal import Decimal
from urllib.parse import parse_qs

import pytest
from local_venue import HOUR, Wire, sample, venue

from production.gateway import connect
from production.local_exchange.exchange import LocalExchange
from trading_lib.core.errors import BadInput, Refused, Rejected, Unknown, Unreachable
from trading_lib.execution.orders import Order

D = Decimal
ORDER = ('post', '/api/v3/order')


@pytest.fixture
async def desk():
    exchange = LocalExchange([sample()], first=30)
    async with venue(exchange) as (gateway, wire): yield exchange, gateway, wire


def buy(name='tw-1', quantity='0.02', kind='market', price=None): return Order(name, 'BTC/USDT', 'buy', kind, D(quantity), price and D(price))


async def send(gateway, order, window=2_000): return await gateway.submit(order, await gateway.stamp(), window)


def placed(exchange): return [state.order.client_id for state in exchange.venue.orders.values()]


async def test_the_rules_and_balances_are_those_of_the_venue_in_decimal(desk):
    exchange, gateway, _ = desk
    rules = await gateway.rules('BTC/USDT')
    assert rules == exchange.rules['BTC/USDT']
    assert all(isinstance(value, Decimal) for value in (rules.step, rules.tick, rules.min_quantity, rules.min_notional, rules.fee))
    assert (await gateway.balances())['USDT'] == (D(10_000), D(0))


async def test_a_market_order_is_answered_with_its_fills(desk):
    exchange, gateway, wire = desk
    state = await send(gateway, buy())
    [told] = exchange.venue.orders.values()
    assert (state.status, state.filled, state.cost) == ('FILLED', told.filled, told.cost)
    assert [(f.trade_id, f.quantity, f.price, f.fee, f.fee_asset) for f in state.fills] == [('1', D('0.02'), told.fills[0].price, D('0.00002'), 'BTC')]
    found = await gateway.lookup(buy())
    assert (found.status, found.fills, found.id) == (state.status, state.fills, state.id)


async def test_on_the_wire_are_the_quantity_as_written_the_pinned_timestamp_and_no_price(desk):
    _, gateway, wire = desk
    sent_at = await gateway.stamp()
    await gateway.submit(buy(quantity='0.30000'), sent_at, 1_500)
    said = {k: v for k, [v] in parse_qs(wire.sent[-1][2].decode()).items()}
    assert (said['quantity'], said['newClientOrderId'], said['timestamp'], said['recvWindow']) == ('0.3', 'tw-1', str(sent_at), '1500')
    assert not {'price', 'quoteOrderQty'} & said.keys()


async def test_a_resting_order_is_seen_open_and_can_be_cancelled(desk):
    exchange, gateway, _ = desk
    order = buy('tw-limit', kind='limit', price='20000.00')
    assert (await send(gateway, order)).status == 'OPEN'
    assert list(await gateway.open_orders('BTC/USDT')) == ['tw-limit']
    assert (await gateway.balances())['USDT'] == (D(9_600), D(400))
    assert (await gateway.cancel(order)).status == 'CANCELED'
    assert (await gateway.cancel(order)).status == 'CANCELED'
    assert await gateway.open_orders('BTC/USDT') == {}


@pytest.mark.parametrize('kind', ['lose_response', 'truncate', ('after', 502, '<html>Bad Gateway</html>'), ('after', 200, ''), ('after', 200, '{}'),
                                  ('after', 200, '<html></html>'), ('after', 500, '{"code":-1000,"msg":"An unknown error occured"}'),
                                  ('after', 400, '{"code":-1006,"msg":"An unexpected response was received from the message bus"}'),
                                  ('after', 408, '{"code":-1007,"msg":"Timeout waiting for response from backend server"}'),
                                  ('after', 200, '{"symbol":"BTCUSDT","orderId":77,"clientOrderId":"somebody-else","status":"FILLED","side":"BUY",'
                                                 '"type":"MARKET","origQty":"0.02","executedQty":"0.02","cummulativeQuoteQty":"600","fills":[]}')])
async def test_an_accepted_order_whose_answer_is_lost_or_garbled_is_unknown_and_then_found(desk, kind):
    exchange, gateway, wire = desk
    wire.faults.append((*ORDER, kind))
    with pytest.raises(Unknown): await send(gateway, buy())
    assert (await gateway.lookup(buy())).status == 'FILLED'
    assert placed(exchange) == ['tw-1']


async def test_a_lost_request_is_unknown_too_and_then_not_found(desk):
    exchange, gateway, wire = desk
    wire.faults.append((*ORDER, 'lose_request'))
    with pytest.raises(Unknown): await send(gateway, buy())
    assert await gateway.lookup(buy()) is None
    assert placed(exchange) == []


@pytest.mark.parametrize('order, word', [(buy(quantity='0.00001'), 'NOTIONAL'), (buy(quantity='10'), 'insufficient balance'),
                                         (buy(kind='limit', price='20000.001', quantity='0.1'), 'no multiple'),
                                         (buy(quantity='0.1234567'), 'no multiple'), (buy(quantity='0.0000001'), 'no multiple')])
async def test_what_the_venue_refuses_for_certain_is_rejected_in_its_words(desk, order, word):
    exchange, gateway, _ = desk
    with pytest.raises(Rejected, match=word): await send(gateway, order)
    assert placed(exchange) == []


async def test_a_duplicate_is_not_a_rejection(desk):
    exchange, gateway, _ = desk
    order = buy('tw-limit', kind='limit', price='20000')
    await send(gateway, order)
    with pytest.raises(Unknown, match='Duplicate'): await send(gateway, order)
    assert (await gateway.lookup(order)).status == 'OPEN'


async def test_the_same_words_under_another_status_prove_nothing(desk):
    _, gateway, wire = desk
    wire.faults.append((*ORDER, ('instead', 503, '{"code":-2010,"msg":"Account has insufficient balance for requested action."}')))
    with pytest.raises(Unknown): await send(gateway, buy())


async def test_a_request_outside_its_window_is_unknown_and_never_accepted(desk):
    exchange, gateway, _ = desk
    sent_at = await gateway.venue_time()
    await asyncio.sleep(.15)
    with pytest.raises(Unknown, match='recvWindow'): await gateway.submit(buy(), sent_at, 100)
    assert placed(exchange) == []


async def test_writes_are_sent_once_and_reads_again(desk):
    _, gateway, wire = desk
    wire.faults += [(*ORDER, ('instead', 502, '')), ('get', '/account', 'lose_response'), ('get', '/account', ('after', 200, '{}')),
                    ('get', '/account', ('after', 200, '<html>'))]
    with pytest.raises(Unknown): await send(gateway, buy())
    assert sum('/order' in url for method, url, _ in wire.sent if method == 'post') == 1
    assert (await gateway.balances())['USDT'][0] == 10_000


async def test_only_the_venues_own_word_means_not_found(desk):
    _, gateway, wire = desk
    gateway.attempts = 2
    wire.faults += [('get', '/order', ('after', 404, 'not found')), ('get', '/order', 'lose_response')]
    with pytest.raises(Unreachable): await gateway.lookup(buy())
    assert await gateway.lookup(buy()) is None


async def test_signed_reads_follow_the_venues_clock(desk):
    exchange, gateway, _ = desk
    for _ in range(3): exchange.step()   # three hours in no time
    assert (await gateway.balances())['USDT'][0] == 10_000


async def test_a_key_that_is_refused_is_said_at_once(desk):
    _, gateway, wire = desk
    gateway.client.secret = 'wrong'
    with pytest.raises(Refused, match='check the API key'): await gateway.balances()
    assert sum('/account' in url for _, url, _ in wire.sent) == 1


async def test_a_venue_that_says_slow_down_is_given_time_by_everyone(desk):
    _, gateway, wire = desk
    wire.faults.append(('get', '/account', ('instead', 429, '{"code":-1003,"msg":"Too many requests"}', {'Retry-After': '0.4'})))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.gather(gateway.balances(), gateway.open_orders('BTC/USDT'))
    assert loop.time() - begun > .35


async def test_requests_stay_within_the_weight_of_a_minute():
    exchange = LocalExchange([sample()], first=30)
    async with venue(exchange) as (gateway, _):
        slow = type(gateway)(gateway.client, gateway.facts, weight_per_minute=60)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for _ in range(10): await slow.venue_time()
        assert loop.time() - begun > 1   # a burst of 60 / 7, then one a second or so


async def test_bars_are_closed_ones_and_the_stream_hints_at_the_next(desk):
    exchange, gateway, _ = desk
    first = exchange.times[0]
    assert len(await gateway.bars('BTC/USDT', '1h', first, 1000)) == 30
    waiting = asyncio.create_task(gateway.wait_for_bar('BTC/USDT', '1h', 10))
    for _ in range(100):
        await asyncio.sleep(.02)
        if waiting.done(): break
        exchange.step()
    assert waiting.done()
    assert len(await gateway.bars('BTC/USDT', '1h', first + 29 * HOUR, 1000)) > 1


async def test_an_unknown_venue_or_market_is_named_with_the_nearest(desk):
    with pytest.raises(BadInput, match='did you mean binance'): await connect('binanse')
    with pytest.raises(BadInput, match='did you mean BTC/USDT'): await desk[1].rules('BTC/USD')


async def test_a_venue_that_is_not_there_is_unreachable():
    from production.local_exchange.client import rewire
    with pytest.raises(Unreachable, match='binance did not answer'):
        await connect('binance', redirect=lambda client: rewire(client, 'http://127.0.0.1:9'), attempts=2)


# the same gateway in OKX's words: nothing in it is Binance's

@pytest.fixture
async def okx():
    from production.local_exchange.client import OKX_HOSTS, rewire
    from production.local_exchange.okx import PASSPHRASE
    from production.local_exchange.server import served
    exchange, wires = LocalExchange([sample()], first=30), []
    def redirect(client):
        client.session = Wire(rewire(client, address, OKX_HOSTS))
        wires.append(client.session)
        return client.session.session
    async with served(exchange) as address:
        gateway = await connect('okx', 'local-key', 'local-secret', 10**6, redirect=redirect, timeout_s=2, password=PASSPHRASE)
        try: yield exchange, gateway, wires[0]
        finally: await gateway.close()


def named(quantity='0.02', n=1, **how): return Order(f'tw-{n:030x}', 'BTC/USDT', 'buy', how.pop('kind', 'market'), D(quantity), **how)


async def test_at_okx_an_order_is_sent_found_and_cancelled_by_our_id(okx):
    exchange, gateway, wire = okx
    state = await send(gateway, named())
    [told] = exchange.venue.orders.values()
    assert (state.status, state.filled, state.cost, state.fills[0].fee_asset) == ('FILLED', told.filled, told.cost, 'BTC')
    resting = named(n=2, kind='limit', price=D('20000'))
    assert (await send(gateway, resting)).status == 'OPEN'
    assert list(await gateway.open_orders('BTC/USDT')) == [resting.client_id]
    assert (await gateway.cancel(resting)).status == 'CANCELED'
    assert await gateway.lookup(named(n=3)) is None
    assert await gateway.rules('BTC/USDT') == replace(exchange.rules['BTC/USDT'], min_notional=0)   # OKX names none


async def test_at_okx_what_is_refused_is_rejected_and_what_is_lost_is_unknown(okx):
    exchange, gateway, wire = okx
    with pytest.raises(Rejected, match='(?i)insufficient'): await send(gateway, named('10'))
    for kind in ('lose_response', 'truncate', ('after', 200, '{}')):
        wire.faults.append(('post', '/api/v5/trade/order', kind))
        with pytest.raises(Unknown): await send(gateway, named(n=len(exchange.venue.orders) + 1))
        assert (await gateway.lookup(named(n=len(exchange.venue.orders)))).status == 'FILLED'
    sent_at = await gateway.venue_time()
    await asyncio.sleep(.15)
    with pytest.raises(Unknown): await gateway.submit(named(n=9), sent_at, 100)   # past its deadline
    assert await gateway.lookup(named(n=9)) is None and len(exchange.venue.orders) == 3
