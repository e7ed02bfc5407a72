"""Binance's spot words: requests in, answers out, with its error codes. No HTTP here; REST and the websocket API share it.

https://developers.binance.com/docs/binance-spot-api-docs
"""
import hmac
import json
import re
from collections.abc import Callable, Iterable
from decimal import Decimal

import numpy as np

from production.local_exchange.exchange import LocalExchange
from trading_lib.core.errors import Rejected
from trading_lib.execution.orders import Fill, Order, OrderState

LEVELS = 20                     # of the made-up order book
DEPTH = Decimal(1000)           # quote asset on each of them
KINDS = {'MARKET': 'market', 'LIMIT': 'limit', 'STOP_LOSS': 'stop'}
TYPES = {kind: name for name, kind in KINDS.items()}
REFUSALS = {
    'MARKET_CLOSED': (-1013, 'Market is closed.'),
    'PRICE_FILTER': (-1013, 'Filter failure: PRICE_FILTER'),
    'LOT_SIZE': (-1013, 'Filter failure: LOT_SIZE'),
    'NOTIONAL': (-1013, 'Filter failure: NOTIONAL'),
    'DUPLICATE': (-2010, 'Duplicate order sent.'),
    'WOULD_TRIGGER': (-2010, 'Stop price would trigger immediately.'),
    'INSUFFICIENT_BALANCE': (-2010, 'Account has insufficient balance for requested action.'),
}


class Refusal(Rejected):
    "An error answer: HTTP status, Binance's code, Binance's text."

    def __init__(self, code: int, text: str, status: int = 400):
        super().__init__(f'{code} {text}')
        self.code, self.text, self.status = code, text, status

    @property
    def body(self) -> dict: return {'code': self.code, 'msg': self.text}


def amount(value: Decimal) -> str:
    "A number as Binance writes it: eight decimals, and more only where those would round."
    short = f'{value:.8f}'
    return short if Decimal(short) == value else f'{value:f}'


def plain(value: float) -> str:
    "A float of the bars, exactly, without an exponent."
    return np.format_float_positional(value, trim='0')


# Parameters

def missing(name: str) -> Refusal:
    return Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def whole(given: dict, name: str, default: int | None = None) -> int | None:
    "An integer parameter."
    if not given.get(name):
        return default
    try: return int(given[name])
    except ValueError: raise Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.") from None


def number(given: dict, name: str) -> Decimal:
    "A mandatory decimal parameter, above zero."
    legal = r'^([0-9]{1,20})(\.[0-9]{1,20})?$'
    if not given.get(name): raise missing(name)
    if not re.match(legal, given[name]): raise Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
    value = Decimal(given[name])
    if not value: raise Refusal(-1013, f'Invalid {name}.')
    if -value.normalize().as_tuple().exponent > 8: raise Refusal(-1111, f"Parameter '{name}' has too much precision.")
    return value


def limited(rows: list, given: dict, default: int = 500) -> list:
    "The newest `limit` rows, or the oldest where the question starts somewhere."
    limit = min(whole(given, 'limit', default), 1000)
    return rows[:limit] if {'fromId', 'startTime', 'orderId'} & given.keys() else rows[-limit:]


class Binance:
    "The protocol of one account at one `LocalExchange`."

    def __init__(self, exchange: LocalExchange):
        self.exchange, self.venue = exchange, exchange.venue
        self.id_of = {symbol: venue_id for venue_id, symbol in exchange.ids.items()}
        self._rows: dict[str, dict[int, str]] = {symbol: {} for symbol in exchange.tapes}

    # Who asks

    def check(self, given: dict, payload: str, key: str | None, secured: bool = True):
        "Refuse a signed request as Binance does: key, timestamp, window, signature."
        if not secured: return
        if not key: raise Refusal(-2014, 'API-key format invalid.', 401)
        if key not in self.exchange.keys: raise Refusal(-2015, 'Invalid API-key, IP, or permissions for action.', 401)
        sent, window, now = whole(given, 'timestamp'), whole(given, 'recvWindow', 5000), self.exchange.now()
        if sent is None: raise missing('timestamp')
        if window > 60_000: raise Refusal(-1131, "'recvWindow' must be less than 60000.")
        if sent >= now + 1000: raise Refusal(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now - sent > window: raise Refusal(-1021, 'Timestamp for this request is outside of the recvWindow.')
        if not given.get('signature'): raise missing('signature')
        signature = hmac.new(self.exchange.keys[key].encode(), payload.encode(), 'sha256').hexdigest()
        if not hmac.compare_digest(signature, given['signature']): raise Refusal(-1022, 'Signature for this request is not valid.')

    def symbol(self, given: dict) -> str:
        "The market asked about."
        if not given.get('symbol'): raise missing('symbol')
        if given['symbol'] not in self.exchange.ids: raise Refusal(-1121, 'Invalid symbol.')
        return self.exchange.ids[given['symbol']]

    # What anyone may ask

    def ping(self, given: dict) -> dict: return {}

    def time(self, given: dict) -> dict: return {'serverTime': self.exchange.now()}

    def exchange_info(self, given: dict) -> dict:
        symbols = [self.symbol(given)] if 'symbol' in given else list(self.exchange.rules)
        return {'timezone': 'UTC', 'serverTime': self.exchange.now(), 'exchangeFilters': [], 'rateLimits': [
                    {'rateLimitType': 'REQUEST_WEIGHT', 'interval': 'MINUTE', 'intervalNum': 1, 'limit': 6000},
                    {'rateLimitType': 'ORDERS', 'interval': 'SECOND', 'intervalNum': 10, 'limit': 100},
                    {'rateLimitType': 'ORDERS', 'interval': 'DAY', 'intervalNum': 1, 'limit': 200_000}],
                'symbols': [self._market(symbol) for symbol in symbols]}

    def _market(self, symbol: str) -> dict:
        rules = self.exchange.rules[symbol]
        lot = {'minQty': amount(rules.min_quantity), 'maxQty': '9000000.00000000', 'stepSize': amount(rules.step)}
        return {'symbol': self.id_of[symbol], 'status': 'TRADING' if symbol in self.venue.prices else 'BREAK',
                'baseAsset': rules.base, 'baseAssetPrecision': 8, 'quoteAsset': rules.quote, 'quotePrecision': 8, 'quoteAssetPrecision': 8,
                'baseCommissionPrecision': 8, 'quoteCommissionPrecision': 8, 'orderTypes': list(KINDS), 'icebergAllowed': False,
                'ocoAllowed': False, 'otoAllowed': False, 'quoteOrderQtyMarketAllowed': False, 'allowTrailingStop': False,
                'cancelReplaceAllowed': False, 'isSpotTradingAllowed': True, 'isMarginTradingAllowed': False, 'permissions': [],
                'permissionSets': [['SPOT']], 'defaultSelfTradePreventionMode': 'NONE', 'allowedSelfTradePreventionModes': ['NONE'],
                'filters': [
                    {'filterType': 'PRICE_FILTER', 'minPrice': amount(rules.tick), 'maxPrice': '10000000.00000000', 'tickSize': amount(rules.tick)},
                    {'filterType': 'LOT_SIZE', **lot}, {'filterType': 'MARKET_LOT_SIZE', **lot},
                    {'filterType': 'NOTIONAL', 'minNotional': amount(rules.min_notional), 'applyMinToMarket': True,
                     'maxNotional': '9000000.00000000', 'applyMaxToMarket': False, 'avgPriceMins': 0},
                    {'filterType': 'MAX_NUM_ORDERS', 'maxNumOrders': 200}]}

    def klines(self, given: dict) -> str:
        "JSON text, because most of what a running bot asks for is this."
        symbol = self.symbol(given)
        if not given.get('interval'): raise missing('interval')
        if given['interval'] != self.exchange.timeframe: raise Refusal(-1120, 'Invalid interval.')
        opens = self.exchange.tapes[symbol].opens
        end, forming = self.exchange.visible(symbol)
        if until := whole(given, 'endTime'): end = min(end, int(np.searchsorted(opens, until, side='right')))
        limit = min(whole(given, 'limit', 500), 1000)
        since = whole(given, 'startTime')
        begin = max(end - limit, 0) if since is None else int(np.searchsorted(opens, since))
        rows = range(begin, min(end, begin + limit))
        open_row = self.exchange.visible(symbol)[0] - 1 if forming else -1
        return '[' + ','.join(self._kline(symbol, row, row == open_row) for row in rows) + ']'

    def _kline(self, symbol: str, row: int, forming: bool) -> str:
        "One bar. Of the one that is still forming only its open is known."
        if not forming and row in self._rows[symbol]: return self._rows[symbol][row]
        tape = self.exchange.tapes[symbol]
        at, (o, h, l, c, v) = int(tape.opens[row]), tape.values[row].tolist()
        if forming: h = l = c = o; v = 0.
        text = json.dumps([at, *map(plain, (o, h, l, c, v)), at + self.exchange.length - 1, plain(c * v), int(v > 0),
                           plain(v / 2), plain(c * v / 2), '0'], separators=(',', ':'))
        if not forming: self._rows[symbol][row] = text
        return text

    def _price(self, symbol: str) -> Decimal:
        "The last price; after the last bar its close."
        if symbol in self.venue.prices: return self.venue.prices[symbol]
        tape = self.exchange.tapes[symbol]
        return Decimal(repr(float(tape.values[max(tape.until(self.exchange.times[self.exchange.current]), 1) - 1, 3])))

    def _quotes(self, symbol: str, levels: int) -> tuple[list, list]:
        "A made-up book: the same money on each tick around the price."
        rules, price = self.exchange.rules[symbol], self._price(symbol)
        tick, step = rules.tick or price / 10_000, rules.step or Decimal('0.00001')
        first = price // tick * tick
        sized = lambda at: [amount(at), amount(max(DEPTH / at // step * step, step))]
        return ([sized(at) for k in range(levels) if (at := first - k * tick) > 0], [sized(first + (k + 1) * tick) for k in range(levels)])

    def depth(self, given: dict) -> dict:
        bids, asks = self._quotes(self.symbol(given), min(whole(given, 'limit', 100), LEVELS))
        return {'lastUpdateId': self.exchange.current + 1, 'bids': bids, 'asks': asks}

    def _each(self, given: dict, answer: Callable[[str], dict]) -> dict | list:
        "One answer for one symbol, a list where none is named."
        return answer(self.symbol(given)) if 'symbol' in given else [answer(symbol) for symbol in self.exchange.tapes]

    def ticker_price(self, given: dict) -> dict | list:
        return self._each(given, lambda symbol: {'symbol': self.id_of[symbol], 'price': amount(self._price(symbol))})

    def book_ticker(self, given: dict) -> dict | list:
        def answer(symbol):
            ((bid, bid_size),), ((ask, ask_size),) = self._quotes(symbol, 1)
            return {'symbol': self.id_of[symbol], 'bidPrice': bid, 'bidQty': bid_size, 'askPrice': ask, 'askQty': ask_size}
        return self._each(given, answer)

    def average_price(self, given: dict) -> dict:
        return {'mins': 5, 'price': amount(self._price(self.symbol(given))), 'closeTime': self.exchange.now()}

    def ticker_day(self, given: dict) -> dict | list:
        def answer(symbol):
            now, tape, price = self.exchange.now(), self.exchange.tapes[symbol], self._price(symbol)
            end = tape.until(self.exchange.times[self.exchange.current])
            begin = min(int(np.searchsorted(tape.opens, now - 86_400_000)), end - 1)
            day = tape.values[max(begin, 0):end]
            if not len(day): day = np.array([[float(price)] * 4 + [0.]])
            first, volume, money = float(day[0, 0]), float(day[:, 4].sum()), float((day[:, 3] * day[:, 4]).sum())
            change = float(price) - first
            ((bid, bid_size),), ((ask, ask_size),) = self._quotes(symbol, 1)
            return {'symbol': self.id_of[symbol], 'priceChange': plain(change), 'priceChangePercent': f'{100 * change / first:.3f}',
                    'weightedAvgPrice': plain(money / volume if volume else first), 'prevClosePrice': plain(first), 'lastPrice': amount(price),
                    'lastQty': '0.00000000', 'bidPrice': bid, 'bidQty': bid_size, 'askPrice': ask, 'askQty': ask_size, 'openPrice': plain(first),
                    'highPrice': plain(float(day[:, 1].max())), 'lowPrice': plain(float(day[:, 2].min())), 'volume': plain(volume),
                    'quoteVolume': plain(money), 'openTime': now - 86_400_000, 'closeTime': now, 'firstId': 0, 'lastId': len(day) - 1, 'count': len(day)}
        return self._each(given, answer)

    # What only the account's owner may ask

    def new_order(self, given: dict) -> dict:
        order = self._order(given)
        state = self.exchange.place(order)
        if state.status == 'REJECTED': raise Refusal(*REFUSALS[state.reason])
        kind = given.get('newOrderRespType') or ('ACK' if order.kind == 'stop' else 'FULL')
        answer = {'symbol': given['symbol'], 'orderId': state.id, 'orderListId': -1, 'clientOrderId': order.client_id, 'transactTime': state.opened}
        if kind in ('RESULT', 'FULL'): answer |= self._figures(state) | {'workingTime': state.opened, 'selfTradePreventionMode': 'NONE'}
        if kind == 'FULL':
            answer['fills'] = [{'price': amount(fill.price), 'qty': amount(fill.quantity), 'commission': amount(fill.fee),
                                'commissionAsset': fill.fee_asset, 'tradeId': fill.trade_id} for fill in state.fills]
        return answer

    def test_order(self, given: dict) -> dict:
        if reason := self.venue.refusal(self._order(given)): raise Refusal(*REFUSALS[reason])
        return {}

    def _order(self, given: dict) -> Order:
        "The order that the parameters describe."
        symbol, side, kind = self.symbol(given), given.get('side', ''), given.get('type', '')
        for name in ('side', 'type'):
            if not given.get(name): raise missing(name)
        if side not in ('BUY', 'SELL'): raise Refusal(-1117, 'Invalid side.')
        if kind not in KINDS: raise Refusal(-1116, 'Invalid orderType.')
        if given.get('quoteOrderQty'): raise Refusal(-2010, 'Quote order qty market orders are not support for this symbol.')
        wanted = {'MARKET': (), 'LIMIT': ('timeInForce', 'price'), 'STOP_LOSS': ('stopPrice',)}[kind]
        for name in wanted:
            if not given.get(name): raise missing(name)
        for name in ('timeInForce', 'price', 'stopPrice'):
            if given.get(name) and name not in wanted: raise Refusal(-1106, f"Parameter '{name}' sent when not required.")
        if kind == 'LIMIT' and given['timeInForce'] != 'GTC': raise Refusal(-1115, 'Invalid timeInForce.')
        return Order(self._client_id(given, 'newClientOrderId'), symbol, side.lower(), KINDS[kind], number(given, 'quantity'),
                     number(given, 'price') if kind == 'LIMIT' else None, number(given, 'stopPrice') if kind == 'STOP_LOSS' else None)

    def _client_id(self, given: dict, name: str) -> str:
        "The id the caller gave, or one of ours."
        legal = '^[a-zA-Z0-9-_]{1,36}$'
        client_id = given.get(name) or f'venue-{len(self.venue.orders) + 1}-{len(self.exchange.cancels)}'
        if not re.match(legal, client_id): raise Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
        return client_id

    def _find(self, given: dict, code: int, text: str) -> OrderState:
        "The order that `orderId` or `origClientOrderId` names."
        symbol = self.symbol(given)
        if not given.get('orderId') and not given.get('origClientOrderId'):
            raise Refusal(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
        state = self.venue.orders.get(whole(given, 'orderId')) if given.get('orderId') else self.venue.find(given['origClientOrderId'])
        if state is None or state.order.symbol != symbol: raise Refusal(code, text)
        return state

    def order(self, given: dict) -> dict: return self._row(self._find(given, -2013, 'Order does not exist.'))

    def cancel_order(self, given: dict) -> dict:
        state = self._find(given, -2011, 'Unknown order sent.')
        return self._canceled(state, self._client_id(given, 'newClientOrderId'))

    def cancel_open_orders(self, given: dict) -> list:
        resting = list(self.venue.resting[self.symbol(given)])
        if not resting: raise Refusal(-2011, 'Unknown order sent.')
        return [self._canceled(self.venue.orders[id], self._client_id({}, '')) for id in resting]

    def _canceled(self, state: OrderState, client_id: str) -> dict:
        try: state = self.exchange.cancel(state.id, client_id)
        except Rejected: raise Refusal(-2011, 'Unknown order sent.') from None
        return {'symbol': self.id_of[state.order.symbol], 'origClientOrderId': state.order.client_id, 'orderId': state.id, 'orderListId': -1,
                'clientOrderId': client_id, 'transactTime': state.updated, **self._figures(state), 'selfTradePreventionMode': 'NONE'}

    def open_orders(self, given: dict) -> list:
        symbols = [self.symbol(given)] if 'symbol' in given else list(self.exchange.tapes)
        return [self._row(self.venue.orders[id]) for symbol in symbols for id in self.venue.resting[symbol]]

    def all_orders(self, given: dict) -> list:
        symbol, first = self.symbol(given), whole(given, 'orderId', 0)
        begin, end = whole(given, 'startTime', 0), whole(given, 'endTime', 10**15)
        chosen = [state for id, state in self.venue.orders.items() if state.order.symbol == symbol and id >= first and begin <= state.opened <= end]
        return [self._row(state) for state in limited(chosen, given)]

    def my_trades(self, given: dict) -> list:
        symbol, order_id, first = self.symbol(given), whole(given, 'orderId'), whole(given, 'fromId', 0)
        begin, end = whole(given, 'startTime', 0), whole(given, 'endTime', 10**15)
        trades = self.venue.trades if order_id is None else self.venue.orders[order_id].fills if order_id in self.venue.orders else ()
        chosen = [fill for fill in trades if fill.symbol == symbol and fill.trade_id >= first and begin <= fill.time <= end]
        return [self._trade(fill) for fill in limited(chosen, given)]

    def _trade(self, fill: Fill) -> dict:
        state = self.venue.orders[self.exchange.order_of[fill.trade_id]]
        return {'symbol': self.id_of[fill.symbol], 'id': fill.trade_id, 'orderId': state.id, 'orderListId': -1, 'price': amount(fill.price),
                'qty': amount(fill.quantity), 'quoteQty': amount(fill.quantity * fill.price), 'commission': amount(fill.fee),
                'commissionAsset': fill.fee_asset, 'time': fill.time, 'isBuyer': fill.side == 'buy', 'isMaker': made(state, fill), 'isBestMatch': True}

    def _figures(self, state: OrderState) -> dict:
        "The numbers and words that every answer about an order has."
        order = state.order
        figures = {'price': amount(order.price or Decimal(0)), 'origQty': amount(order.quantity), 'executedQty': amount(Decimal(state.filled)),
                   'origQuoteOrderQty': '0.00000000', 'cummulativeQuoteQty': amount(Decimal(state.cost)), 'status': status(state),
                   'timeInForce': 'GTC', 'type': TYPES[order.kind], 'side': order.side.upper()}
        return figures | ({'stopPrice': amount(order.stop_price)} if order.stop_price else {})

    def _row(self, state: OrderState) -> dict:
        "An order as look-ups show it."
        working = state.order.kind != 'stop' or state.id in self.venue.awake or state.done
        return {'symbol': self.id_of[state.order.symbol], 'orderId': state.id, 'orderListId': -1, 'clientOrderId': state.order.client_id,
                'stopPrice': '0.00000000', **self._figures(state), 'icebergQty': '0.00000000', 'time': state.opened, 'updateTime': state.updated,
                'isWorking': working, 'workingTime': state.opened if working else -1, 'selfTradePreventionMode': 'NONE'}

    def _fee(self) -> Decimal: return next(iter(self.exchange.rules.values())).fee

    def account(self, given: dict) -> dict:
        fee, balances = self._fee(), self.exchange.state()['balances']
        points = int(fee * 10_000)
        return {'makerCommission': points, 'takerCommission': points, 'buyerCommission': 0, 'sellerCommission': 0,
                'commissionRates': {'maker': amount(fee), 'taker': amount(fee), 'buyer': '0.00000000', 'seller': '0.00000000'},
                'canTrade': True, 'canWithdraw': False, 'canDeposit': False, 'brokered': False, 'requireSelfTradePrevention': False,
                'preventSor': False, 'updateTime': self.exchange.now(), 'accountType': 'SPOT', 'permissions': ['SPOT'], 'uid': 1,
                'balances': [{'asset': asset, 'free': amount(Decimal(held['free'])), 'locked': amount(Decimal(held['locked']))}
                             for asset, held in balances.items()]}

    def trade_fees(self, given: dict) -> list:
        symbols = [self.symbol(given)] if 'symbol' in given else list(self.exchange.rules)
        return [{'symbol': self.id_of[symbol], 'makerCommission': amount(self.exchange.rules[symbol].fee),
                 'takerCommission': amount(self.exchange.rules[symbol].fee)} for symbol in symbols]

    def restrictions(self, given: dict) -> dict:
        return {'ipRestrict': True, 'createTime': self.exchange.times[0], 'enableReading': True, 'enableSpotAndMarginTrading': True,
                'enableWithdrawals': False, 'enableInternalTransfer': False, 'enableMargin': False, 'enableFutures': False,
                'permitsUniversalTransfer': False, 'enableVanillaOptions': False, 'enablePortfolioMarginTrading': False}

    # What is told without being asked

    def kline_event(self, symbol: str, row: int, forming: bool) -> dict:
        at, o, h, l, c, v, end, money, count, half, half_money, _ = json.loads(self._kline(symbol, row, forming))
        venue_id = self.id_of[symbol]
        return {'e': 'kline', 'E': self.exchange.now(), 's': venue_id, 'k': {
            't': at, 'T': end, 's': venue_id, 'i': self.exchange.timeframe, 'f': -1, 'L': -1, 'o': o, 'c': c, 'h': h, 'l': l, 'v': v,
            'n': count, 'x': not forming, 'q': money, 'V': half, 'Q': half_money, 'B': '0'}}

    def bar_events(self, symbol: str, at: int) -> Iterable[dict]:
        "The bar that has just closed, and the one that has just opened."
        row = self.exchange.tapes[symbol].where[at]
        yield self.kline_event(symbol, row, False)
        end, forming = self.exchange.visible(symbol)
        if forming: yield self.kline_event(symbol, end - 1, True)

    def order_events(self, execution: str, state: OrderState) -> Iterable[dict]:
        "What happened to an order, and then the balances it touched."
        order, now = state.order, self.exchange.now()
        new, fill = execution == 'NEW', state.fills[-1] if execution == 'TRADE' else None
        zero = '0.00000000'
        shown = 'NEW' if new else execution if not fill else 'FILLED' if state.remaining <= 0 else 'PARTIALLY_FILLED'
        yield {'e': 'executionReport', 'E': now, 's': self.id_of[order.symbol],
               'c': self.exchange.cancels[state.id] if execution == 'CANCELED' else order.client_id, 'S': order.side.upper(), 'o': TYPES[order.kind],
               'f': 'GTC', 'q': amount(order.quantity), 'p': amount(order.price or Decimal(0)), 'P': amount(order.stop_price or Decimal(0)),
               'F': zero, 'g': -1, 'C': order.client_id if execution == 'CANCELED' else '', 'x': execution, 'X': shown, 'r': 'NONE', 'i': state.id,
               'l': amount(fill.quantity) if fill else zero, 'z': zero if new else amount(Decimal(state.filled)),
               'L': amount(fill.price) if fill else zero, 'n': amount(fill.fee) if fill else '0', 'N': fill.fee_asset if fill else None,
               'T': state.opened if new else state.updated, 't': fill.trade_id if fill else -1, 'I': state.id, 'w': shown in ('NEW', 'PARTIALLY_FILLED'),
               'm': bool(fill and made(state, fill)), 'M': False, 'O': state.opened, 'Z': zero if new else amount(Decimal(state.cost)),
               'Y': amount(fill.quantity * fill.price) if fill else zero, 'Q': zero, 'W': state.opened, 'V': 'NONE'}
        rules, balances = self.exchange.rules[order.symbol], self.exchange.state()['balances']
        yield {'e': 'outboundAccountPosition', 'E': now, 'u': state.updated,
               'B': [{'a': asset, 'f': amount(Decimal(balances[asset]['free'])), 'l': amount(Decimal(balances[asset]['locked']))}
                     for asset in (rules.base, rules.quote)]}


def status(state: OrderState) -> str: return 'NEW' if state.status == 'OPEN' else state.status


def made(state: OrderState, fill: Fill) -> bool:
    "Did this fill come to us (maker), or did we go to it?"
    return state.order.kind == 'limit' and fill.time != state.opened


# (method, path) → what answers, whether it must be signed. The websocket API has other names for the same.
REST = {
    ('GET', '/api/v3/ping'): (Binance.ping, False), ('GET', '/api/v3/time'): (Binance.time, False),
    ('GET', '/api/v3/exchangeInfo'): (Binance.exchange_info, False), ('GET', '/api/v3/klines'): (Binance.klines, False),
    ('GET', '/api/v3/depth'): (Binance.depth, False), ('GET', '/api/v3/avgPrice'): (Binance.average_price, False),
    ('GET', '/api/v3/ticker/price'): (Binance.ticker_price, False), ('GET', '/api/v3/ticker/bookTicker'): (Binance.book_ticker, False),
    ('GET', '/api/v3/ticker/24hr'): (Binance.ticker_day, False),
    ('POST', '/api/v3/order'): (Binance.new_order, True), ('POST', '/api/v3/order/test'): (Binance.test_order, True),
    ('GET', '/api/v3/order'): (Binance.order, True), ('DELETE', '/api/v3/order'): (Binance.cancel_order, True),
    ('GET', '/api/v3/openOrders'): (Binance.open_orders, True), ('DELETE', '/api/v3/openOrders'): (Binance.cancel_open_orders, True),
    ('GET', '/api/v3/allOrders'): (Binance.all_orders, True), ('GET', '/api/v3/myTrades'): (Binance.my_trades, True),
    ('GET', '/api/v3/account'): (Binance.account, True), ('GET', '/sapi/v1/asset/tradeFee'): (Binance.trade_fees, True),
    ('GET', '/sapi/v1/account/apiRestrictions'): (Binance.restrictions, True),
}
WEBSOCKET = {
    'ping': ('GET', '/api/v3/ping'), 'time': ('GET', '/api/v3/time'), 'exchangeInfo': ('GET', '/api/v3/exchangeInfo'),
    'klines': ('GET', '/api/v3/klines'), 'depth': ('GET', '/api/v3/depth'), 'ticker.price': ('GET', '/api/v3/ticker/price'),
    'ticker.book': ('GET', '/api/v3/ticker/bookTicker'), 'order.place': ('POST', '/api/v3/order'), 'order.status': ('GET', '/api/v3/order'),
    'order.cancel': ('DELETE', '/api/v3/order'), 'openOrders.status': ('GET', '/api/v3/openOrders'),
    'openOrders.cancelAll': ('DELETE', '/api/v3/openOrders'), 'allOrders': ('GET', '/api/v3/allOrders'), 'myTrades': ('GET', '/api/v3/myTrades'),
    'account.status': ('GET', '/api/v3/account'),
}
