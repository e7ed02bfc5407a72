"""The hand on a local exchange: faults, the venue's fields, and a page to press them from. Only a rehearsal has this; no venue does."""
import json
from urllib.parse import urlsplit

from aiohttp import web

from production.local_exchange import changes
from production.local_exchange.faults import AILMENTS, KINDS, Faults
from production.local_exchange.page import PAGE
from production.local_exchange.parameters import REFUSALS, status, type_of
from production.local_exchange.venue import SpotOrder
from trading_lib.core.errors import BadInput, did_you_mean
from trading_lib.core.money import money

ACTS = ('trade', 'cancel', 'drop_ws', 'freeze_ws', 'end_user_stream', 'user_events', 'flood')   # beside `AILMENTS` and `changes.CHANGES`
SHOWN = 30               # orders and trades on the page


class Control:
    "The requests of a person, or of a test in another process."

    def __init__(self, server):
        self.server, self.exchange = server, server.exchange

    @property
    def faults(self) -> Faults: return self.exchange.faults

    def routes(self) -> list[web.RouteDef]:
        return [web.get('/', self.page), web.post('/control/release', self.release), web.get('/control/state', self.state),
                web.get('/control/overview', self.overview), web.get('/control/faults', self.set), web.post('/control/faults', self.add),
                web.post('/control/venue', self.venue)]

    async def page(self, request: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type='text/html', headers={
            'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"})

    async def release(self, request: web.Request) -> web.Response:
        "The bar that opens at `through` is settled; close the next. Calling twice does nothing."
        given = await _asked(request)
        if not isinstance(given, dict) or not isinstance(given.get('through'), int):
            raise BadInput('release needs {"through": open time of the settled bar in epoch ms}')
        moved = self.exchange.release(given['through'])
        exchange = self.exchange
        return web.json_response(dict(moved=moved, current=exchange.times[exchange.current], done=exchange.done, time=exchange.now()))

    async def state(self, request: web.Request) -> web.Response: return web.json_response(self.exchange.state())

    async def set(self, request: web.Request) -> web.Response: return web.json_response(self.faults.json())

    async def add(self, request: web.Request) -> web.Response:
        "Set faults, a list; or clear them, with {}."
        self.faults.read(await _asked(request))
        return web.json_response(self.faults.json())

    async def venue(self, request: web.Request) -> web.Response:
        "Set fields of the venue, change its books, or have it do something; all of it is checked before any of it is done."
        given = await _asked(request)
        if not isinstance(given, dict) or not given:
            raise BadInput(f'the venue is given an object of fields; there are {", ".join((*AILMENTS, *changes.CHANGES, *ACTS))}')
        name = given.pop('account', 'main')
        account = self.exchange.account(name)
        for what, value in given.items():
            if what in changes.CHANGES: changes.checked(self.exchange, account, what, value)
            elif what in ACTS: _check_act(what, value)
            elif what in AILMENTS: self.faults.check_ailment(what, value)
            else: raise BadInput(f'there is no field {what}{did_you_mean(what, (*AILMENTS, *changes.CHANGES, *ACTS))}')
        for what, value in given.items():
            if what in changes.CHANGES: self.exchange.change(what, value, name)
            elif what in AILMENTS: self.faults.ail(**{what: value})
            else: await self._act(what, value, name)
        return web.json_response(dict(done=sorted(given)))

    async def _act(self, what: str, value: object, account: str):
        match what:
            case 'trade': self._trade(value, account)
            case 'cancel': self._cancel(value, account)
            case 'flood': self.server.flood(value)
            case 'drop_ws': await self.server.drop(value)
            case 'freeze_ws': self.server.freeze()
            case 'end_user_stream': self.server.end_user_streams()
            case 'user_events': self.faults.events.extend(value)

    def _trade(self, given: dict, account: str):
        "An order that no program of ours has sent, named as those of Binance's own site are."
        symbol, quantity = changes.market(self.exchange, given['symbol']), money(given['quantity'])
        price = money(given['price']) if given.get('price') else None
        number = len(self.exchange.account(account).venue.orders) + 1
        order = SpotOrder(f'web_{number}', symbol, given['side'], 'limit' if price else 'market', quantity, price)
        state = self.exchange.place(order, account)
        if state.status == 'REJECTED': raise BadInput(f'{given["side"]} {quantity} {symbol} was refused: {REFUSALS[state.reason][1]}')

    def _cancel(self, client_id: str, account: str):
        "As the owner may on the venue's own site."
        state = self.exchange.account(account).venue.find(client_id)
        if state is None or state.done: raise BadInput(f'there is no open order {client_id}{did_you_mean(client_id, self._open(account))}')
        self.exchange.cancel(state.id, f'web_{state.id}', account)

    def _open(self, account: str) -> list[str]:
        venue = self.exchange.account(account).venue
        return [venue.orders[id].order.client_id for ids in venue.resting.values() for id in ids]

    async def overview(self, request: web.Request) -> web.Response:
        "Everything that the page shows."
        exchange = self.exchange
        return web.json_response(exchange.state() | dict(
            markets=[self._market(symbol) for symbol in exchange.tapes], kinds=KINDS, routes=sorted(self.faults.routes), faults=self.faults.json(),
            accounts=[self._account(name) for name in exchange.accounts], sockets=len(self.server.sockets), halted=sorted(exchange.venue.halted),
            max_fill=None if exchange.venue.max_fill is None else str(exchange.venue.max_fill)))

    def _market(self, symbol: str) -> dict:
        rules = self.exchange.rules[symbol]
        return dict(symbol=symbol, price=str(self.server.binance.price(symbol)), open=symbol in self.exchange.venue.prices,
                    halted=symbol in self.exchange.venue.halted,
                    **{name: str(getattr(rules, name)) for name in changes.FILTERS})

    def _account(self, name: str) -> dict:
        account = self.exchange.accounts[name]
        venue = account.venue
        resting = [venue.orders[id] for ids in venue.resting.values() for id in ids]
        row = lambda state: dict(id=state.id, client_id=state.order.client_id, symbol=state.order.symbol, side=state.order.side, type=type_of(state.order),
                                 quantity=str(state.order.quantity), filled=str(state.filled), price=str(state.order.price or state.order.limit or ''),
                                 stop_price=str(state.order.stop_price or ''), status=status(state))
        balances = [dict(asset=asset, free=str(free), locked=str(locked)) for asset, (free, locked) in self.exchange.balances(name).items()]
        return dict(name=name, balances=balances,
                    orders=len(venue.orders), open_orders=[row(state) for state in resting[-SHOWN:]], resting=len(resting),
                    trades=[dict(id=fill.trade_id, time=fill.time, symbol=fill.symbol, side=fill.side, quantity=str(fill.quantity), price=str(fill.price),
                                 fee=str(fill.fee), fee_asset=fill.fee_asset, client_id=fill.client_id) for fill in venue.trades[:-SHOWN - 1:-1]])


def from_elsewhere(request: web.Request) -> bool:
    "Was this sent by a page of another site? A browser says where a page came from; nothing else does."
    origin = request.headers.get('Origin')
    return origin is not None and urlsplit(origin).netloc != request.host


async def _asked(request: web.Request) -> object:
    try: return json.loads(await request.text())
    except ValueError: raise BadInput(f'{request.path} is asked in JSON') from None


def _check_act(what: str, value: object):
    if what == 'trade':
        if not isinstance(value, dict) or not {'symbol', 'side', 'quantity'} <= value.keys() or value.keys() - {'symbol', 'side', 'quantity', 'price'}:
            raise BadInput(f'trade was {value!r}; it is {{"symbol", "side", "quantity"}}, and a "price" for a limit order')
    elif what == 'user_events':
        if not isinstance(value, list) or not value or set(map(str, value)) - {'drop', 'repeat', 'hold'}:
            raise BadInput(f'user_events was {value!r}; it is a list of drop, repeat and hold')
    elif what == 'cancel':
        if not isinstance(value, str): raise BadInput(f'cancel was {value!r}; it is the client id of an open order')
    elif what == 'flood':
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 100_000:
            raise BadInput(f'flood was {value!r}; it is a number of messages to 100000')
    elif what == 'drop_ws':
        if isinstance(value, bool) or not isinstance(value, int) or not 1000 <= value < 5000:
            raise BadInput(f'drop_ws was {value!r}; it is a close code from 1000, 1006 for none at all')
    elif value is not True: raise BadInput(f'{what} was {value!r}; it is true')
