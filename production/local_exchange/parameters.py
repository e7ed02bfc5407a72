"""Binance's words for single values: numbers and parameters as it writes and reads them, and its refusals."""
import re
from decimal import Decimal

import numpy as np

from production.local_exchange.venue import SpotOrder, Venue, trail_start
from trading_lib.core.errors import Rejected
from trading_lib.execution.orders import Order, OrderState

# type → our kind, and whether it needs a price, a time in force, and a stop
KINDS = {
    'LIMIT': ('limit', True, True, False), 'LIMIT_MAKER': ('limit', True, False, False), 'MARKET': ('market', False, False, False),
    'STOP_LOSS': ('stop', False, False, True), 'STOP_LOSS_LIMIT': ('stop', True, True, True),
    'TAKE_PROFIT': ('take_profit', False, False, True), 'TAKE_PROFIT_LIMIT': ('take_profit', True, True, True),
}
TYPES = {'limit': 'LIMIT', 'market': 'MARKET', 'stop': 'STOP_LOSS', 'take_profit': 'TAKE_PROFIT'}
TRAILS = range(10, 2001)   # basis points, as the filter TRAILING_DELTA has them
REFUSALS = {
    'MARKET_CLOSED': (-1013, 'Market is closed.'),
    'PRICE_FILTER': (-1013, 'Filter failure: PRICE_FILTER'),
    'LOT_SIZE': (-1013, 'Filter failure: LOT_SIZE'),
    'NOTIONAL': (-1013, 'Filter failure: NOTIONAL'),
    'TRAILING_DELTA': (-1013, 'Filter failure: TRAILING_DELTA'),
    'DUPLICATE': (-2010, 'Duplicate order sent.'),
    'WOULD_TRIGGER': (-2010, 'Stop price would trigger immediately.'),
    'WOULD_TAKE': (-2010, 'Order would immediately match and take.'),
    'PRICES': (-2010, 'The relationship of the prices for the orders is not correct.'),
    'INSUFFICIENT_BALANCE': (-2010, 'Account has insufficient balance for requested action.'),
}


class Refusal(Rejected):
    "An error answer: HTTP status, Binance's code, Binance's text."

    def __init__(self, code: int, text: str, status: int = 400, data: dict | None = None):
        super().__init__(f'{code} {text}')
        self.code, self.text, self.status, self.data = code, text, status, data

    @property
    def body(self) -> dict: return {'code': self.code, 'msg': self.text} | ({'data': self.data} if self.data else {})


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


def client_id_of(given: dict, name: str, ours: str) -> str:
    "The id that the caller gave, or one of ours."
    legal = '^[a-zA-Z0-9-_]{1,36}$'
    client_id = given.get(name) or ours
    if not re.match(legal, client_id): raise Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")
    return client_id


# Orders

def read_order(given: dict, symbol: str, client_id: str, venue: Venue, group: str | None = None) -> SpotOrder:
    "The order that the parameters describe; raises `Refusal` for those that do not fit together."
    for name in ('side', 'type'):
        if not given.get(name): raise missing(name)
    if given['side'] not in ('BUY', 'SELL'): raise Refusal(-1117, 'Invalid side.')
    if given['type'] not in KINDS: raise Refusal(-1116, 'Invalid orderType.')
    if given.get('quoteOrderQty'): raise Refusal(-2010, 'Quote order qty market orders are not support for this symbol.')
    kind, priced, timed, stopped = KINDS[given['type']]
    _only(given, priced, timed, stopped)
    if timed and given['timeInForce'] not in ('GTC', 'IOC', 'FOK'): raise Refusal(-1115, 'Invalid timeInForce.')
    side, quantity, price = given['side'].lower(), number(given, 'quantity'), number(given, 'price') if priced else None
    stop = number(given, 'stopPrice') if given.get('stopPrice') else None
    trail, delayed = _trail(given) if stopped else None, stop is not None
    if trail and not delayed: kind, stop = 'stop', _first_stop(venue, symbol, side, trail)
    force = 'POST_ONLY' if given['type'] == 'LIMIT_MAKER' else given.get('timeInForce') or 'GTC'
    return SpotOrder(client_id, symbol, side, kind, quantity, None if stopped else price, stop, group, given['type'], force,
                     price if stopped else None, trail, bool(trail and delayed))


def _only(given: dict, priced: bool, timed: bool, stopped: bool):
    "What a type needs is there, and nothing that it has no use for."
    for name, wanted in (('timeInForce', timed), ('price', priced)):
        if wanted and not given.get(name): raise missing(name)
    if stopped and not given.get('stopPrice') and not given.get('trailingDelta'):
        raise Refusal(-1102, "Param 'stopPrice' or 'trailingDelta' must be sent, but both were empty/null!")
    for name, wanted in (('timeInForce', timed), ('price', priced), ('stopPrice', stopped), ('trailingDelta', stopped)):
        if given.get(name) and not wanted: raise Refusal(-1106, f"Parameter '{name}' sent when not required.")


def _trail(given: dict) -> Decimal | None:
    points = whole(given, 'trailingDelta')
    if points is None: return None
    if points not in TRAILS: raise Refusal(*REFUSALS['TRAILING_DELTA'])
    return Decimal(points) / 10_000


def _first_stop(venue: Venue, symbol: str, side: str, trail: Decimal) -> Decimal:
    if symbol not in venue.prices: raise Refusal(*REFUSALS['MARKET_CLOSED'])
    return trail_start(venue.prices[symbol], side, trail, venue.rules[symbol].tick)


def status(state: OrderState) -> str:
    "Binance's word for where an order stands."
    return 'NEW' if state.status == 'OPEN' else 'EXPIRED' if state.reason == 'GROUP' else state.status


def type_of(order: Order) -> str: return getattr(order, 'word', '') or TYPES[order.kind]


def figures(state: OrderState) -> dict:
    "The numbers and words that every answer about an order has."
    order = state.order
    found = {'price': amount(order.price or order.limit or Decimal(0)), 'origQty': amount(order.quantity), 'executedQty': amount(Decimal(state.filled)),
             'origQuoteOrderQty': '0.00000000', 'cummulativeQuoteQty': amount(Decimal(state.cost)), 'status': status(state),
             'timeInForce': force(order), 'type': type_of(order), 'side': order.side.upper()}
    if order.stop_price and (order.trail is None or order.delayed): found['stopPrice'] = amount(order.stop_price)
    return found | ({'trailingDelta': int(order.trail * 10_000), 'trailingTime': -1 if order.delayed else state.opened} if order.trail else {})


def force(order: SpotOrder) -> str: return 'GTC' if order.time_in_force == 'POST_ONLY' else order.time_in_force
