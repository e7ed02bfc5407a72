"""Binance's spot words: requests in, answers out, with its error codes. No HTTP here; REST and the websocket API share it.

https://developers.binance.com/docs/binance-spot-api-docs
"""
import hmac
import json
from collections.abc import Callable, Iterable
from copy import copy
from decimal import Decimal

import numpy as np

from production.local_exchange.exchange import MAIN, Account, LocalExchange, OrderList
from production.local_exchange.parameters import (
    KINDS,
    REFUSALS,
    TRAILS,
    Refusal,
    amount,
    client_id_of,
    figures,
    force,
    missing,
    plain,
    read_order,
    type_of,
    whole,
)
from production.local_exchange.venue import SpotOrder, Venue
from trading_lib.core.errors import Rejected
from trading_lib.execution.orders import Fill, OrderState

LEVELS = 20                     # of the made-up order book
DEPTH = Decimal(1000)           # quote asset on each of them


def limited(rows: list, given: dict, default: int = 500) -> list:
    "The newest `limit` rows, or the oldest where the question starts somewhere."
    limit = min(whole(given, 'limit', default), 1000)
    return rows[:limit] if {'fromId', 'startTime', 'orderId'} & given.keys() else rows[-limit:]


class Binance:
    "The protocol of one account at one `LocalExchange`."

    def __init__(self, exchange: LocalExchange, name: str = MAIN):
        self.exchange, self.name = exchange, name
        self.id_of = {symbol: venue_id for venue_id, symbol in exchange.ids.items()}
        self._rows: dict[str, dict[int, str]] = {symbol: {} for symbol in exchange.tapes}
        self._others = {name: self}

    def of(self, name: str) -> 'Binance':
        "The protocol of another account here."
        if name not in self._others:
            self._others[name] = other = copy(self)
            other.name = name
        return self._others[name]

    @property
    def holder(self) -> Account: return self.exchange.accounts[self.name]

    @property
    def venue(self) -> Venue: return self.exchange.accounts[self.name].venue

    # Who asks

    def now(self) -> int:
        "The clock of the venue, which may be wrong."
        return self.exchange.now() + self.exchange.faults.venue.skew

    def check(self, given: dict, payload: str, key: str | None, secured: bool = True) -> 'Binance':
        "Who asks: refuses a signed request as Binance does, by key, timestamp, window and signature."
        if not secured: return self
        if not key: raise Refusal(-2014, 'API-key format invalid.', 401)
        if key not in self.exchange.keys or key in self.exchange.faults.venue.revoked:
            raise Refusal(-2015, 'Invalid API-key, IP, or permissions for action.', 401)
        sent, window, now = whole(given, 'timestamp'), whole(given, 'recvWindow', 5000), self.now()
        if sent is None: raise missing('timestamp')
        if window > 60_000: raise Refusal(-1131, "'recvWindow' must be less than 60000.")
        if sent >= now + 1000: raise Refusal(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
        if now - sent > window: raise Refusal(-1021, 'Timestamp for this request is outside of the recvWindow.')
        if not given.get('signature'): raise missing('signature')
        signature = hmac.new(self.exchange.keys[key].encode(), payload.encode(), 'sha256').hexdigest()
        if not hmac.compare_digest(signature, given['signature']): raise Refusal(-1022, 'Signature for this request is not valid.')
        return self.of(self.exchange.owners[key])

    def symbol(self, given: dict) -> str:
        "The market asked about."
        if not given.get('symbol'): raise missing('symbol')
        if given['symbol'] not in self.exchange.ids: raise Refusal(-1121, 'Invalid symbol.')
        return self.exchange.ids[given['symbol']]

    # What anyone may ask

    def ping(self, given: dict) -> dict: return {}

    def time(self, given: dict) -> dict: return {'serverTime': self.now()}

    def exchange_info(self, given: dict) -> dict:
        symbols = [self.symbol(given)] if 'symbol' in given else list(self.exchange.rules)
        return {'timezone': 'UTC', 'serverTime': self.now(), 'exchangeFilters': [], 'rateLimits': [
                    {'rateLimitType': 'REQUEST_WEIGHT', 'interval': 'MINUTE', 'intervalNum': 1, 'limit': 6000},
                    {'rateLimitType': 'ORDERS', 'interval': 'SECOND', 'intervalNum': 10, 'limit': 100},
                    {'rateLimitType': 'ORDERS', 'interval': 'DAY', 'intervalNum': 1, 'limit': 200_000}],
                'symbols': [self._market(symbol) for symbol in symbols]}

    def _market(self, symbol: str) -> dict:
        rules = self.exchange.rules[symbol]
        lot = {'minQty': amount(rules.min_quantity), 'maxQty': '9000000.00000000', 'stepSize': amount(rules.step)}
        return {'symbol': self.id_of[symbol], 'status': 'TRADING' if symbol in self.venue.prices and symbol not in self.venue.halted else 'BREAK',
                'baseAsset': rules.base, 'baseAssetPrecision': 8, 'quoteAsset': rules.quote, 'quotePrecision': 8, 'quoteAssetPrecision': 8,
                'baseCommissionPrecision': 8, 'quoteCommissionPrecision': 8, 'orderTypes': list(KINDS), 'icebergAllowed': False,
                'ocoAllowed': True, 'otoAllowed': False, 'quoteOrderQtyMarketAllowed': False, 'allowTrailingStop': True,
                'cancelReplaceAllowed': True, 'isSpotTradingAllowed': True, 'isMarginTradingAllowed': False, 'permissions': [],
                'permissionSets': [['SPOT']], 'defaultSelfTradePreventionMode': 'NONE', 'allowedSelfTradePreventionModes': ['NONE'],
                'filters': [
                    {'filterType': 'PRICE_FILTER', 'minPrice': amount(rules.tick), 'maxPrice': '10000000.00000000', 'tickSize': amount(rules.tick)},
                    {'filterType': 'LOT_SIZE', **lot}, {'filterType': 'MARKET_LOT_SIZE', **lot},
                    {'filterType': 'NOTIONAL', 'minNotional': amount(rules.min_notional), 'applyMinToMarket': True,
                     'maxNotional': '9000000.00000000', 'applyMaxToMarket': False, 'avgPriceMins': 0},
                    {'filterType': 'TRAILING_DELTA', 'minTrailingAboveDelta': TRAILS[0], 'maxTrailingAboveDelta': TRAILS[-1],
                     'minTrailingBelowDelta': TRAILS[0], 'maxTrailingBelowDelta': TRAILS[-1]},
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

    def price(self, symbol: str) -> Decimal:
        "The last price; after the last bar its close. Where there is a recorded book, its best bid."
        if (book := self.exchange.books.get(symbol)) and symbol in self.venue.prices: return book.at(self.exchange.now(), 1)[1][0][0]
        if symbol in self.venue.prices: return self.venue.prices[symbol]
        tape = self.exchange.tapes[symbol]
        return Decimal(repr(float(tape.values[max(tape.until(self.exchange.times[self.exchange.current]), 1) - 1, 3])))

    def quotes(self, symbol: str, levels: int) -> tuple[list, list]:
        "The recorded book; or a made-up one, with the same money on each tick around the price."
        if book := self.exchange.books.get(symbol):
            _, *sides = book.at(self.exchange.now(), levels)
            return tuple([[amount(price), amount(size)] for price, size in side] for side in sides)
        levels = min(levels, LEVELS)
        rules, price = self.exchange.rules[symbol], self.price(symbol)
        tick, step = rules.tick or price / 10_000, rules.step or Decimal('0.00001')
        first = price // tick * tick
        sized = lambda at: [amount(at), amount(max(DEPTH / at // step * step, step))]
        return ([sized(at) for k in range(levels) if (at := first - k * tick) > 0], [sized(first + (k + 1) * tick) for k in range(levels)])

    def depth(self, given: dict) -> dict:
        symbol, limit = self.symbol(given), min(whole(given, 'limit', 100), 5000)
        bids, asks = self.quotes(symbol, limit)
        book = self.exchange.books.get(symbol)
        return {'lastUpdateId': book.at(self.exchange.now())[0] if book else self.exchange.current + 1, 'bids': bids, 'asks': asks}

    def _each(self, given: dict, answer: Callable[[str], dict]) -> dict | list:
        "One answer for one symbol, a list where none is named."
        return answer(self.symbol(given)) if 'symbol' in given else [answer(symbol) for symbol in self.exchange.tapes]

    def ticker_price(self, given: dict) -> dict | list:
        return self._each(given, lambda symbol: {'symbol': self.id_of[symbol], 'price': amount(self.price(symbol))})

    def book_ticker(self, given: dict) -> dict | list:
        def answer(symbol):
            ((bid, bid_size),), ((ask, ask_size),) = self.quotes(symbol, 1)
            return {'symbol': self.id_of[symbol], 'bidPrice': bid, 'bidQty': bid_size, 'askPrice': ask, 'askQty': ask_size}
        return self._each(given, answer)

    def average_price(self, given: dict) -> dict:
        return {'mins': 5, 'price': amount(self.price(self.symbol(given))), 'closeTime': self.exchange.now()}

    def ticker_day(self, given: dict) -> dict | list:
        def answer(symbol):
            now, tape, price = self.exchange.now(), self.exchange.tapes[symbol], self.price(symbol)
            end = tape.until(self.exchange.times[self.exchange.current])
            begin = min(int(np.searchsorted(tape.opens, now - 86_400_000)), end - 1)
            day = tape.values[max(begin, 0):end]
            if not len(day): day = np.array([[float(price)] * 4 + [0.]])
            first, volume, money = float(day[0, 0]), float(day[:, 4].sum()), float((day[:, 3] * day[:, 4]).sum())
            change = float(price) - first
            ((bid, bid_size),), ((ask, ask_size),) = self.quotes(symbol, 1)
            return {'symbol': self.id_of[symbol], 'priceChange': plain(change), 'priceChangePercent': f'{100 * change / first:.3f}',
                    'weightedAvgPrice': plain(money / volume if volume else first), 'prevClosePrice': plain(first), 'lastPrice': amount(price),
                    'lastQty': '0.00000000', 'bidPrice': bid, 'bidQty': bid_size, 'askPrice': ask, 'askQty': ask_size, 'openPrice': plain(first),
                    'highPrice': plain(float(day[:, 1].max())), 'lowPrice': plain(float(day[:, 2].min())), 'volume': plain(volume),
                    'quoteVolume': plain(money), 'openTime': now - 86_400_000, 'closeTime': now, 'firstId': 0, 'lastId': len(day) - 1, 'count': len(day)}
        return self._each(given, answer)

    # What only the account's owner may ask

    def new_order(self, given: dict) -> dict: return self._placed(self._order(given), given.get('newOrderRespType'))

    def _placed(self, order: SpotOrder, kind: str | None) -> dict:
        state = self.exchange.place(order, self.name)
        if state.status == 'REJECTED': raise Refusal(*REFUSALS[state.reason])
        return self._report(state, kind or ('FULL' if order.word in ('MARKET', 'LIMIT') else 'ACK'))

    def _report(self, state: OrderState, kind: str) -> dict:
        "What is said of an order that was just accepted: ACK, RESULT or FULL."
        answer = self._named(state) | {'transactTime': state.opened}
        if kind in ('RESULT', 'FULL'): answer |= figures(state) | {'workingTime': state.opened, 'selfTradePreventionMode': 'NONE'}
        if kind == 'FULL':
            answer['fills'] = [{'price': amount(fill.price), 'qty': amount(fill.quantity), 'commission': amount(fill.fee),
                                'commissionAsset': fill.fee_asset, 'tradeId': fill.trade_id} for fill in state.fills]
        return answer

    def _named(self, state: OrderState) -> dict:
        listed = self.holder.listed.get(state.id)
        return {'symbol': self.id_of[state.order.symbol], 'orderId': state.id, 'orderListId': listed.id if listed else -1,
                'clientOrderId': state.order.client_id}

    def test_order(self, given: dict) -> dict:
        if reason := self.venue.refusal(self._order(given)): raise Refusal(*REFUSALS[reason])
        return {}

    def _order(self, given: dict) -> SpotOrder:
        symbol = self.symbol(given)
        return read_order(given, symbol, self._client_id(given, 'newClientOrderId'), self.venue)

    def _client_id(self, given: dict, name: str) -> str:
        return client_id_of(given, name, f'venue-{len(self.venue.orders) + 1}-{len(self.holder.cancels)}')

    def cancel_replace(self, given: dict) -> dict:
        "Cancel one order and place another; what happens to the second if the first fails is up to the mode."
        mode = given.get('cancelReplaceMode')
        if not mode: raise missing('cancelReplaceMode')
        if mode not in ('STOP_ON_FAILURE', 'ALLOW_FAILURE'): raise Refusal(-1130, "Invalid data sent for parameter 'cancelReplaceMode'.")
        order = self._order(given)
        reason = self.venue.refusal(order)
        if reason in ('PRICE_FILTER', 'LOT_SIZE', 'NOTIONAL', 'MARKET_CLOSED'): raise Refusal(*REFUSALS[reason])   # looked at before anything is done
        names = {'orderId': given.get('cancelOrderId', ''), 'origClientOrderId': given.get('cancelOrigClientOrderId', ''),
                 'newClientOrderId': given.get('cancelNewClientOrderId', '')}
        def attempt(do) -> tuple[str, dict]:
            try: return 'SUCCESS', do()
            except Refusal as no: return 'FAILURE', no.body
        canceled, cancel = attempt(lambda: self.cancel_order(names | {'symbol': given['symbol']}))
        placed, new = ('NOT_ATTEMPTED', None) if canceled == 'FAILURE' and mode == 'STOP_ON_FAILURE' else attempt(
            lambda: self._placed(order, given.get('newOrderRespType')))
        answer = {'cancelResult': canceled, 'newOrderResult': placed, 'cancelResponse': cancel, 'newOrderResponse': new}
        if canceled == placed == 'SUCCESS': return answer
        if 'SUCCESS' in (canceled, placed): raise Refusal(-2021, 'Order cancel-replace partially failed.', 409, answer)
        raise Refusal(-2022, 'Order cancel-replace failed.', 400, answer)

    # Lists of orders of which the first that trades ends the others

    def new_oco(self, given: dict) -> dict:
        "One order above the price and one below it."
        symbol, number = self.symbol(given), len(self.holder.lists) + 1
        for name in ('side', 'aboveType', 'belowType'):
            if not given.get(name): raise missing(name)
        above, below = [self._leg(given, symbol, leg, f'list-{number}') for leg in ('above', 'below')]
        if sorted(order.word.startswith('STOP_LOSS') for order in (above, below)) != [False, True] or {above.word, below.word} & {'LIMIT', 'MARKET'}:
            raise Refusal(-1158 if given['side'] in ('BUY', 'SELL') else -1117, 'Invalid combination of aboveType and belowType.')
        price = self.venue.prices.get(symbol)
        if above.client_id == below.client_id: raise Refusal(*REFUSALS['DUPLICATE'])
        if price is None: raise Refusal(*REFUSALS['MARKET_CLOSED'])
        if not (above.price or above.stop_price) > price > (below.price or below.stop_price): raise Refusal(*REFUSALS['PRICES'])
        try: listed = self.exchange.place_list((above, below), client_id_of(given, 'listClientOrderId', f'venue-list-{number}'), self.name)
        except Rejected as no: raise Refusal(*REFUSALS[str(no)]) from None
        kind = given.get('newOrderRespType') or 'RESULT'
        return self._list(listed) | {'orderReports': [self._report(self.venue.orders[id], kind) for id in listed.orders]}

    def _leg(self, given: dict, symbol: str, leg: str, group: str) -> SpotOrder:
        told = {name: given.get(f'{leg}{name[0].upper()}{name[1:]}', '') for name in ('type', 'price', 'stopPrice', 'trailingDelta', 'timeInForce')}
        client_id = client_id_of(given, f'{leg}ClientOrderId', f'venue-{len(self.venue.orders) + 1}-{leg}')
        return read_order({'side': given['side'], 'quantity': given.get('quantity', '')} | told, symbol, client_id, self.venue, group)

    def _list(self, listed: OrderList) -> dict:
        states = [self.venue.orders[id] for id in listed.orders]
        over = all(state.done for state in states)
        return {'orderListId': listed.id, 'contingencyType': 'OCO', 'listStatusType': 'ALL_DONE' if over else 'EXEC_STARTED',
                'listOrderStatus': 'ALL_DONE' if over else 'EXECUTING', 'listClientOrderId': listed.client_id, 'transactionTime': listed.opened,
                'symbol': self.id_of[listed.symbol],
                'orders': [{'symbol': self.id_of[listed.symbol], 'orderId': state.id, 'clientOrderId': state.order.client_id} for state in states]}

    def _find_list(self, given: dict, name: str, code: int, text: str) -> OrderList:
        if not given.get('orderListId') and not given.get(name):
            raise Refusal(-1102, f"Param '{name}' or 'orderListId' must be sent, but both were empty/null!")
        number = whole(given, 'orderListId')
        found = [listed for listed in self.holder.lists.values() if (listed.id == number if number is not None else listed.client_id == given[name])]
        if not found: raise Refusal(code, text)
        return found[-1]

    def order_list(self, given: dict) -> dict: return self._list(self._find_list(given, 'origClientOrderId', -2013, 'Order list does not exist.'))

    def all_lists(self, given: dict) -> list:
        first = whole(given, 'fromId', 0)
        return [self._list(listed) for listed in limited([listed for listed in self.holder.lists.values() if listed.id >= first], given)]

    def open_lists(self, given: dict) -> list:
        return [said for listed in self.holder.lists.values() if (said := self._list(listed))['listOrderStatus'] == 'EXECUTING']

    def cancel_list(self, given: dict) -> dict:
        listed = self._find_list(given, 'listClientOrderId', -2011, 'Unknown order list sent.')
        if listed.symbol != self.symbol(given): raise Refusal(-2011, 'Unknown order list sent.')
        open_ids = [id for id in listed.orders if not self.venue.orders[id].done]
        if not open_ids: raise Refusal(-2011, 'Unknown order list sent.')
        client_id = self._client_id(given, 'newClientOrderId')
        self.exchange.cancel(open_ids[0], client_id, self.name)
        reports = [self._cancellation(self.venue.orders[id], client_id) | {'icebergQty': '0.00000000'} for id in open_ids]
        return self._list(listed) | {'orderReports': reports}

    def list_events(self, listed: OrderList) -> Iterable[dict]:
        said = self._list(listed)
        yield {'e': 'listStatus', 'E': self.now(), 's': said['symbol'], 'g': listed.id, 'c': 'OCO', 'l': said['listStatusType'],
               'L': said['listOrderStatus'], 'r': 'NONE', 'C': listed.client_id, 'T': self.exchange.now(),
               'O': [{'s': order['symbol'], 'i': order['orderId'], 'c': order['clientOrderId']} for order in said['orders']]}

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
        told = []
        for id in resting:
            listed = self.holder.listed.get(id)
            if self.venue.orders[id].done: continue   # with the other of its list
            told.append(self.cancel_list({'symbol': given['symbol'], 'orderListId': str(listed.id)}) if listed
                        else self._canceled(self.venue.orders[id], self._client_id({}, '')))
        return told

    def _canceled(self, state: OrderState, client_id: str) -> dict:
        try: self.exchange.cancel(state.id, client_id, self.name)
        except Rejected: raise Refusal(-2011, 'Unknown order sent.') from None
        return self._cancellation(self.venue.orders[state.id], client_id)

    def _cancellation(self, state: OrderState, client_id: str) -> dict:
        return self._named(state) | {'origClientOrderId': state.order.client_id, 'clientOrderId': client_id, 'transactTime': state.updated,
                                     **figures(state), 'selfTradePreventionMode': 'NONE'}

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
        state = self.venue.orders[self.holder.order_of[fill.trade_id]]
        return {'symbol': self.id_of[fill.symbol], 'id': fill.trade_id, 'orderId': state.id, 'orderListId': self._named(state)['orderListId'],
                'price': amount(fill.price), 'qty': amount(fill.quantity), 'quoteQty': amount(fill.quantity * fill.price), 'commission': amount(fill.fee),
                'commissionAsset': fill.fee_asset, 'time': fill.time, 'isBuyer': fill.side == 'buy',
                'isMaker': fill.trade_id in self.venue.makers, 'isBestMatch': True}

    def _row(self, state: OrderState) -> dict:
        "An order as look-ups show it."
        working = not state.order.stop_price or state.id in self.venue.awake or state.done
        return self._named(state) | {'stopPrice': '0.00000000', **figures(state), 'icebergQty': '0.00000000', 'time': state.opened,
                                     'updateTime': state.updated, 'isWorking': working, 'workingTime': state.opened if working else -1,
                                     'selfTradePreventionMode': 'NONE'}

    def rates(self, symbol: str) -> tuple[Decimal, Decimal]:
        "What this account pays as maker and as taker."
        taker = self.venue.rules[symbol].fee
        return taker if self.venue.maker is None else self.venue.maker, taker

    def account(self, given: dict) -> dict:
        maker, taker = self.rates(next(iter(self.exchange.rules)))
        return {'makerCommission': int(maker * 10_000), 'takerCommission': int(taker * 10_000), 'buyerCommission': 0, 'sellerCommission': 0,
                'commissionRates': {'maker': amount(maker), 'taker': amount(taker), 'buyer': '0.00000000', 'seller': '0.00000000'},
                'canTrade': True, 'canWithdraw': self.exchange.faults.venue.can_withdraw, 'canDeposit': False, 'brokered': False,
                'requireSelfTradePrevention': False, 'preventSor': False, 'updateTime': self.exchange.now(), 'accountType': 'SPOT', 'permissions': ['SPOT'],
                'uid': 1 + list(self.exchange.accounts).index(self.name),
                'balances': [{'asset': asset, 'free': amount(free), 'locked': amount(locked)}
                             for asset, (free, locked) in self.exchange.balances(self.name).items()]}

    def trade_fees(self, given: dict) -> list:
        symbols = [self.symbol(given)] if 'symbol' in given else list(self.exchange.rules)
        return [{'symbol': self.id_of[symbol], 'makerCommission': amount(maker), 'takerCommission': amount(taker)}
                for symbol in symbols for maker, taker in [self.rates(symbol)]]

    def restrictions(self, given: dict) -> dict:
        return {'ipRestrict': True, 'createTime': self.exchange.times[0], 'enableReading': True, 'enableSpotAndMarginTrading': True,
                'enableWithdrawals': self.exchange.faults.venue.can_withdraw, 'enableInternalTransfer': False, 'enableMargin': False, 'enableFutures': False,
                'permitsUniversalTransfer': False, 'enableVanillaOptions': False, 'enablePortfolioMarginTrading': False}

    # What is told without being asked

    def kline_event(self, symbol: str, row: int, forming: bool) -> dict:
        at, o, h, l, c, v, end, money, count, half, half_money, _ = json.loads(self._kline(symbol, row, forming))
        venue_id = self.id_of[symbol]
        return {'e': 'kline', 'E': self.now(), 's': venue_id, 'k': {
            't': at, 'T': end, 's': venue_id, 'i': self.exchange.timeframe, 'f': -1, 'L': -1, 'o': o, 'c': c, 'h': h, 'l': l, 'v': v,
            'n': count, 'x': not forming, 'q': money, 'V': half, 'Q': half_money, 'B': '0'}}

    def bar_events(self, symbol: str, at: int) -> Iterable[dict]:
        "The bar that has just closed, and the one that has just opened."
        row = self.exchange.tapes[symbol].where[at]
        yield self.kline_event(symbol, row, False)
        end, forming = self.exchange.visible(symbol)
        if forming: yield self.kline_event(symbol, end - 1, True)

    def order_events(self, execution: str, state: OrderState, account: str = MAIN) -> Iterable[dict]:
        "What happened to an order, and then the balances it touched."
        if account != self.name: return (yield from self.of(account).order_events(execution, state, account))
        order, now = state.order, self.now()
        new, fill = execution == 'NEW', state.fills[-1] if execution == 'TRADE' else None
        zero = '0.00000000'
        execution = 'EXPIRED' if state.reason == 'GROUP' else execution
        shown = 'NEW' if new else execution if not fill else 'FILLED' if state.remaining <= 0 else 'PARTIALLY_FILLED'
        yield {'e': 'executionReport', 'E': now, 's': self.id_of[order.symbol],
               'c': self.holder.cancels[state.id] if execution == 'CANCELED' else order.client_id, 'S': order.side.upper(), 'o': type_of(order),
               'f': force(order), 'q': amount(order.quantity), 'p': amount(order.price or order.limit or Decimal(0)),
               'P': amount(order.stop_price or Decimal(0)), 'F': zero, 'g': self._named(state)['orderListId'],
               'C': order.client_id if execution == 'CANCELED' else '', 'x': execution, 'X': shown, 'r': 'NONE', 'i': state.id,
               'l': amount(fill.quantity) if fill else zero, 'z': zero if new else amount(Decimal(state.filled)),
               'L': amount(fill.price) if fill else zero, 'n': amount(fill.fee) if fill else '0', 'N': fill.fee_asset if fill else None,
               'T': state.opened if new else state.updated, 't': fill.trade_id if fill else -1, 'I': state.id, 'w': shown in ('NEW', 'PARTIALLY_FILLED'),
               'm': bool(fill and fill.trade_id in self.venue.makers), 'M': False, 'O': state.opened, 'Z': zero if new else amount(Decimal(state.cost)),
               'Y': amount(fill.quantity * fill.price) if fill else zero, 'Q': zero, 'W': state.opened, 'V': 'NONE'}
        rules, paid_in = self.exchange.rules[order.symbol], [fill.fee_asset] if fill else []
        yield self._position(dict.fromkeys([rules.base, rules.quote, *paid_in]), state.updated)

    def _position(self, assets: Iterable[str], at: int) -> dict:
        "What there is now of some assets."
        balances = self.exchange.balances(self.name)
        return {'e': 'outboundAccountPosition', 'E': self.now(), 'u': at,
                'B': [{'a': asset, 'f': amount(balances[asset][0]), 'l': amount(balances[asset][1])} for asset in assets]}

    def balance_events(self, moved: dict[str, Decimal]) -> Iterable[dict]:
        "Money that came or went without a trade."
        at = self.exchange.now()
        for asset, delta in moved.items(): yield {'e': 'balanceUpdate', 'E': self.now(), 'a': asset, 'd': f'{delta:.8f}', 'T': at}
        yield self._position(moved or self.exchange.balances(self.name), at)


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
    ('POST', '/api/v3/order/cancelReplace'): (Binance.cancel_replace, True), ('POST', '/api/v3/orderList/oco'): (Binance.new_oco, True),
    ('GET', '/api/v3/orderList'): (Binance.order_list, True), ('DELETE', '/api/v3/orderList'): (Binance.cancel_list, True),
    ('GET', '/api/v3/allOrderList'): (Binance.all_lists, True), ('GET', '/api/v3/openOrderList'): (Binance.open_lists, True),
    ('GET', '/api/v3/allOrders'): (Binance.all_orders, True), ('GET', '/api/v3/myTrades'): (Binance.my_trades, True),
    ('GET', '/api/v3/account'): (Binance.account, True), ('GET', '/sapi/v1/asset/tradeFee'): (Binance.trade_fees, True),
    ('GET', '/sapi/v1/account/apiRestrictions'): (Binance.restrictions, True),
}
WEIGHTS = {   # request weight; 1 where not named
    '/api/v3/exchangeInfo': 20, '/api/v3/klines': 2, '/api/v3/depth': 5, '/api/v3/avgPrice': 2, '/api/v3/ticker/price': 2, '/api/v3/ticker/bookTicker': 2,
    '/api/v3/ticker/24hr': 2, 'GET /api/v3/order': 4, 'GET /api/v3/openOrders': 6, '/api/v3/allOrders': 20, '/api/v3/myTrades': 20, '/api/v3/account': 20,
    'GET /api/v3/orderList': 4, '/api/v3/openOrderList': 6, '/api/v3/allOrderList': 20,
}
WEBSOCKET = {
    'ping': ('GET', '/api/v3/ping'), 'time': ('GET', '/api/v3/time'), 'exchangeInfo': ('GET', '/api/v3/exchangeInfo'),
    'klines': ('GET', '/api/v3/klines'), 'depth': ('GET', '/api/v3/depth'), 'ticker.price': ('GET', '/api/v3/ticker/price'),
    'ticker.book': ('GET', '/api/v3/ticker/bookTicker'), 'order.place': ('POST', '/api/v3/order'), 'order.status': ('GET', '/api/v3/order'),
    'order.cancel': ('DELETE', '/api/v3/order'), 'openOrders.status': ('GET', '/api/v3/openOrders'),
    'openOrders.cancelAll': ('DELETE', '/api/v3/openOrders'), 'allOrders': ('GET', '/api/v3/allOrders'), 'myTrades': ('GET', '/api/v3/myTrades'),
    'account.status': ('GET', '/api/v3/account'), 'order.test': ('POST', '/api/v3/order/test'),
    'order.cancelReplace': ('POST', '/api/v3/order/cancelReplace'),
    'orderList.place.oco': ('POST', '/api/v3/orderList/oco'), 'orderList.status': ('GET', '/api/v3/orderList'),
    'orderList.cancel': ('DELETE', '/api/v3/orderList'), 'openOrderLists.status': ('GET', '/api/v3/openOrderList'),
    'allOrderLists': ('GET', '/api/v3/allOrderList'),
}
