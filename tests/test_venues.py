"""Every venue through unmodified ccxt and a scripted wire: what is sent, what is believed, what is kept in doubt."""
import asyncio
import json
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from spoken import AT, DUPLICATE, OURS, PLACE, REJECTION, SYMBOL, WHERE, gateway, market, order_of, receipt, shows, trade_of, wire, wrapped

from production.gateway import connect, use_test_network
from production.venues import VENUES
from production.venues.facts import OURS as FORM
from production.venues.pace import Breaker, Limiter, Shut
from trading_lib.core.errors import BadInput, Refused, Rejected, Unknown, Unreachable
from trading_lib.execution.orders import Order

D = Decimal
FIXTURES = Path(__file__).parents[2] / 'shared/data/exchange_fixtures'
all_venues = pytest.mark.parametrize('venue', VENUES)
WINDOW = 5_000


def buy(venue, **how):
    given = dict(client_id=OURS, symbol=SYMBOL.get(venue, 'BTC/USDT'), side='buy', quantity=D('0.02'))
    return Order(**given | (dict(kind='limit', price=D('30000')) if venue == 'onetrading' else dict(kind='market')) | how)


@pytest.fixture
async def desk(venue):
    yield gateway(venue)   # nothing to close: its session is a script


def fields(script, venue) -> dict:
    "What the one order said."
    [(_, _, body, _)] = script.posts()
    return json.loads(body) if body.startswith('{') else {name: value for name, [value] in parse_qs(body).items()}


def answers_the_order(script, venue, status, body): script.says.insert(0, (f'{PLACE[venue]} ', status, body))


@all_venues
async def test_an_accepted_order_is_read_with_its_fills_in_decimal(desk, venue):
    gate, script = desk
    answers_the_order(script, venue, *receipt(venue))
    shows(script, venue, order_of(venue))
    state = await gate.submit(buy(venue), AT, WINDOW)
    [fill] = state.fills
    assert (state.status, state.filled, state.cost, state.id) == ('FILLED', D('0.02'), D(600), '1')
    assert (fill.client_id, fill.quantity, fill.price, fill.time) == (OURS, D('0.02'), D(30_000), AT)
    quote = SYMBOL.get(venue, 'BTC/USDT').split(':')[0].split('/')[1]
    assert fill.fee_asset == ('BTC' if VENUES[venue].fee_in == 'received' else quote) and isinstance(fill.fee, Decimal) and fill.fee > 0
    assert len(script.posts()) == 1


@all_venues
async def test_on_the_wire_are_our_client_id_as_the_table_writes_it_the_quantity_and_no_price(desk, venue):
    gate, script = desk
    answers_the_order(script, venue, *receipt(venue))
    shows(script, venue, order_of(venue))
    await gate.submit(buy(venue), AT, WINDOW)
    said = fields(script, venue)
    assert wire(venue) in said.values()
    if venue == 'coinbase': assert said['order_configuration'] == {'market_market_ioc': {'base_size': '0.02'}} and 'cost' not in said
    else: assert '0.02' in {str(value).rstrip('0') for value in said.values()}
    if venue != 'onetrading': assert not {'price', 'px', 'quoteOrderQty', 'funds', 'quote_size', 'limitPrice'} & said.keys()
    assert said.get('tgtCcy', 'base_ccy') == 'base_ccy' and said.get('marketUnit', 'baseCoin') == 'baseCoin' and 'viqc' not in said.get('oflags', '')


@pytest.mark.parametrize('venue', [name for name, facts in VENUES.items() if facts.fence])
async def test_a_fenced_order_carries_the_journalled_time_and_window(desk, venue):
    gate, script = desk
    answers_the_order(script, venue, *receipt(venue))
    shows(script, venue, order_of(venue))
    before = gate.client.options.get('recvWindow')
    await gate.submit(buy(venue), AT, WINDOW)
    said, [(*_, headers)] = fields(script, venue), script.posts()
    if venue == 'binance': assert (said['timestamp'], said['recvWindow']) == (str(AT), str(WINDOW))
    if venue == 'bybit': assert (headers['X-BAPI-TIMESTAMP'], headers['X-BAPI-RECV-WINDOW']) == (str(AT), str(WINDOW))
    if venue == 'okx': assert (headers['OK-ACCESS-TIMESTAMP'], headers['expTime']) == ('2023-11-14T22:13:20.000Z', str(AT + WINDOW))
    if venue == 'kraken': assert said['deadline'] == '2023-11-14T22:13:25.000Z'
    assert gate.client.options.get('recvWindow') == before and abs(gate.client.nonce() - AT) > 10**9   # pinned for that one request only
    with pytest.raises(Rejected, match='order window'): await gate.submit(buy(venue), AT, 10**6)


@all_venues
async def test_a_refusal_on_the_list_is_a_rejection_and_the_same_words_under_another_status_are_not(desk, venue):
    gate, script = desk
    status, body = REJECTION[venue]
    answers_the_order(script, venue, status, body)
    with pytest.raises(Rejected, match=r'(?i)insufficient|MIN_SIZE'): await gate.submit(buy(venue), AT, WINDOW)
    for other in (200, 400, 500, 503):
        if other == status: continue
        answers_the_order(script, venue, other, body)
        with pytest.raises(Unknown): await gate.submit(buy(venue), AT, WINDOW)


@all_venues
async def test_a_duplicate_is_no_rejection(desk, venue):
    gate, script = desk
    answers_the_order(script, venue, *DUPLICATE[venue])
    with pytest.raises(Unknown): await gate.submit(buy(venue), AT, WINDOW)


GARBAGE = [(200, ''), (200, '{}'), (200, '<html></html>'), (200, '[]'), (502, '<html>Bad Gateway</html>'), (200, '{"code":0}'), (200, 'null'),
           (500, '{"error":"INTERNAL"}'), (200, '{"result":{}}'), (200, '{"code":"0","data":[]}'), (200, '{"retCode":0,"result":{}}'), (200,
        '{"success":true}')]


@all_venues
async def test_garbage_for_an_answer_leaves_the_order_unknown(desk, venue):
    gate, script = desk
    for status, body in GARBAGE:
        answers_the_order(script, venue, status, body)
        with pytest.raises(Unknown): await gate.submit(buy(venue), AT, WINDOW)
    assert len(script.posts()) == len(GARBAGE)


@pytest.mark.parametrize('venue', [name for name, facts in VENUES.items() if facts.receipt])
async def test_a_receipt_is_believed_only_once_the_order_behind_it_is_seen(desk, venue):
    gate, script = desk
    answers_the_order(script, venue, *receipt(venue))
    shows(script, venue)
    with pytest.raises(Unknown, match='does not show it yet'): await gate.submit(buy(venue), AT, WINDOW)
    script.says.clear()
    answers_the_order(script, venue, *receipt(venue))
    shows(script, venue, order_of(venue, name=wire(venue)) | ({'symbol': 'BTCUSDT', 'side': 'SELL'} if venue == 'bitunix' else {}))
    if venue == 'bitunix':
        with pytest.raises(Unknown): await gate.submit(buy(venue), AT, WINDOW)


@all_venues
async def test_not_found_is_none_only_in_the_venues_own_words(desk, venue):
    gate, script = desk
    shows(script, venue)
    assert await gate.lookup(buy(venue)) is None
    for status, body in ((200, '{}'), (200, ''), (200, '<html>'), (502, ''), (503, json.dumps(script.says[-1][2]))):
        script.says.clear()
        script.says += [(part, status, body) for part in (('OpenOrders', 'ClosedOrders') if venue == 'kraken' else (WHERE[venue][0],))]
        with pytest.raises(Unreachable): await gate.lookup(buy(venue))


@all_venues
async def test_an_open_order_is_found_by_client_id_and_listed_under_ours(desk, venue):
    gate, script = desk
    shows(script, venue, order_of(venue, '0'))
    if venue == 'kraken': script.says[:] = [('/OpenOrders', 200, wrapped(venue, 'open', order_of(venue, '0')))]
    state = await gate.lookup(buy(venue))
    assert (state.status, state.filled, state.id) == ('OPEN', 0, '1')
    script.says.insert(0, ('', 200, wrapped(venue, 'open', order_of(venue, '0'))))
    assert list(await gate.open_orders(buy(venue).symbol)) == [OURS]


@all_venues
async def test_somebody_elses_order_under_our_question_is_not_taken_for_ours(desk, venue):
    gate, script = desk
    foreign = order_of(venue, name='7eff' + wire(venue)[4:] if VENUES[venue].name.read(wire(venue)) != wire(venue) else 'somebody-else')
    shows(script, venue, foreign)
    if VENUES[venue].find.__name__ in ('find_at_bybit', 'find_at_kraken',
                                       'find_at_coinbase'): assert await gate.lookup(buy(venue)) is None   # lists: it is just another one
    else:
        with pytest.raises(Unreachable): await gate.lookup(buy(venue))


@all_venues
def test_our_client_ids_survive_the_way_there_and_back(venue):
    name, written = VENUES[venue].name, wire(venue)
    assert FORM.fullmatch(OURS) and name.read(written) == OURS and name.write(OURS) == written
    longest = {'okx': 32, 'kraken': 36, 'onetrading': 36, 'bybit': 36, 'binance': 36, 'kucoin': 40, 'bitunix': 36, 'coinbase': 128}
    assert len(written) <= longest[venue] and (venue != 'okx' or written.isalnum())
    with pytest.raises(BadInput): name.write('tw-' + 'ä' * 40)


@all_venues
async def test_what_a_venue_does_not_take_is_refused_before_the_socket(desk, venue):
    gate, script = desk
    stop = buy(venue, kind='stop', price=None, stop_price=D(20_000), side='sell')
    if 'stop' not in VENUES[venue].stops:
        with pytest.raises(Rejected, match='guard it here'): await gate.submit(stop, AT, WINDOW)
    if venue == 'onetrading':
        with pytest.raises(Rejected, match='takes no market orders'): await gate.submit(buy(venue, kind='market', price=None), AT, WINDOW)
    gate.client.apiKey = gate.client.secret = ''
    with pytest.raises(Rejected, match='not sent'): await gate.submit(buy(venue), AT, WINDOW)
    assert script.posts() == []


@pytest.mark.parametrize('venue', [name for name, facts in VENUES.items() if facts.stops])
@pytest.mark.parametrize('kind', ['stop', 'take_profit'])
async def test_a_stop_that_the_venue_keeps_is_sent_with_its_trigger(desk, venue, kind):
    gate, script = desk
    answers_the_order(script, venue, 500, '')
    with pytest.raises(Unknown): await gate.submit(buy(venue, kind=kind, price=None, stop_price=D(20_000), side='sell'), AT, WINDOW)
    said = fields(script, venue)
    assert float(said.get('stopPrice') or said.get('triggerPrice') or said.get('price')) == 20_000
    if venue == 'binance': assert said['type'] == {'stop': 'STOP_LOSS', 'take_profit': 'TAKE_PROFIT'}[kind]
    if venue == 'kraken': assert said['ordertype'] == {'stop': 'stop-loss', 'take_profit': 'take-profit'}[kind]


@all_venues
async def test_a_cancel_names_the_order_by_our_id_and_then_looks(desk, venue):
    gate, script = desk
    shows(script, venue, order_of(venue))
    script.says.append(('', 200, '{}'))
    assert (await gate.cancel(buy(venue))).status == 'FILLED'
    asked = [one for one in script.sent if 'ancel' in one[1] or one[0] == 'DELETE']
    assert len(asked) == 1 and (wire(venue) in f'{asked[0][1]} {asked[0][2]}' or venue == 'coinbase' and '"1"' in asked[0][2])


def test_every_table_is_whole():
    for venue, facts in VENUES.items():
        assert facts.weights.keys() == {'time', 'order', 'lookup', 'account', 'open', 'trades', 'bars', 'markets'}, venue
        assert facts.fence == bool(facts.window or facts.pin), venue
        assert not {code for _, code in facts.rejections} & (facts.not_found | facts.expired | facts.slow | facts.no_entry - {'20011', '30040',
                '400200'}), venue
        assert all(200 <= status < 500 for status, _ in facts.rejections), venue


# test networks, keys

@pytest.mark.parametrize('venue', ['binance', 'bybit', 'okx'])
async def test_a_test_network_is_switched_to_and_checked(venue):
    gate, _ = gateway(venue)
    use_test_network(gate.client, gate.facts)
    if venue == 'okx': assert gate.client.headers['x-simulated-trading'] == '1'
    else: assert 'testnet' in gate.client.urls['api']['private']


@pytest.mark.parametrize('venue', ['kraken', 'coinbase', 'kucoin', 'onetrading', 'bitunix'])
async def test_a_venue_without_one_is_refused_with_the_address_that_stays(venue):
    with pytest.raises(Refused, match='not on a test network.*https://'): await connect(venue, sandbox=True)


async def test_an_address_that_was_not_switched_is_named():
    gate, _ = gateway('binance')
    gate.client.urls['test']['private'] = 'https://api.binance.com/api/v3'
    with pytest.raises(Refused, match=r'not switched all of it, its address is https://api\.binance\.com/api/v3'): use_test_network(gate.client,
            gate.facts)


RIGHTS = {'binance': lambda may: {'enableWithdrawals': may, 'enableReading': True},
          'bybit': lambda may: {'retCode': 0, 'result': {'permissions': {'Wallet': ['AccountTransfer'] + ['Withdraw'] * may, 'Spot': ['SpotTrade']}}},
          'okx': lambda may: {'code': '0', 'data': [{'perm': 'read_only,trade' + ',withdraw' * may}]},
          'kraken': lambda may: {'error': [], 'result': {'permissions': ['query-funds', 'modify-trades'] + ['withdraw-funds'] * may}},
          'coinbase': lambda may: {'can_view': True, 'can_trade': True, 'can_transfer': may},
          'kucoin': lambda may: {'code': '200000', 'data': {'permission': 'General,Spot' + ',Withdrawal' * may}}}


@pytest.mark.parametrize('venue', RIGHTS)
async def test_a_key_that_may_withdraw_is_refused(desk, venue):
    gate, script = desk
    script.says[:] = [('', 200, RIGHTS[venue](False))]
    await gate.refuse_withdrawals()
    script.says[:] = [('', 200, RIGHTS[venue](True))]
    with pytest.raises(Refused, match='may withdraw'): await gate.refuse_withdrawals()
    script.says[:] = [('', 200, '{}')]   # no answer is no leave
    with pytest.raises(Unreachable): await gate.refuse_withdrawals()


@pytest.mark.parametrize('venue', sorted(VENUES.keys() - RIGHTS.keys()))
async def test_where_a_venue_does_not_tell_that_is_said(desk, venue):
    rights = await desk[0].rights()
    assert rights['withdraw'] is None and 'does not tell' in rights['said']


@pytest.mark.parametrize('venue', ['okx', 'kucoin'])
async def test_a_key_of_three_parts_needs_all_three(venue):
    with pytest.raises(BadInput, match='password'): await connect(venue, 'key', 'secret')


# pace

class Clock:
    now = 100.
    def __call__(self): return self.now


async def test_a_reserve_is_kept_for_exits():
    clock = Clock()
    limiter = Limiter(per_minute=700, clock=clock)   # a bucket of 100
    for _ in range(8): await limiter.take(10)
    waiting = asyncio.create_task(limiter.take(10))
    await asyncio.sleep(.01)
    assert not waiting.done() and limiter.level == pytest.approx(20)
    await limiter.take(10, urgent=True)
    await limiter.take(10, urgent=True)
    assert limiter.level == pytest.approx(0) and not waiting.done()
    waiting.cancel()


async def test_a_pause_holds_everyone_and_a_long_one_is_said():
    clock = Clock()
    limiter = Limiter(700, clock=clock)
    limiter.pause(3_600)
    for urgent in (False, True):
        with pytest.raises(Shut, match='3600 s'): await limiter.take(1, urgent)
    clock.now += 3_600
    await limiter.take(1)


def test_the_breaker_opens_probes_further_and_further_apart_and_closes():
    clock = Clock()
    breaker = Breaker('binance', after=3, clock=clock)
    for _ in range(2): breaker.bad()
    breaker.check()
    breaker.bad()
    assert breaker.state == 'open'
    with pytest.raises(Shut, match='binance has not answered since 20'): breaker.check()
    clock.now += 1
    assert breaker.state == 'half-open'
    breaker.check()                                     # the probe
    with pytest.raises(Shut): breaker.check()           # and no other beside it
    breaker.bad()
    clock.now += 1.5
    with pytest.raises(Shut): breaker.check()           # now two seconds
    clock.now += .5
    breaker.check()
    breaker.good()
    breaker.check()
    assert breaker.state == 'closed' and breaker.since is None


@pytest.mark.parametrize('venue', ['binance'])
async def test_a_venue_that_is_away_is_not_asked_until_its_probe_is_answered(desk):
    gate, script = desk
    script.says.append(('/time', 503, ''))
    for _ in range(6):
        with pytest.raises(Unreachable): await gate.venue_time()
    assert len(script.sent) == 5 and gate.status()['breaker'] == 'open' and gate.status()['since'].startswith('20')
    script.says[:] = [('/time', 200, {'serverTime': AT})]
    gate.breaker.probe_at = 0.
    assert await gate.venue_time() == AT and gate.status()['breaker'] == 'closed'


@pytest.mark.parametrize('venue', ['binance'])
async def test_the_end_of_a_ban_is_told_and_kept(venue):
    told = []
    gate, script = gateway(venue, on_ban=lambda until, why: told.append((until, why)))
    script.says.append(('/time', 418, {'code': -1003, 'msg': 'Way too much request weight used; IP banned'}, {'Retry-After': '120'}))
    with pytest.raises(Unreachable): await gate.venue_time()
    [(until, why)] = told
    assert 119_000 < until - gate.client.milliseconds() <= 120_000 and 'IP banned' in why and gate.status()['banned_until'] == until
    with pytest.raises(Unreachable, match='quiet'): await gate.cancel(buy(venue))   # exits too
    assert len(script.sent) == 1


@pytest.mark.parametrize('venue, body', [('bybit', {'retCode': 10006, 'retMsg': 'Too many visits!'}), ('kraken',
        {'error': ['EAPI:Rate limit exceeded']}),
                                         ('bitunix', {'code': 10005, 'msg': 'Too many requests'})])
async def test_too_many_requests_is_heard_without_a_status_that_says_so(desk, venue, body):
    gate, script = desk
    script.says.append(('', 200, body))
    with pytest.raises(Unreachable): await gate.balances()
    assert gate.limiter.paused_s > .5


@pytest.mark.parametrize('venue', ['kraken'])
async def test_a_nonce_only_rises(desk):
    gate, script = desk
    script.says.append(('', 200, {'error': [], 'result': {'open': {}, 'closed': {}}}))
    gate.client.milliseconds = lambda: AT
    await asyncio.gather(*(gate.open_orders('BTC/USDT') for _ in range(5)))
    nonces = [int(parse_qs(body)['nonce'][0]) for _, _, body, _ in script.sent]
    assert nonces == sorted(set(nonces)) and len(nonces) == 5


@pytest.mark.parametrize('venue', ['kraken'])
async def test_bars_are_paged_where_an_answer_holds_fewer(desk):
    gate, script = desk
    now, hour = 1_700_002_800, 3_600
    bar = lambda at: [at, '1', '2', '1', '2', '1', '10', 1]
    script.says += [('/Time', 200, {'error': [], 'result': {'unixtime': now}})]
    script.says += [(f'since={now - hour * (9 - 3 * n)}', 200, {'error': [],
            'result': {'XBTUSDT': [bar(now - hour * (9 - 3 * n - k)) for k in range(3)],
            'last': now}}) for n in range(4)]
    script.says += [('/OHLC', 200, {'error': [], 'result': {'XBTUSDT': [bar(now - hour * (9 - n)) for n in range(9)], 'last': now}})]
    bars = await gate.bars('BTC/USDT', '1h', (now - 9 * hour) * 1000, 1000)
    assert len(bars) == 9 and bars.index.is_monotonic_increasing and bars.index.is_unique


@pytest.mark.parametrize('venue', ['kraken'])
async def test_a_full_page_of_open_orders_is_not_taken_for_all_of_them(venue):
    gate, script = gateway('bitunix')
    script.says.append(('', 200, wrapped('bitunix', 'open', *[order_of('bitunix', '0', id=str(n)) for n in range(100)])))
    with pytest.raises(Refused, match='100 or more open orders'): await gate.open_orders('BTC/USDT:USDT')


# answers as exchanges gave them

recorded = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f'no recorded answers at {FIXTURES}')


def said(name: str): return json.loads((FIXTURES / f'{name}.json').read_text())


@recorded
@pytest.mark.parametrize('venue', ['binance'])
async def test_binance_answers_as_recorded_are_read(desk):
    gate, script = desk
    base = 'nautilus/binance/spot/http_json'
    script.says += [('POST https://api.binance.com/api/v3/order', 200, said(f'{base}/new_order_full_response')), ('/time', 200,
            said(f'{base}/server_time_response')),
                    ('/myTrades', 200, said(f'{base}/account_trades_response')), ('/openOrders', 200, said(f'{base}/open_orders_response'))]
    state = await gate.submit(Order('6gCrw2kRUAF9CvJDGP16IP', 'BTC/USDT', 'sell', 'market', D(10)), AT, WINDOW)
    assert (state.status, state.filled, state.cost, state.id) == ('FILLED', D(10), D(39_983), '28')
    assert sum(f.fee for f in state.fills) == D('39.983') and len(state.fills) == 5
    with pytest.raises(Unknown): await gate.submit(buy('binance'), AT, WINDOW)   # a proper answer about another order
    assert await gate.venue_time() == said(f'{base}/server_time_response')['serverTime']
    gate.client.set_markets([market('binance') | dict(id='LTCBTC', symbol='LTC/BTC', base='LTC', quote='BTC'), market('binance') | dict(id='BNBBTC',
            symbol='BNB/BTC', base='BNB', quote='BTC')])
    assert list(await gate.open_orders('LTC/BTC')) == ['myOrder1']
    [trade] = await gate.trades('BNB/BTC')
    assert (trade['id'], trade['amount'], trade['fee']['cost'], trade['fee']['currency']) == ('28457', '12.00000000', '10.10000000', 'BNB')


@recorded
@pytest.mark.parametrize('venue', ['kraken'])
async def test_kraken_answers_as_recorded_are_read(desk):
    gate, script = desk
    pairs = said('nautilus/kraken/http_asset_pairs')
    [id] = pairs['result']
    script.says += [('/Assets', 200, {'error': [], 'result': {}}), ('/AssetPairs', 200, pairs), ('/Time', 200,
            said('nautilus/kraken/http_server_time')),
                    ('/OpenOrders', 200, said('nautilus/kraken/http_open_orders')), ('/ClosedOrders', 200,
            said('nautilus/kraken/http_closed_orders')),
                    ('/TradesHistory', 200, said('nautilus/kraken/http_trades_history')), ('/AddOrder', 200,
            said('nautilus/kraken/http_add_order_spot')),
                    ('/TradeVolume', 200, {'error': [], 'result': {'fees': {id: {'fee': '0.2500'}}, 'fees_maker': {id: {'fee': '0.1600'}}}})]
    assert await gate.venue_time() == said('nautilus/kraken/http_server_time')['result']['unixtime'] * 1000
    await gate.client.load_markets(reload=True)
    rules = await gate.rules('BTC/USDT')
    assert (rules.step, rules.tick, rules.min_quantity, rules.min_notional, rules.fee) == (D('1e-8'), D('0.1'), D('0.00005'), D('0.5'), D('0.0025'))
    assert list(await gate.open_orders('BTC/USDT')) == ['O26VBY-ISGAE-JP5TLU']   # placed by hand, with a userref of 0, which is no client id
    assert await gate.lookup(buy('kraken')) is None
    with pytest.raises(Unknown, match='OUF4EM-FRGI2-MQMWZD.*does not show it'): await gate.submit(buy('kraken'), AT, WINDOW)
    [trade] = await gate.trades('BTC/USDT')
    assert (trade['order'], D(trade['fee']['cost']), trade['fee']['currency']) == ('O26VBY-ISGAE-JP5TLU', D('23.60'), 'USDT')


@recorded
@pytest.mark.parametrize('venue', ['okx'])
async def test_okx_answers_as_recorded_are_read(desk):
    gate, script = desk
    script.says += [('/public/instruments', 200, said('nautilus/okx/http_get_instruments_spot')), ('/account/balance', 200,
            said('nautilus/okx/http_get_account_balance')),
                    ('/account/trade-fee', 200, said('nautilus/okx/http_get_trade_fee_response'))]
    free, used = (await gate.balances())['USDT']
    assert free == D('94.42612990333333') and abs(used - D('5.468566666666667')) < D('1e-12')   # in use is equity less what is free
    await gate.client.load_markets(reload=True)
    first = said('nautilus/okx/http_get_instruments_spot')['data'][0]
    rules = await gate.rules(f'{first["baseCcy"]}/{first["quoteCcy"]}')
    assert (rules.step, rules.tick, rules.min_quantity, rules.fee) == (D(first['lotSz']), D(first['tickSz']), D(first['minSz']), D('0.001'))
    history, trade = said('nautilus/okx/http_get_orders_history'), said('nautilus/okx/http_transaction_detail')
    theirs = history['data'][0] | dict(clOrdId=wire('okx'), instId='BTC-USDT', instType='SPOT')   # as recorded, but ours and spot
    gate.client.set_markets([market('okx')])
    script.says[:] = [('/trade/order?', 200, {**history, 'data': [theirs]}), ('/fills', 200, {'code': '0', 'msg': '', 'data': [
        trade | dict(ordId=theirs['ordId'], fillSz='0.03', fillPx=theirs['fillPx'], fee=theirs['fee'], feeCcy=theirs['feeCcy'])]})]
    state = await gate.lookup(buy('okx', quantity=D('0.03')))
    assert (state.status, state.filled, state.id, state.fills[0].fee) == ('FILLED', D('0.03'), '2497956918703120384', D('0.021776769'))


@recorded
@pytest.mark.parametrize('venue', ['coinbase'])
async def test_coinbase_answers_as_recorded_are_read(desk):
    gate, script = desk
    script.says += [('/brokerage/accounts', 200, said('nautilus/coinbase/http_accounts')), ('/historical/fills', 200,
            said('nautilus/coinbase/http_fills')),
                    ('/market/products', 200, said('nautilus/coinbase/http_products')), ('/transaction_summary', 200,
            {'fee_tier': {'taker_fee_rate': '0.006',
            'maker_fee_rate': '0.004'}})]
    assert await gate.balances() == {'BTC': (D('1.23456789'), D('0.00500000')), 'USD': (D('10000.50'), D('450.00'))}
    [trade, *_] = await gate.trades('BTC/USD')
    assert (trade['id'], trade['order'], trade['amount'], trade['fee']['cost'], trade['fee']['currency']) == ('1111-11111-111111',
            '0000-000000-000000', '0.005', '1.14',
            'USD')
    await gate.client.load_markets(reload=True)
    rules = await gate.rules('BTC/USD')
    assert (rules.step, rules.tick, rules.fee, rules.fee_in) == (D('0.00000001'), D('0.01'), D('0.006'), 'quote')


@recorded
@pytest.mark.parametrize('venue', ['onetrading'])
async def test_one_trading_answers_as_recorded_are_read(desk):
    gate, script = desk
    bodies = said('ccxt_static_excerpts/onetrading_orders_and_currencies')
    placed, closed, rejected = bodies['createOrder'], *bodies['orders']
    ours = lambda order: {**order, 'order': order['order'] | dict(client_id=wire('onetrading'))}   # as recorded, but ours
    script.says += [('POST', 201, placed), ('/account/orders/client/', 200, ours(closed)), ('/trades', 200, {'trade_history': [
        {'fee': {'fee_amount': '0.00003', 'fee_currency': 'BTC'}, 'trade': {'trade_id': 't', 'order_id': closed['order']['order_id'],
            'amount': '0.02', 'side': 'BUY',
            'instrument_code': 'BTC_EUR', 'price': '41000',
            'time': '2026-08-20T10:10:00.000Z'}}]})]
    state = await gate.lookup(buy('onetrading', quantity=D('0.05'), price=D(41_000)))
    assert (state.status, state.filled, state.cost, state.fills[0].fee_asset) == ('CANCELED', D('0.02'), D(820), 'BTC')
    script.says[1] = ('/account/orders/client/', 200, ours(rejected))
    state = await gate.lookup(buy('onetrading', side='sell', quantity=D('0.03'), price=D(44_000)))
    assert (state.status, state.filled) == ('REJECTED', 0)
    with pytest.raises(Unknown): await gate.submit(buy('onetrading'), AT, WINDOW)   # its number is not the one that is shown
    assert placed['client_id'] != wire('onetrading')


# what a venue charges and holds, in bodies of the documented form

FEES = {'bybit': ('/fee-rate', dict(retCode=0, result={'list': [dict(symbol='BTCUSDT', takerFeeRate='0.0008', makerFeeRate='0.0001')]})),
        'kucoin': ('/trade-fees', dict(code='200000', data=[dict(symbol='BTC-USDT', takerFeeRate='0.0008', makerFeeRate='0.0001')])),
        'bitunix': ('', {})}


@pytest.mark.parametrize('venue', FEES)
async def test_the_rules_are_of_this_market_and_this_account(desk, venue):
    gate, script = desk
    part, body = FEES[venue]
    script.says.append((part or 'nothing', 200, body))
    rules = await gate.rules(SYMBOL.get(venue, 'BTC/USDT'))
    assert (rules.step, rules.tick, rules.min_notional) == (D('0.00001'), D('0.01'), D(5))
    assert (rules.fee, rules.margin) == ((D('0.001'), True) if venue == 'bitunix' else (D('0.0008'), False))


HELD = {'binance': dict(balances=[dict(asset='BTC', free='1.5', locked='0.5')], commissionRates={}),
        'bybit': dict(retCode=0, result={'list': [dict(accountType='UNIFIED', coin=[dict(coin='BTC', walletBalance='2', locked='0.5', equity='2')])]}, time=AT),
        'okx': dict(code='0', data=[dict(uTime=str(AT), details=[dict(ccy='BTC', availBal='1.5', availEq='1.5', frozenBal='0.5', eq='2', cashBal='2')])]),
        'kraken': dict(error=[], result={'XXBT': dict(balance='2', hold_trade='0.5')}),
        'coinbase': dict(accounts=[dict(type='CRYPTO', currency='BTC', available_balance=dict(value='1.5', currency='BTC'), hold=dict(value='0.5', currency='BTC'))],
                         has_next=False, cursor=''),
        'kucoin': dict(code='200000', data=[dict(id='1', currency='BTC', type='trade_hf', balance='2', available='1.5', holds='0.5')]),
        'onetrading': dict(account_id='a', balances=[dict(currency_code='BTC', available='1.5', locked='0.5')]),
        'bitunix': dict(code=0, data=dict(marginCoin='BTC', available='1.5', frozen='0.5', margin='0'))}


@all_venues
async def test_balances_are_free_and_locked_in_decimal_and_an_empty_answer_is_no_empty_account(desk, venue):
    gate, script = desk
    script.says[:] = [('', 200, HELD[venue])]
    assert (await gate.balances())['BTC'] == (D('1.5'), D('0.5'))
    for body in ('{}', '', '[]', '<html>'):
        script.says[:] = [('', 200, body)]
        with pytest.raises(Unreachable): await gate.balances()


@pytest.mark.parametrize('venue', ['bybit'])
async def test_trades_are_paged_backwards_where_the_newest_come_first(desk):
    gate, script = desk
    trade = lambda n: trade_of('bybit') | dict(execId=str(n), execTime=str(AT + n))
    script.says += [(f'endTime={AT + 100}', 200, wrapped('bybit', 'trades', *[trade(n) for n in range(100, 60, -1)])),
                    ('/execution/list', 200, wrapped('bybit', 'trades', *[trade(n) for n in range(199, 99, -1)]))]
    found = await gate.trades('BTC/USDT', AT)
    assert [trade['id'] for trade in found] == [str(n) for n in range(61, 200)]


@pytest.mark.parametrize('venue', ['binance'])
async def test_an_exit_may_use_the_reserve_and_is_tried_while_the_breaker_is_open(desk):
    gate, script = desk
    script.says.append(('/time', 200, {'serverTime': AT}))
    gate.limiter = Limiter(7 * 100)
    gate.limiter.level = gate.limiter.room * .2
    for _ in range(5): gate.breaker.bad()
    with pytest.raises(Shut): await asyncio.wait_for(gate.venue_time(), 1)
    assert await asyncio.wait_for(gate.stamp(urgent=True), 1) == AT
    assert gate.limiter.level < gate.limiter.room * .2 and gate.breaker.state == 'closed'


async def test_a_ban_outlives_a_restart():
    from time import time
    with pytest.raises(Unreachable, match='quiet'): await connect('binance', banned_until=int((time() + 3_600) * 1000))


async def test_real_money_on_a_test_network_is_a_contradiction():
    with pytest.raises(BadInput, match='exclude each other'): await connect('binance', live=True, sandbox=True)
