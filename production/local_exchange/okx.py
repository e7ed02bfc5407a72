"""OKX's spot words over the same market and accounts as Binance's: nothing in the core belongs to either.

REST only: instruments, candles, tickers, books, balances, orders, fills. https://www.okx.com/docs-v5/en/
"""
import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from copy import copy
from datetime import datetime
from decimal import Decimal
from itertools import groupby

import numpy as np

from production.local_exchange.exchange import MAIN, Account, LocalExchange
from production.local_exchange.parameters import plain
from production.local_exchange.protocol import Binance
from production.local_exchange.venue import SpotOrder, Venue
from trading_lib.core.errors import Rejected
from trading_lib.core.money import money
from trading_lib.execution.orders import Fill, OrderState

PASSPHRASE = 'local-passphrase'   # of every key
PATIENCE_MS = 30_000              # between a request's timestamp and our clock
KINDS = {'market': ('market', 'GTC'), 'limit': ('limit', 'GTC'), 'ioc': ('limit', 'IOC'), 'fok': ('limit', 'FOK')}
STATES = {'OPEN': 'live', 'PARTIALLY_FILLED': 'partially_filled', 'FILLED': 'filled', 'CANCELED': 'canceled', 'EXPIRED': 'canceled'}
REFUSALS = {
    'MARKET_CLOSED': ('51022', 'Instrument suspended'), 'PRICE_FILTER': ('51000', 'Parameter px error'),
    'DUPLICATE': ('51016', 'Client order ID already exists.'), 'LOT_SIZE': ('51121', 'Order quantity must be a multiple of the lot size.'),
    'NOTIONAL': ('51020', 'Your order should meet or exceed the minimum order amount.'),
    'INSUFFICIENT_BALANCE': ('51008', 'Order failed. Your available balance is insufficient.'),
}
UNUSED_OF_ORDERS = ('algoClOrdId', 'algoId', 'attachAlgoClOrdId', 'cancelSource', 'cancelSourceReason', 'ccy', 'lever', 'pxType', 'pxUsd', 'pxVol',
                    'quickMgnType', 'slOrdPx', 'slTriggerPx', 'slTriggerPxType', 'source', 'stpId', 'tpOrdPx', 'tpTriggerPx', 'tpTriggerPxType')
UNUSED_OF_BALANCES = ('accAvgPx', 'borrowFroz', 'clSpotInUseAmt', 'crossLiab', 'imr', 'interest', 'isoEq', 'isoLiab', 'isoUpl', 'liab', 'maxLoan',
                      'maxSpotInUseAmt', 'mgnRatio', 'mmr', 'notionalLever', 'openAvgPx', 'spotBal', 'spotInUseAmt', 'spotUpl', 'spotUplRatio', 'totalPnl',
                      'totalPnlRatio', 'upl', 'uplLiab')
UNUSED_OF_MARKETS = ('alias', 'auctionEndTime', 'ctMult', 'ctType', 'ctVal', 'ctValCcy', 'expTime', 'instFamily', 'lever', 'optType', 'settleCcy', 'stk', 'uly')


class OkxRefusal(Rejected):
    "An error answer: OKX's code and text, and the HTTP status."

    def __init__(self, code: str, text: str, status: int = 200):
        super().__init__(f'{code} {text}')
        self.code, self.text, self.status = code, text, status

    @property
    def body(self) -> dict: return {'code': self.code, 'data': [], 'msg': self.text}


def said(status: int, answer: str) -> str:
    "Binance's answer of a venue that serves nobody now, in OKX's words."
    return json.dumps({'code': '50001' if status == 503 else '50011', 'data': [], 'msg': json.loads(answer)['msg']})


def text(value: Decimal | int) -> str:
    "A number as OKX writes it: no zeros at the end."
    return f'{Decimal(value).normalize():f}' if value else '0'


def _blank(names: tuple[str, ...]) -> dict: return dict.fromkeys(names, '')


class Okx:
    "The protocol of one account at one `LocalExchange`."

    def __init__(self, exchange: LocalExchange, name: str = MAIN):
        self.exchange, self.name, self.market = exchange, name, Binance(exchange)
        self.id_of = {symbol: symbol.replace('/', '-') for symbol in exchange.rules}
        self.symbol_of = {id: symbol for symbol, id in self.id_of.items()}

    def of(self, name: str) -> 'Okx':
        other = copy(self)
        other.name = name
        return other

    @property
    def holder(self) -> Account: return self.exchange.accounts[self.name]

    @property
    def venue(self) -> Venue: return self.holder.venue

    # Who asks

    def check(self, method: str, path: str, body: str, headers: Mapping[str, str]) -> 'Okx':
        "Who asks: refuses a signed request as OKX does, by key, passphrase, timestamp, deadline and signature."
        key, sent = headers.get('OK-ACCESS-KEY', ''), headers.get('OK-ACCESS-TIMESTAMP', '')
        for name, code in (('KEY', '50103'), ('PASSPHRASE', '50104'), ('SIGN', '50106'), ('TIMESTAMP', '50107')):
            if not headers.get(f'OK-ACCESS-{name}'): raise OkxRefusal(code, f'Request header "OK-ACCESS-{name}" can\'t be empty.', 401)
        if key not in self.exchange.keys or key in self.exchange.faults.venue.revoked: raise OkxRefusal('50111', 'Invalid OK-ACCESS-KEY', 401)
        if headers['OK-ACCESS-PASSPHRASE'] != PASSPHRASE: raise OkxRefusal('50105', 'Request header "OK-ACCESS-PASSPHRASE" incorrect.', 401)
        try: moment = datetime.fromisoformat(sent).timestamp() * 1000
        except ValueError: raise OkxRefusal('50112', 'Invalid OK-ACCESS-TIMESTAMP', 401) from None
        if abs(self.market.now() - moment) > PATIENCE_MS: raise OkxRefusal('50102', 'Timestamp request expired', 401)
        signature = b64encode(hmac.new(self.exchange.keys[key].encode(), f'{sent}{method}{path}{body}'.encode(), 'sha256').digest()).decode()
        if not hmac.compare_digest(signature, headers['OK-ACCESS-SIGN']): raise OkxRefusal('50113', 'Invalid Sign', 401)
        if (deadline := headers.get('expTime', '')).isdigit() and int(deadline) < self.market.now():
            raise OkxRefusal('51149', 'Order timed out. Please try again.')
        return self.of(self.exchange.owners[key])

    def symbol(self, given: dict) -> str:
        if not given.get('instId'): raise OkxRefusal('50014', 'Parameter instId can not be empty.', 400)
        if given['instId'] not in self.symbol_of: raise OkxRefusal('51001', "Instrument ID doesn't exist.")
        return self.symbol_of[given['instId']]

    # What anyone may ask

    def time(self, given: dict) -> list: return [{'ts': str(self.market.now())}]

    def instruments(self, given: dict) -> list:
        if given.get('instType') != 'SPOT': return []
        return [self._instrument(symbol) for symbol in self.exchange.rules if given.get('instId', self.id_of[symbol]) == self.id_of[symbol]]

    def _instrument(self, symbol: str) -> dict:
        rules = self.exchange.rules[symbol]
        live = symbol in self.venue.prices and symbol not in self.venue.halted
        return _blank(UNUSED_OF_MARKETS) | {
            'baseCcy': rules.base, 'quoteCcy': rules.quote, 'category': '1', 'instId': self.id_of[symbol], 'instType': 'SPOT',
            'listTime': str(self.exchange.times[0]), 'lotSz': text(rules.step), 'minSz': text(rules.min_quantity), 'tickSz': text(rules.tick), 'ruleType': 'normal',
            'state': 'live' if live else 'suspend',
            **dict.fromkeys(('maxIcebergSz', 'maxLmtAmt', 'maxLmtSz', 'maxMktAmt', 'maxMktSz', 'maxStopSz', 'maxTriggerSz', 'maxTwapSz'), '9000000')}

    def candles(self, given: dict) -> list:
        "Newest first; `after` and `before` are times that the bars are older and newer than."
        symbol, ours = self.symbol(given), self.exchange.timeframe
        wanted = ours if ours.endswith('m') else ours.upper()
        if given.get('bar', '1m').removesuffix('utc') != wanted: raise OkxRefusal('51000', 'Parameter bar error')
        tape = self.exchange.tapes[symbol]
        seen, forming = self.exchange.visible(symbol)
        end = min(seen, int(np.searchsorted(tape.opens, _whole(given, 'after', 10**15))))
        begin = max(int(np.searchsorted(tape.opens, _whole(given, 'before', -1), side='right')), end - min(_whole(given, 'limit', 100), 300))
        return [self._candle(tape, row, forming and row == seen - 1) for row in range(end - 1, begin - 1, -1)]

    def _candle(self, tape, row: int, forming: bool) -> list:
        o, h, l, c, v = tape.values[row].tolist()
        if forming: h = l = c = o; v = 0.
        return [str(int(tape.opens[row])), *map(plain, (o, h, l, c, v, c * v, c * v)), '0' if forming else '1']

    def ticker(self, given: dict) -> list: return [self._ticker(self.symbol(given))]

    def tickers(self, given: dict) -> list: return [self._ticker(symbol) for symbol in self.exchange.rules]

    def _ticker(self, symbol: str) -> dict:
        day = self.market.ticker_day({'symbol': self.market.id_of[symbol]})
        return {'instType': 'SPOT', 'instId': self.id_of[symbol], 'last': day['lastPrice'], 'lastSz': day['lastQty'],
                'askPx': day['askPrice'], 'askSz': day['askQty'],
                'bidPx': day['bidPrice'], 'bidSz': day['bidQty'], 'open24h': day['openPrice'], 'high24h': day['highPrice'], 'low24h': day['lowPrice'],
                'volCcy24h': day['quoteVolume'], 'vol24h': day['volume'], 'ts': str(day['closeTime']), 'sodUtc0': day['openPrice'], 'sodUtc8': day['openPrice']}

    def books(self, given: dict) -> list:
        bids, asks = self.market.quotes(self.symbol(given), min(_whole(given, 'sz', 1), 400))
        rows = lambda side: [[price, size, '0', '1'] for price, size in side]
        return [{'asks': rows(asks), 'bids': rows(bids), 'ts': str(self.market.now())}]

    # What only the account's owner may ask

    def currencies(self, given: dict) -> list:
        return [{'ccy': asset, 'name': asset, 'chain': f'{asset}-Local', 'canDep': False, 'canWd': False, 'canInternal': False, 'minFee': '0',
                 'maxFee': '0', 'minWd': '0', 'maxWd': '0', 'wdTickSz': '8', 'mainNet': True} for asset in self.exchange.balances(self.name)]

    def config(self, given: dict) -> list:
        rights = 'read_only,trade' + ',withdraw' * self.exchange.faults.venue.can_withdraw
        return [{'uid': str(1 + list(self.exchange.accounts).index(self.name)), 'acctLv': '1', 'posMode': 'net_mode', 'perm': rights,
                 'ip': '127.0.0.1', 'level': 'Lv1'}]

    def balance(self, given: dict) -> list:
        wanted, now = [asset for asset in given.get('ccy', '').split(',') if asset], str(self.exchange.now())
        rows = [_blank(UNUSED_OF_BALANCES) | {
            'ccy': asset, 'availBal': text(free), 'availEq': text(free), 'cashBal': text(free + locked), 'eq': text(free + locked), 'frozenBal': text(locked),
            'ordFrozen': text(locked), 'disEq': '0', 'eqUsd': '0', 'fixedBal': '0', 'rewardBal': '0', 'smtSyncEq': '0', 'spotCopyTradingEq': '0',
            'spotIsoBal': '0',
            'stgyEq': '0', 'twap': '0', 'uTime': now, 'collateralEnabled': False,
        } for asset, (free, locked) in self.exchange.balances(self.name).items() if (asset in wanted if wanted else free or locked)]
        return [_blank(('adjEq', 'borrowFroz', 'imr', 'isoEq', 'mgnRatio', 'mmr', 'notionalUsd', 'notionalUsdForBorrow', 'notionalUsdForFutures',
                        'notionalUsdForOption', 'notionalUsdForSwap', 'ordFroz', 'totalEq', 'upl')) | {'details': rows, 'uTime': now}]

    def trade_fee(self, given: dict) -> list:
        symbol = self.symbol(given) if given.get('instId') else next(iter(self.exchange.rules))
        maker, taker = self.market.of(self.name).rates(symbol)
        return [_blank(('delivery', 'exercise', 'makerU', 'makerUSDC', 'takerU', 'takerUSDC', 'uly')) | {
            'category': '1', 'instType': 'SPOT', 'level': 'Lv1', 'maker': text(-maker), 'taker': text(-taker), 'ts': str(self.exchange.now())}]

    # Orders

    def place(self, given: dict) -> dict: return _each([given], self._place)

    def place_all(self, given: list) -> dict: return _each(given, self._place)

    def cancel(self, given: dict) -> dict: return _each([given], self._cancel)

    def cancel_all(self, given: list) -> dict: return _each(given, self._cancel)

    def _place(self, given: dict) -> OrderState:
        symbol = self.symbol(given)
        for name in ('tdMode', 'side', 'ordType', 'sz'):
            if not given.get(name): raise OkxRefusal('50014', f'Parameter {name} can not be empty.')
        client_id = given.get('clOrdId') or f'okx{len(self.venue.orders) + 1}'
        kind, force = KINDS.get(given['ordType'], (None, None))
        for name, wrong in (('tdMode', given['tdMode'] != 'cash'), ('side', given['side'] not in ('buy', 'sell')), ('ordType', kind is None),
                            ('clOrdId', not client_id.isalnum() or len(client_id) > 32), ('px', (kind == 'limit') != bool(given.get('px')) and kind == 'limit'),
                            # ours sells no coins by their worth
                            ('tgtCcy', kind == 'market' and given['side'] == 'buy' and given.get('tgtCcy') != 'base_ccy')):
            if wrong: raise OkxRefusal('51000', f'Parameter {name} error')
        order = SpotOrder(client_id, symbol, given['side'], kind, _amount(given, 'sz'), _amount(given, 'px') if kind == 'limit' else None,
                          word='MARKET' if kind == 'market' else 'LIMIT', time_in_force=force)
        state = self.exchange.place(order, self.name)
        if state.status == 'REJECTED': raise OkxRefusal(*REFUSALS[state.reason])
        return state

    def _find(self, given: dict, code: str, said: str) -> OrderState:
        symbol = self.symbol(given)
        if not given.get('ordId') and not given.get('clOrdId'): raise OkxRefusal('51003', 'Either client order ID or order ID is required')
        state = self.venue.orders.get(_whole(given, 'ordId', 0)) if given.get('ordId') else self.venue.find(given['clOrdId'])
        if state is None or state.order.symbol != symbol: raise OkxRefusal(code, said)
        return state

    def _cancel(self, given: dict) -> OrderState:
        state = self._find(given, '51400', 'Order cancellation failed as the order has been filled, canceled or does not exist.')
        if state.status == 'FILLED': raise OkxRefusal('51402', 'Order cancellation failed as the order has been completed.')
        if state.done: raise OkxRefusal('51401', 'Order cancellation failed as the order has been canceled.')
        return self.exchange.cancel(state.id, '', self.name)

    def order(self, given: dict) -> list: return [self._row(self._find(given, '51603', 'Order does not exist'))]

    def pending(self, given: dict) -> list: return self._orders(given, lambda state: not state.done)

    def history(self, given: dict) -> list: return self._orders(given, lambda state: state.done)

    def _orders(self, given: dict, chosen: Callable[[OrderState], bool]) -> list:
        "Newest first, by `instId`, `after` and `before` of the order's number, `begin` and `end` of its time."
        symbol = self.symbol(given) if given.get('instId') else None
        older, newer, begin, end = (_whole(given, name, default) for name, default in (('after', 10**18), ('before', -1), ('begin', 0), ('end', 10**15)))
        found = [state for id, state in reversed(self.venue.orders.items())
                 if chosen(state) and symbol in (None, state.order.symbol) and newer < id < older and begin <= state.opened <= end]
        return [self._row(state) for state in found[:min(_whole(given, 'limit', 100), 100)]]

    def _row(self, state: OrderState) -> dict:
        order, last = state.order, state.fills[-1] if state.fills else None
        fees = {asset: sum(fill.fee for fill in fills) for asset, fills in groupby(state.fills, lambda fill: fill.fee_asset)}
        asset, fee = next(iter(fees.items()), (order.symbol.split('/')[order.side == 'sell'], Decimal(0)))
        return _blank(UNUSED_OF_ORDERS) | {
            'accFillSz': text(state.filled), 'attachAlgoOrds': [], 'avgPx': text(state.cost / state.filled) if state.filled else '', 'cTime': str(state.opened),
            'category': 'normal', 'clOrdId': order.client_id, 'fee': text(-fee), 'feeCcy': asset, 'fillPx': text(last.price) if last else '',
            'fillSz': text(last.quantity) if last else '0', 'fillTime': str(last.time) if last else '', 'instId': self.id_of[order.symbol], 'instType': 'SPOT',
            'isTpLimit': 'false', 'linkedAlgoOrd': {'algoId': ''}, 'ordId': str(state.id), 'ordType': _kind(order), 'pnl': '0', 'posSide': 'net',
            'px': text(order.price) if order.price else '', 'rebate': '0', 'rebateCcy': order.symbol.split('/')[order.side == 'buy'], 'reduceOnly': 'false',
            'side': order.side, 'state': STATES[state.status], 'stpMode': 'cancel_maker', 'sz': text(order.quantity), 'tag': '', 'tdMode': 'cash',
            'tgtCcy': 'base_ccy' if order.kind == 'market' else '', 'tradeId': str(last.trade_id) if last else '', 'uTime': str(state.updated)}

    def fills(self, given: dict) -> list:
        "Newest first, by `instId`, `ordId`, `after` and `before` of the bill, `begin` and `end` of the time."
        symbol, order_id = self.symbol(given) if given.get('instId') else None, _whole(given, 'ordId', 0)
        older, newer, begin, end = (_whole(given, name, default) for name, default in (('after', 10**18), ('before', -1), ('begin', 0), ('end', 10**15)))
        found = [fill for fill in reversed(self.venue.trades) if symbol in (None, fill.symbol) and order_id in (0, self.holder.order_of[fill.trade_id])
                 and newer < fill.trade_id < older and begin <= fill.time <= end]
        return [self._fill(fill) for fill in found[:min(_whole(given, 'limit', 100), 100)]]

    def _fill(self, fill: Fill) -> dict:
        return {'instType': 'SPOT', 'instId': self.id_of[fill.symbol], 'tradeId': str(fill.trade_id), 'ordId': str(self.holder.order_of[fill.trade_id]),
                'clOrdId': fill.client_id, 'billId': str(fill.trade_id), 'fillPx': text(fill.price), 'fillSz': text(fill.quantity), 'side': fill.side,
                'execType': 'M' if fill.trade_id in self.venue.makers else 'T', 'feeCcy': fill.fee_asset, 'fee': text(-fill.fee), 'posSide': 'net', 'tag': '',
                'ts': str(fill.time), 'fillTime': str(fill.time)}


def _each(given: object, do: Callable[[dict], OrderState]) -> dict:
    "Each of several orders is answered by itself: all done, all failed (1), or some of them (2)."
    if not isinstance(given, list) or not given or not all(isinstance(each, dict) for each in given): raise OkxRefusal('50002', 'JSON syntax error', 400)
    rows = []
    for each in given:
        answer = {'clOrdId': each.get('clOrdId', ''), 'ordId': '', 'tag': each.get('tag', ''), 'ts': '', 'sCode': '0', 'sMsg': ''}
        try: state = do(each)
        except OkxRefusal as no: rows.append(answer | {'sCode': no.code, 'sMsg': no.text})
        else: rows.append(answer | {'clOrdId': state.order.client_id, 'ordId': str(state.id), 'ts': str(state.updated)})
    failed = sum(row['sCode'] != '0' for row in rows)
    return {'code': '0' if not failed else '1' if failed == len(rows) else '2', 'data': rows, 'msg': '' if not failed else 'All operations failed'}


def _whole(given: dict, name: str, default: int) -> int:
    value = str(given.get(name) or default)
    if not value.removeprefix('-').isdigit(): raise OkxRefusal('51000', f'Parameter {name} error')
    return int(value)


def _amount(given: dict, name: str) -> Decimal:
    try: value = money(given[name])
    except Exception: raise OkxRefusal('51000', f'Parameter {name} error') from None
    if value <= 0: raise OkxRefusal('51000', f'Parameter {name} error')
    return value


def _kind(order: SpotOrder) -> str: return {kind: name for name, kind in KINDS.items()}.get((order.kind, order.time_in_force), 'limit')


# (method, path) → what answers, whether it must be signed
REST = {
    ('GET', '/api/v5/public/time'): (Okx.time, False), ('GET', '/api/v5/public/instruments'): (Okx.instruments, False),
    ('GET', '/api/v5/market/candles'): (Okx.candles, False), ('GET', '/api/v5/market/history-candles'): (Okx.candles, False),
    ('GET', '/api/v5/market/ticker'): (Okx.ticker, False), ('GET', '/api/v5/market/tickers'): (Okx.tickers, False),
    ('GET', '/api/v5/market/books'): (Okx.books, False),
    ('GET', '/api/v5/asset/currencies'): (Okx.currencies, True), ('GET', '/api/v5/account/config'): (Okx.config, True),
    ('GET', '/api/v5/account/balance'): (Okx.balance, True), ('GET', '/api/v5/account/trade-fee'): (Okx.trade_fee, True),
    ('POST', '/api/v5/trade/order'): (Okx.place, True), ('POST', '/api/v5/trade/batch-orders'): (Okx.place_all, True),
    ('POST', '/api/v5/trade/cancel-order'): (Okx.cancel, True), ('POST', '/api/v5/trade/cancel-batch-orders'): (Okx.cancel_all, True),
    ('GET', '/api/v5/trade/order'): (Okx.order, True), ('GET', '/api/v5/trade/orders-pending'): (Okx.pending, True),
    ('GET', '/api/v5/trade/orders-history'): (Okx.history, True), ('GET', '/api/v5/trade/orders-history-archive'): (Okx.history, True),
    ('GET', '/api/v5/trade/fills'): (Okx.fills, True), ('GET', '/api/v5/trade/fills-history'): (Okx.fills, True),
}
