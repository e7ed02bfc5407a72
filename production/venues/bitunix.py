"""Bitunix futures (USDT-margined perpetuals), in the form of a ccxt exchange, so that it can be dropped for ccxt's own.

The recorded answers are those of the futures API (fapi.bitunix.com), so that is what is here; the spot API is another one. Symbols are ccxt's
for linear swaps: BTC/USDT:USDT. *Recorded*: the parser reads an answer of `data/exchange_fixtures/ccxt_static_excerpts`, which follows the
venue's documentation with round values. *Unverified*: written from the documentation alone (openapidoc.bitunix.com). Nothing here has met the venue.

| what | request | checked against |
|---|---|---|
| fetch_markets, fetch_ohlcv, fetch_ticker, fetch_order_book, fetch_funding_rate | public GET | recorded |
| parse_order, parse_trade, parse_position | | recorded |
| sign, codes of errors | | unverified |
| fetch_balance, create_order (its receipt), cancel_order | | unverified |
| envelopes of fetch_order, fetch_open_orders, fetch_my_trades, fetch_positions | | unverified |
| watch_ohlcv, watch_orders | websocket | unverified |

There is no request for the venue's time and no validity window, so an order that is not found stays in doubt until a person has looked.
"""
# ruff: noqa: B006 -- ccxt's own signatures
import hashlib

from ccxt.async_support.base.exchange import Exchange
from ccxt.async_support.base.ws.cache import ArrayCacheBySymbolById, ArrayCacheByTimestamp
from ccxt.base.decimal_to_precision import TICK_SIZE
from ccxt.base.errors import (
    ArgumentsRequired,
    AuthenticationError,
    BadRequest,
    BadSymbol,
    ExchangeError,
    ExchangeNotAvailable,
    InsufficientFunds,
    InvalidOrder,
    OrderNotFound,
    PermissionDenied,
    RateLimitExceeded,
)
from ccxt.base.precise import Precise
from ccxt.base.types import Entry

_BARS = {'1m': '1min', '3m': '3min', '5m': '5min', '15m': '15min', '30m': '30min', '1h': '60min', '2h': '2h', '4h': '4h', '6h': '6h', '8h': '8h',
         '12h': '12h', '1d': '1day', '3d': '3day', '1w': '1week', '1M': '1month'}   # as the stream calls them
_STATUS = {'INIT': 'open', 'NEW': 'open', 'PART_FILLED': 'open', 'FILLED': 'closed', 'CANCELED': 'canceled', 'PART_FILLED_CANCELED': 'canceled',
           'EXPIRED': 'expired'}


def _get(path: str, api: str = 'private') -> Entry: return Entry(path, [api], 'GET', {'cost': 1})
def _post(path: str) -> Entry: return Entry(path, ['private'], 'POST', {'cost': 1})


class ImplicitAPI:
    publicGetMarketTradingPairs = _get('market/trading_pairs', 'public')
    publicGetMarketKline = _get('market/kline', 'public')
    publicGetMarketTickers = _get('market/tickers', 'public')
    publicGetMarketDepth = _get('market/depth', 'public')
    publicGetMarketFundingRate = _get('market/funding_rate', 'public')
    privateGetAccount = _get('account')
    privateGetPositionGetPendingPositions = _get('position/get_pending_positions')
    privateGetTradeGetOrderDetail = _get('trade/get_order_detail')
    privateGetTradeGetPendingOrders = _get('trade/get_pending_orders')
    privateGetTradeGetHistoryTrades = _get('trade/get_history_trades')
    privatePostTradePlaceOrder = _post('trade/place_order')
    privatePostTradeCancelOrders = _post('trade/cancel_orders')


class bitunix(Exchange, ImplicitAPI):

    def describe(self):
        yes = ('swap', 'fetchMarkets', 'fetchOHLCV', 'fetchTicker', 'fetchOrderBook', 'fetchFundingRate', 'fetchBalance', 'fetchPositions',
               'createOrder',
               'cancelOrder', 'fetchOrder', 'fetchOpenOrders', 'fetchMyTrades', 'fetchOrderTrades', 'watchOHLCV', 'watchOrders')
        return self.deep_extend(super().describe(), {
            'id': 'bitunix', 'name': 'Bitunix', 'countries': ['SG'], 'version': 'v1', 'rateLimit': 100, 'pro': True, 'certified': False,
            'has': {'CORS': None, 'spot': False, 'margin': False, 'future': False, 'option': False, 'ws': True, 'fetchTime': False,
                    'fetchCurrencies': False,
                    **dict.fromkeys(yes, True)},
            'urls': {'api': {'public': 'https://fapi.bitunix.com', 'private': 'https://fapi.bitunix.com',
                             'ws': {'public': 'wss://fapi.bitunix.com/public/', 'private': 'wss://fapi.bitunix.com/private/'}},
                     'www': 'https://www.bitunix.com', 'doc': ['https://openapidoc.bitunix.com']},
            'timeframes': {name: name for name in _BARS},
            'requiredCredentials': {'apiKey': True, 'secret': True},
            'precisionMode': TICK_SIZE,
            'fees': {'trading': {'tierBased': True, 'percentage': True, 'taker': self.parse_number('0.0006'), 'maker': self.parse_number('0.0002')}},
            'streaming': {'ping': self.ping, 'keepAlive': 15_000},
            'options': {'defaultType': 'swap', 'marginCoin': 'USDT', 'OHLCVLimit': 1000, 'ordersLimit': 1000},
            'exceptions': {'broad': {}, 'exact': {
                '10001': ExchangeNotAvailable, '10002': BadRequest, '10003': AuthenticationError, '10004': PermissionDenied,
                '10005': RateLimitExceeded,
                '10006': RateLimitExceeded, '10007': AuthenticationError, '10008': BadRequest, '403': PermissionDenied,
                '20001': BadSymbol, '20002': InvalidOrder, '20003': InsufficientFunds, '20007': OrderNotFound, '20008': InsufficientFunds,
                '20011': PermissionDenied, '20012': PermissionDenied, '20015': BadSymbol, '30001': InvalidOrder, '30002': InvalidOrder,
                '30003': InvalidOrder,
                '30004': InvalidOrder, '30011': InvalidOrder, '30013': InvalidOrder, '30014': InvalidOrder, '30015': InvalidOrder,
                '30016': InvalidOrder,
                '30017': InvalidOrder, '30018': InvalidOrder, '30019': InvalidOrder, '30039': InvalidOrder, '30040': PermissionDenied,
                '30042': InvalidOrder}},
        })

    # the wire

    def sign(self, path, api=('public',), method='GET', params={}):
        "Unverified. Signed is sha256(sha256(nonce + time + key + query + body) + secret), the query as its keys and values in order, without marks."
        access, query, body, headers = api[0], self.keysort(params), None, {'Content-Type': 'application/json', 'language': 'en-US'}
        url = f'{self.urls["api"][access]}/api/{self.version}/futures/{path}'
        if method == 'GET' and query: url += '?' + self.urlencode(query)
        if method == 'POST': body = self.json(query)
        if access == 'private':
            self.check_required_credentials()
            plain = ''.join(f'{key}{value}' for key, value in query.items()) if method == 'GET' else ''
            headers |= self._signed(str(self.milliseconds()), plain + (body or ''))
        return {'url': url, 'method': method, 'body': body, 'headers': headers}

    def _signed(self, timestamp: str, what: str) -> dict:
        nonce = self.uuid().replace('-', '')
        digest = hashlib.sha256(f'{nonce}{timestamp}{self.apiKey}{what}'.encode()).hexdigest()
        return {'api-key': self.apiKey, 'nonce': nonce, 'timestamp': timestamp, 'sign': hashlib.sha256(f'{digest}{self.secret}'.encode()).hexdigest()}

    def handle_errors(self, code, reason, url, method, headers, body, response, requestHeaders, requestBody):
        "Unverified: HTTP 200 with another code than 0."
        if response is None: return None
        said = self.safe_string(response, 'code')
        if said == '0': return None
        self.throw_exactly_matched_exception(self.exceptions['exact'], said, f'{self.id} {body}')
        raise ExchangeError(f'{self.id} {body}')

    # the market

    async def fetch_markets(self, params={}):
        return self.parse_markets((await self.publicGetMarketTradingPairs(params))['data'])

    def parse_market(self, market):
        base, quote = (self.safe_currency_code(self.safe_string(market, side)) for side in ('base', 'quote'))
        step, tick = (self.parse_number(self.parse_precision(self.safe_string(market, name))) for name in ('basePrecision', 'quotePrecision'))
        return self.safe_market_structure({
            'id': market['symbol'], 'symbol': f'{base}/{quote}:{quote}', 'base': base, 'quote': quote, 'settle': quote,
            'baseId': market['base'], 'quoteId': market['quote'], 'settleId': market['quote'],
            'type': 'swap', 'spot': False, 'margin': False, 'swap': True, 'future': False, 'option': False, 'contract': True, 'linear': True,
            'inverse': False,
            'active': market.get('symbolStatus') == 'OPEN' and market.get('isApiSupported', True), 'contractSize': self.parse_number('1'),
            'taker': self.fees['trading']['taker'], 'maker': self.fees['trading']['maker'], 'precision': {'amount': step, 'price': tick},
            'limits': {'amount': {'min': self.safe_number(market, 'minTradeVolume'), 'max': None}, 'price': {'min': None, 'max': None},
                       'cost': {'min': None, 'max': None},
                       'leverage': {'min': self.safe_number(market, 'minLeverage'), 'max': self.safe_number(market, 'maxLeverage')}},
            'info': market})

    async def fetch_ohlcv(self, symbol, timeframe='1m', since=None, limit=None, params={}):
        "The venue answers the newest first, 200 at most; an end is asked for too, so that a page starts at `since`."
        await self.load_markets()
        market, limit = self.market(symbol), min(limit or 200, 200)
        request = {'symbol': market['id'], 'interval': self.timeframes[timeframe], 'limit': limit}
        if since is not None: request |= {'startTime': since, 'endTime': since + limit * self.parse_timeframe(timeframe) * 1000 - 1}
        return self.parse_ohlcvs((await self.publicGetMarketKline(self.extend(request, params)))['data'], market, timeframe, since, limit)

    def parse_ohlcv(self, ohlcv, market=None):
        return [self.safe_integer(ohlcv, 'time')] + [self.safe_number(ohlcv, name) for name in ('open', 'high', 'low', 'close', 'baseVol')]

    async def fetch_ticker(self, symbol, params={}):
        await self.load_markets()
        market = self.market(symbol)
        found = await self.publicGetMarketTickers(self.extend({'symbols': market['id']}, params))
        return self.parse_ticker(self.safe_dict(found['data'], 0, {}), market)

    def parse_ticker(self, ticker, market=None):
        market, time = self.safe_market(self.safe_string(ticker, 'symbol'), market), self.safe_integer(ticker, 'time')
        last = self.safe_string(ticker, 'lastPrice')
        numbers = {ours: self.safe_string(ticker, theirs) for ours, theirs in
                   dict(open='open', high='high', low='low', baseVolume='baseVol', quoteVolume='quoteVol', markPrice='markPrice').items()}
        return self.safe_ticker({'symbol': market['symbol'], 'timestamp': time, 'datetime': self.iso8601(time), 'last': last, 'close': last,
                                 **numbers, 'info': ticker}, market)

    async def fetch_order_book(self, symbol, limit=None, params={}):
        await self.load_markets()
        request = {'symbol': self.market(symbol)['id']}
        if limit is not None: request['limit'] = limit
        found = await self.publicGetMarketDepth(self.extend(request, params))
        return self.parse_order_book(found['data'], symbol)

    async def fetch_funding_rate(self, symbol, params={}):
        "Recorded. Whether the rate is a fraction, as documented, or per cent is disputed."
        await self.load_markets()
        found = (await self.publicGetMarketFundingRate(self.extend({'symbol': self.market(symbol)['id']}, params)))['data']
        at = self.safe_integer(found, 'nextFundingTime')
        return {'info': found, 'symbol': symbol, 'fundingTimestamp': at, 'fundingDatetime': self.iso8601(at),
                **{name: self.safe_number(found, name) for name in ('markPrice', 'indexPrice', 'fundingRate')},
                'interval': f'{self.safe_string(found, "fundingInterval")}h'}

    # the account

    async def fetch_balance(self, params={}):
        "Unverified. What is frozen by orders and by positions is in use."
        found = await self.privateGetAccount(self.extend({'marginCoin': self.options['marginCoin']}, params))
        result = {'info': found, 'timestamp': None, 'datetime': None}
        for row in found['data'] if isinstance(found['data'], list) else [found['data']]:
            used = self.safe_string(row, 'frozen', '0'), self.safe_string(row, 'margin', '0')
            held = {'free': self.safe_string(row, 'available'), 'used': Precise.string_add(*used)}
            result[self.safe_currency_code(row['marginCoin'])] = self.account() | held
        return self.safe_balance(result)

    async def fetch_positions(self, symbols=None, params={}):
        "The envelope is unverified; a position is as recorded."
        await self.load_markets()
        found = (await self.privateGetPositionGetPendingPositions(params))['data']
        return self.filter_by_array_positions([self.parse_position(row) for row in found], 'symbol', self.market_symbols(symbols))

    def parse_position(self, position, market=None):
        market, time = self.safe_market(self.safe_string(position, 'symbol'), market, None, 'swap'), self.safe_integer(position, 'ctime')
        side = {'LONG': 'long', 'BUY': 'long', 'SHORT': 'short', 'SELL': 'short'}.get(self.safe_string(position, 'side'))
        names = dict(contracts='qty', entryPrice='avgOpenPrice', notional='entryValue', leverage='leverage', collateral='margin',
                     initialMargin='margin', unrealizedPnl='unrealizedPNL', realizedPnl='realizedPNL', liquidationPrice='liqPrice',
                     marginRatio='marginRate')
        return self.safe_position({
            'info': position, 'id': self.safe_string(position, 'positionId'), 'symbol': market['symbol'], 'side': side,
            'timestamp': time, 'datetime': self.iso8601(time), 'lastUpdateTimestamp': self.safe_integer(position, 'mtime'),
            'contractSize': self.parse_number('1'), **{ours: self.safe_number(position, theirs) for ours, theirs in names.items()},
            'marginMode': {'ISOLATION': 'isolated', 'CROSS': 'cross'}.get(self.safe_string(position, 'marginMode')),
            'hedged': self.safe_string(position, 'positionMode') == 'HEDGE'})

    # orders

    async def create_order(self, symbol, type, side, amount, price=None, params={}):
        "Unverified. Market and limit orders of an account in one-way mode; the answer is a receipt: its number and our client id."
        await self.load_markets()
        market, kind = self.market(symbol), type.upper()
        if kind not in ('MARKET', 'LIMIT'): raise InvalidOrder(f'{self.id} takes market and limit orders, not {type}')
        client_id, reduce = self.safe_string_2(params, 'clientOrderId', 'clientId'), self.safe_bool(params, 'reduceOnly', False)
        post, params = self.handle_post_only(kind == 'MARKET', False, self.omit(params, ['clientOrderId', 'clientId', 'reduceOnly']))
        request = {'symbol': market['id'], 'side': side.upper(), 'orderType': kind, 'qty': self.amount_to_precision(symbol, amount),
                   'reduceOnly': reduce}
        if client_id is not None: request['clientId'] = client_id
        if kind == 'LIMIT':
            effect = 'POST_ONLY' if post else self.safe_string(params, 'timeInForce', 'GTC')
            request |= {'price': self.price_to_precision(symbol, price), 'effect': effect}
        found = await self.privatePostTradePlaceOrder(self.extend(request, self.omit(params, 'timeInForce')))
        return self.parse_order(self.safe_dict(found, 'data', {}), market)

    async def cancel_order(self, id, symbol=None, params={}):
        "Unverified."
        if symbol is None: raise ArgumentsRequired(f'{self.id} cancels an order of a symbol')
        await self.load_markets()
        found = await self.privatePostTradeCancelOrders({'symbol': self.market(symbol)['id'], 'orderList': [self._which(id, params)]})
        for failed in self.safe_list(self.safe_dict(found, 'data', {}), 'failureList', []):
            self.throw_exactly_matched_exception(self.exceptions['exact'], self.safe_string(failed, 'errorCode'), f'{self.id} {self.json(failed)}')
            raise ExchangeError(f'{self.id} {self.json(failed)}')
        return self.safe_order({'info': found, 'id': id, 'clientOrderId': self.safe_string(params, 'clientOrderId')})

    def _which(self, id, params: dict) -> dict:
        client_id = self.safe_string_2(params, 'clientOrderId', 'clientId')
        return {'clientId': client_id} if client_id is not None else {'orderId': id}

    async def fetch_order(self, id, symbol=None, params={}):
        "By the venue's number, or by `clientOrderId`. The envelope is unverified; an order is as recorded."
        await self.load_markets()
        rest = self.omit(params, ['clientOrderId', 'clientId'])
        found = await self.privateGetTradeGetOrderDetail(self.extend(self._which(id, params), rest))
        if not found['data']: raise OrderNotFound(f'{self.id} has no order {self._which(id, params)}')
        return self.parse_order(found['data'])

    async def fetch_open_orders(self, symbol=None, since=None, limit=None, params={}):
        "The envelope is unverified; an order is as recorded."
        return await self._listed(self.privateGetTradeGetPendingOrders, 'orderList', self.parse_orders, symbol, since, limit, params)

    async def fetch_my_trades(self, symbol=None, since=None, limit=None, params={}):
        "The envelope is unverified; a trade is as recorded."
        return await self._listed(self.privateGetTradeGetHistoryTrades, 'tradeList', self.parse_trades, symbol, since, limit, params)

    async def _listed(self, ask, name, parse, symbol, since, limit, params):
        await self.load_markets()
        market, request = self.market(symbol) if symbol else None, {'limit': min(limit or 100, 100)}
        if market: request['symbol'] = market['id']
        if since is not None: request['startTime'] = since
        if 'until' in params: request['endTime'] = params['until']
        found = await ask(self.extend(request, self.omit(params, 'until')))
        return parse(found['data'][name], market, since, limit)

    async def fetch_order_trades(self, id, symbol=None, since=None, limit=None, params={}):
        return [trade for trade in await self.fetch_my_trades(symbol, since, limit, self.extend({'orderId': id}, params)) if trade['order'] == id]

    def parse_order(self, order, market=None):
        "As recorded for REST; the stream has other names for the status and what is filled, and writes times as text (unverified)."
        market = self.safe_market(self.safe_string(order, 'symbol'), market, None, 'swap')
        opened, changed = (self._moment(order.get(name)) for name in ('ctime', 'mtime'))
        effect, fee = self.safe_string(order, 'effect'), self.safe_string(order, 'fee')
        return self.safe_order({
            'info': order, 'id': self.safe_string(order, 'orderId'), 'clientOrderId': self.safe_string(order, 'clientId'),
            'symbol': market['symbol'], 'timestamp': opened, 'datetime': self.iso8601(opened), 'lastUpdateTimestamp': changed,
            'type': self.safe_string_lower_2(order, 'orderType', 'type'), 'side': self.safe_string_lower(order, 'side'),
            'timeInForce': 'PO' if effect == 'POST_ONLY' else effect, 'postOnly': effect == 'POST_ONLY',
            'reduceOnly': self.safe_bool(order, 'reduceOnly'),
            'price': self.omit_zero(self.safe_string(order, 'price')), 'average': self.omit_zero(self.safe_string(order, 'averagePrice')),
            'amount': self.safe_string(order, 'qty'), 'filled': self.safe_string_2(order, 'tradeQty', 'dealAmount'),
            'status': self._status(self.safe_string_2(order, 'status', 'orderStatus')),
            'fee': None if fee is None else {'cost': fee, 'currency': market['quote']}}, market)

    def _moment(self, said: object) -> int | None:
        if said is None: return None
        return int(said) if str(said).isdigit() else self.parse8601(said)

    @staticmethod
    def _status(said: str | None) -> str | None: return _STATUS.get(said, said)

    def parse_trade(self, trade, market=None):
        market, time = self.safe_market(self.safe_string(trade, 'symbol'), market, None, 'swap'), self.safe_integer(trade, 'ctime')
        return self.safe_trade({
            'info': trade, 'id': self.safe_string(trade, 'tradeId'), 'order': self.safe_string(trade, 'orderId'), 'symbol': market['symbol'],
            'timestamp': time, 'datetime': self.iso8601(time), 'takerOrMaker': self.safe_string_lower(trade, 'roleType'),
            'type': self.safe_string_lower_2(trade, 'orderType', 'type'), 'side': self.safe_string_lower(trade, 'side'),
            'price': self.safe_string(trade, 'price'), 'amount': self.safe_string(trade, 'qty'),
            'fee': {'cost': self.safe_string(trade, 'fee'), 'currency': market['quote']}}, market)

    # streams

    def ping(self, client): return {'op': 'ping', 'ping': self.seconds()}

    async def watch_ohlcv(self, symbol, timeframe='1m', since=None, limit=None, params={}):
        "Unverified. The stream names no open time: the bar is the one that the message's time falls into. A hint, to be read over REST."
        await self.load_markets()
        market, channel = self.market(symbol), f'market_kline_{_BARS[timeframe]}'
        request = {'op': 'subscribe', 'args': [{'symbol': market['id'], 'ch': channel}]}
        name = f'{channel}:{market["id"]}'
        bars = await self.watch(self.urls['api']['ws']['public'], name, self.extend(request, params), name)
        return self.filter_by_since_limit(bars, since, bars.getLimit(symbol, limit) if self.newUpdates else limit, 0, True)

    async def watch_orders(self, symbol=None, since=None, limit=None, params={}):
        "Unverified."
        await self.load_markets()
        await self._log_in()
        request = self.extend({'op': 'subscribe', 'args': [{'ch': 'order'}]}, params)
        orders = await self.watch(self.urls['api']['ws']['private'], 'order', request, 'order')
        return self.filter_by_symbol_since_limit(orders, symbol, since, orders.getLimit(symbol, limit) if self.newUpdates else limit, True)

    async def _log_in(self):
        self.check_required_credentials()
        url, name = self.urls['api']['ws']['private'], 'authenticated'
        client = self.client(url)
        future = client.reusableFuture(name)
        if name not in client.subscriptions:
            at = self.seconds()
            signed = self._signed(str(at), '')
            key = {'apiKey': self.apiKey, 'timestamp': at, 'nonce': signed['nonce'], 'sign': signed['sign']}
            self.watch(url, name, {'op': 'login', 'args': [key]}, name)
        return await future

    def handle_message(self, client, message):
        said, channel = self.safe_string(message, 'op'), self.safe_string(message, 'ch') or ''
        if said == 'ping' or said == 'pong': client.lastPong = self.milliseconds()
        elif said == 'login': self._logged_in(client, message)
        elif channel.startswith('market_kline_'): self._bar(client, channel, message)
        elif channel == 'order': self._order(client, message)

    def _logged_in(self, client, message):
        if self.safe_bool(self.safe_dict(message, 'data', {}), 'result', True) and self.safe_string(message, 'code', '0') == '0':
            return client.resolve(message, 'authenticated')
        client.subscriptions.pop('authenticated', None)
        client.reject(AuthenticationError(f'{self.id} {self.json(message)}'), 'authenticated')

    def _bar(self, client, channel, message):
        timeframe = next(name for name, theirs in _BARS.items() if channel == f'market_kline_{theirs}')
        symbol, length, bar = self.safe_symbol(self.safe_string(message, 'symbol'), None, None,
                                               'swap'), self.parse_timeframe(timeframe) * 1000, message['data']
        stored = self.ohlcvs.setdefault(symbol, {}).setdefault(timeframe, ArrayCacheByTimestamp(self.options['OHLCVLimit']))
        stored.append([self.safe_integer(message, 'ts') // length * length] + [self.safe_number(bar, name) for name in 'ohlcb'])
        client.resolve(stored, f'{channel}:{message["symbol"]}')

    def _order(self, client, message):
        if self.orders is None: self.orders = ArrayCacheBySymbolById(self.options['ordersLimit'])
        self.orders.append(self.parse_order(message['data']))
        client.resolve(self.orders, 'order')
