"""What each venue says over the wire in the tests: small bodies in its own words, and a session that answers with them."""
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from local_venue import Answer

from production.gateway import Gateway, _client
from production.venues import VENUES

OURS = f'tw-{"ab" * 15}'
AT = 1_700_000_000_000   # the venue's time
SYMBOL = {'coinbase': 'BTC/USD', 'onetrading': 'BTC/EUR', 'bitunix': 'BTC/USDT:USDT'}
IDS = {'okx': 'BTC-USDT', 'kucoin': 'BTC-USDT', 'coinbase': 'BTC-USD', 'kraken': 'XBTUSDT', 'onetrading': 'BTC_EUR'}


@dataclass
class Script:
    "A session for a ccxt client: `says` is a list of (part of the URL or body, status, body), the first that fits answers; used up where `once`."
    says: list[tuple] = field(default_factory=list)
    sent: list[tuple] = field(default_factory=list)
    headers: dict = field(default_factory=dict)
    cookie_jar = None

    def get(self, url, **how): return self._ask('GET', url, how)
    def post(self, url, **how): return self._ask('POST', url, how)
    def delete(self, url, **how): return self._ask('DELETE', url, how)
    async def close(self): pass

    @asynccontextmanager
    async def _ask(self, method, url, how):
        body = (how.get('data') or b'').decode()
        self.sent.append((method, str(url), body, how.get('headers')))
        for part, status, said, *headers in self.says:
            if part in f'{method} {url} {body}':
                yield Answer(status, said if isinstance(said, str) else json.dumps(said), headers[0] if headers else {})
                return
        raise AssertionError(f'nobody answers {method} {url} {body}')

    def posts(self) -> list[tuple]: return [one for one in self.sent if one[0] == 'POST' and PLACE[self.venue] in one[1]]


def market(venue: str) -> dict:
    symbol, id = SYMBOL.get(venue, 'BTC/USDT'), IDS.get(venue, 'BTCUSDT')
    base, quote = symbol.split(':')[0].split('/')
    swap = ':' in symbol
    return {'id': id, 'symbol': symbol, 'base': base, 'quote': quote, 'baseId': base, 'quoteId': quote, 'settle': quote if swap else None,
            'type': 'swap' if swap else 'spot',
            'spot': not swap, 'swap': swap, 'margin': False, 'future': False, 'option': False, 'contract': swap, 'linear': True if swap else None,
            'inverse': False if swap else None,
            'active': True, 'taker': '0.001', 'maker': '0.001', 'contractSize': '1' if swap else None, 'altname': id, 'expiry': None,
            'precision': {'amount': '0.00001', 'price': '0.01'}, 'info': {'altname': id, 'orderTypes': ['LIMIT', 'MARKET', 'STOP_LOSS',
            'TAKE_PROFIT']},
            'limits': {'amount': {'min': '0.00001'}, 'price': {'min': None}, 'cost': {'min': '5'}, 'leverage': {}}}


def gateway(venue: str, **how) -> tuple[Gateway, Script]:
    "A gateway whose client has one market and a scripted wire."
    client = _client(venue)({'apiKey': 'key', 'secret': 'c2VjcmV0', 'password': 'word', 'options': VENUES[venue].options})
    script = Script()
    script.venue = venue
    gate = Gateway(client, VENUES[venue], weight_per_minute=10**6, attempts=1, **how)
    client.session, client.own_session = script, False
    client.set_markets([market(venue)])
    return gate, script


def wire(venue: str) -> str: return VENUES[venue].name.write(OURS)


PLACE = {'binance': '/api/v3/order', 'bybit': '/v5/order/create', 'okx': '/api/v5/trade/order', 'kraken': '/AddOrder',
         'coinbase': '/brokerage/orders',
         'kucoin': '/hf/orders', 'onetrading': '/account/orders', 'bitunix': '/trade/place_order'}
PRICE = '30000'


def order_of(venue: str, filled: str = '0.02', id: str = '1', name: str | None = None) -> dict:
    "An order of 0.02 bought at 30,000, as the venue shows it: open with nothing filled, or filled."
    w, done = name or wire(venue), filled == '0.02'
    limit = venue == 'onetrading'
    return {
        'binance': dict(symbol='BTCUSDT', orderId=int(id), orderListId=-1, clientOrderId=w, price='0.00000000', origQty='0.02000000',
                        executedQty=filled,
                        cummulativeQuoteQty='600' if done else '0', status='FILLED' if done else 'NEW', type='MARKET', side='BUY', time=AT,
                        updateTime=AT),
        'bybit': dict(orderId=id, orderLinkId=w, symbol='BTCUSDT', price='0', qty='0.02', side='Buy', orderStatus='Filled' if done else 'New',
                      orderType='Market',
                      cumExecQty=filled, cumExecValue='600' if done else '0', avgPrice=PRICE if done else '', createdTime=str(AT),
                      updatedTime=str(AT), timeInForce='IOC', marketUnit='baseCoin'),
        'okx': dict(instId='BTC-USDT', instType='SPOT', ordId=id, clOrdId=w, sz='0.02', accFillSz=filled, avgPx=PRICE if done else '', side='buy',
                    ordType='market', px='',
                    state='filled' if done else 'live', tgtCcy='base_ccy', fee='-0.00002', feeCcy='BTC', cTime=str(AT), uTime=str(AT), tag='',
                    fillPx='', fillSz='0'),
        'kraken': dict(cl_ord_id=w, userref=None, status='closed' if done else 'open', opentm=AT / 1000, vol='0.02', vol_exec=filled, cost='600',
                       fee='1.2', price=PRICE,
                       descr=dict(pair='XBTUSDT', type='buy', ordertype='market', price='0', price2='0', order='buy 0.02 XBTUSDT @ market'),
                       oflags='fciq',
                       trades=['t1'] if done else []),
        'coinbase': dict(order_id=id, client_order_id=w, product_id='BTC-USD', side='BUY', status='FILLED' if done else 'OPEN', filled_size=filled,
                         average_filled_price=PRICE, total_fees='1.2', order_type='MARKET', created_time='2023-11-14T22:13:20Z',
                         order_configuration={'market_market_ioc': {'base_size': '0.02'}}),
        'kucoin': dict(id=id, clientOid=w, symbol='BTC-USDT', type='market', side='buy', price='0', size='0.02', dealSize=filled,
                       dealFunds='600' if done else '0', fee='0.6',
                       feeCurrency='USDT', active=not done, inOrderBook=not done, cancelExist=False, createdAt=AT, lastUpdatedAt=AT,
                       tradeType='TRADE'),
        'onetrading': dict(order=dict(order_id=id, client_id=w, account_id='a', instrument_code='BTC_EUR', amount='0.02', side='BUY', price=PRICE,
                                      filled_amount=filled,
                                      type='LIMIT', status='FILLED_FULLY' if done else 'OPEN', time='2023-11-14T22:13:20.000Z',
                                      time_in_force='GOOD_TILL_CANCELLED'), trades=[]),
        'bitunix': dict(orderId=id, clientId=w, symbol='BTCUSDT', qty='0.02', tradeQty=filled, price='0', side='BUY', orderType='MARKET',
                        effect='GTC',
                        status='FILLED' if done else 'NEW', fee='0.36', reduceOnly=False, ctime=AT, mtime=AT),
    }[venue] | ({} if limit else {})


def trade_of(venue: str) -> dict:
    return {
        'binance': dict(symbol='BTCUSDT', id=7, orderId=1, price=PRICE, qty='0.02', quoteQty='600', commission='0.00002', commissionAsset='BTC',
                        time=AT, isBuyer=True, isMaker=False),
        'bybit': dict(symbol='BTCUSDT', orderId='1', orderLinkId=wire('bybit'), execId='7', execPrice=PRICE, execQty='0.02', execFee='0.00002',
                      feeCurrency='BTC', feeRate='0.001',
                      execTime=str(AT), side='Buy', orderType='Market', isMaker=False, execType='Trade'),
        'okx': dict(instType='SPOT', instId='BTC-USDT', tradeId='7', ordId='1', clOrdId=wire('okx'), fillPx=PRICE, fillSz='0.02', side='buy',
                    execType='T', feeCcy='BTC',
                    fee='-0.00002', ts=str(AT)),
        'kraken': dict(ordertxid='1', pair='XBTUSDT', time=AT / 1000, type='buy', ordertype='market', price=PRICE, cost='600', fee='1.2', vol='0.02'),
        'coinbase': dict(entry_id='e', trade_id='7', order_id='1', trade_time='2023-11-14T22:13:20Z', trade_type='FILL', price=PRICE, size='0.02',
                         commission='1.2',
                         product_id='BTC-USD', side='BUY', liquidity_indicator='TAKER', size_in_quote=False),
        'kucoin': dict(id=7, symbol='BTC-USDT', tradeId=7, orderId='1', side='buy', liquidity='taker', price=PRICE, size='0.02', funds='600',
                       fee='0.6', feeRate='0.001',
                       feeCurrency='USDT', createdAt=AT),
        'onetrading': dict(fee=dict(fee_amount='0.00002', fee_currency='BTC', fee_type='TAKER'),
                           trade=dict(trade_id='7', order_id='1', amount='0.02', side='BUY', instrument_code='BTC_EUR', price=PRICE,
                                      time='2023-11-14T22:13:20.000Z')),
        'bitunix': dict(tradeId='7', orderId='1', symbol='BTCUSDT', qty='0.02', price=PRICE, side='BUY', orderType='MARKET', fee='0.36', ctime=AT,
                        roleType='TAKER'),
    }[venue]


def wrapped(venue: str, what: str, *found: dict) -> object:
    "A body about orders or trades, in the venue's envelope."
    found = list(found)
    if venue == 'binance': return found if what != 'order' else found[0] if found else {'code': -2013, 'msg': 'Order does not exist.'}
    if venue == 'bybit': return dict(retCode=0, retMsg='OK', result=dict(category='spot', list=found, nextPageCursor=''), retExtInfo={}, time=AT)
    if venue == 'okx': return dict(code='0', msg='', data=found) if found or what != 'order' else dict(code='51603', msg='Order does not exist',
            data=[])
    if venue == 'kraken': return dict(error=[], result={what: {'1' if what != 'trades' else 't1': one for one in found}})
    if venue == 'coinbase': return {'fills' if what == 'trades' else 'orders': found, 'has_next': False, 'cursor': ''}
    if venue == 'kucoin':
        if what == 'order': return dict(code='200000', data=found[0]) if found else dict(code='400100', msg='order_not_exist')
        return dict(code='200000', data=found if what == 'open' else dict(items=found, lastId=1))
    if venue == 'onetrading': return found[0] if what == 'order' else {'trade_history' if what == 'trades' else 'order_history': found,
            'max_page_size': 100}
    if what == 'order': return dict(code=0, data=found[0], msg='Success') if found else dict(code=20007, data=None,
            msg='Order not found, please try it later')
    return dict(code=0, data={'tradeList' if what == 'trades' else 'orderList': found, 'total': len(found)}, msg='Success')


def receipt(venue: str) -> tuple[int, object]:
    "The answer to a new order."
    w = wire(venue)
    return (201 if venue == 'onetrading' else 200), {
        'binance': order_of('binance') | dict(transactTime=AT, fills=[dict(price=PRICE, qty='0.02', commission='0.00002', commissionAsset='BTC',
            tradeId=7)]),
        'bybit': dict(retCode=0, retMsg='OK', result=dict(orderId='1', orderLinkId=w), retExtInfo={}, time=AT),
        'okx': dict(code='0', msg='', data=[dict(clOrdId=w, ordId='1', sCode='0', sMsg='', tag='', ts=str(AT))]),
        'kraken': dict(error=[], result=dict(descr=dict(order='buy 0.02 XBTUSDT @ market'), txid=['1'])),
        'coinbase': dict(success=True, success_response=dict(order_id='1', product_id='BTC-USD', side='BUY', client_order_id=w),
                         order_configuration={}),
        'kucoin': dict(code='200000', data=dict(orderId='1', clientOid=w)),
        'onetrading': order_of('onetrading', '0')['order'],
        'bitunix': dict(code=0, data=dict(orderId='1', clientId=w), msg='Success'),
    }[venue]


# where the venue answers what: (look-up, trades of an order)
WHERE = {'binance': ('GET https://api.binance.com/api/v3/order?', '/myTrades'), 'bybit': ('/v5/order/', '/v5/execution/list'),
         'okx': ('GET https://www.okx.com/api/v5/trade/order?', '/fills'),
         'kraken': ('Orders', '/QueryTrades'), 'coinbase': ('/orders/historical/batch', '/historical/fills'), 'kucoin': ('/client-order/',
        '/hf/fills'),
         'onetrading': ('/account/orders/client/', '/trades'), 'bitunix': ('/get_order_detail', '/get_history_trades')}


def shows(script: Script, venue: str, *found: dict, trades: bool = True):
    "From now on the venue shows these orders, and the one trade."
    look, traded = WHERE[venue]
    if venue == 'kraken': said = [('/OpenOrders', 200, wrapped(venue, 'open')), ('/ClosedOrders', 200, wrapped(venue, 'closed', *found))]
    elif venue == 'onetrading' and not found: said = [(look, 404, {'error': 'ORDER_NOT_FOUND'})]
    elif venue == 'binance' and not found: said = [(look, 400, wrapped(venue, 'order'))]
    else: said = [(look, 200, wrapped(venue, 'order', *found))]
    trades_said = wrapped(venue, 'trades', trade_of(venue)) if venue != 'kraken' else dict(error=[], result={'t1': trade_of('kraken')})
    script.says += [(traded, 200, trades_said), *said] if venue != 'onetrading' else [*said, (traded, 200, trades_said)]


REJECTION = {
    'binance': (400, {'code': -2010, 'msg': 'Account has insufficient balance for requested action.'}),
    'bybit': (200, {'retCode': 170131, 'retMsg': 'Insufficient balance.', 'result': {}, 'retExtInfo': {}, 'time': AT}),
    'okx': (200, {'code': '1', 'msg': 'All operations failed', 'data': [{'clOrdId': 'x', 'ordId': '', 'sCode': '51008',
        'sMsg': 'Order failed. Insufficient balance.', 'tag': ''}]}),
    'kraken': (200, {'error': ['EOrder:Insufficient funds']}),
    'coinbase': (200, {'success': False, 'error_response': {'error': 'INSUFFICIENT_FUND', 'message': 'Insufficient balance in source account',
        'preview_failure_reason': 'PREVIEW_INSUFFICIENT_FUND'}, 'order_configuration': {}}),
    'kucoin': (200, {'code': '200004', 'msg': 'Balance insufficient!'}),
    'onetrading': (400, {'error': 'MIN_SIZE_NOT_SATISFIED'}),
    'bitunix': (200, {'code': 20003, 'data': None, 'msg': 'Insufficient balance'}),
}
DUPLICATE = {
    'binance': (400, {'code': -2010, 'msg': 'Duplicate order sent.'}),
    'bybit': (200, {'retCode': 170141, 'retMsg': 'Duplicate clientOrderId.', 'result': {}, 'time': AT}),
    'okx': (200, {'code': '1', 'msg': '', 'data': [{'clOrdId': 'x', 'ordId': '', 'sCode': '51016', 'sMsg': 'Client order ID already exists.'}]}),
    'kraken': (200, {'error': ['EOrder:Duplicate client order id']}),
    'coinbase': (200, {'success': False, 'error_response': {'error': 'DUPLICATE_CLIENT_ORDER_ID', 'message': ''}, 'order_configuration': {}}),
    'kucoin': (200, {'code': '400100', 'msg': 'The clientOid is duplicate'}),
    'onetrading': (409, {'error': 'CLIENT_ID_TAKEN'}),
    'bitunix': (200, {'code': 30042, 'data': None, 'msg': 'Client ID duplicate'}),
}
