"""The local exchange on a port: REST, market streams, the websocket API, and the requests that only a rehearsal has (`control`)."""
import asyncio
import contextlib
import json
import math
import socket as sockets
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from urllib.parse import parse_qsl

from aiohttp import WSMsgType, web

from production.local_exchange import okx
from production.local_exchange.control import Control, from_elsewhere
from production.local_exchange.exchange import LocalExchange
from production.local_exchange.faults import HTML, Fault, patched
from production.local_exchange.parameters import Refusal
from production.local_exchange.protocol import REST, WEBSOCKET, WEIGHTS, Binance
from trading_lib.core.errors import BadInput, TradingError

QUEUE = 10_000   # events a websocket may lag behind before it is dropped
PING_S = 20.     # between our pings, as Binance's
SUBSCRIPTIONS = ('userDataStream.subscribe.signature', 'userDataStream.unsubscribe')


def dump(value: object) -> str: return json.dumps(value, separators=(',', ':'), default=str)


def cut(transport: asyncio.Transport | None):
    "Break a connection as a lost network does: with a reset, and nothing more."
    if transport is None or transport.is_closing(): return
    with contextlib.suppress(OSError): transport.get_extra_info('socket').setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, struct.pack('ii', 1, 0))
    transport.abort()


def _instead(arg: object) -> tuple[int, str, dict]:
    "Status, body and headers that a fault answers with."
    status, *more = arg if isinstance(arg, list | tuple) else (arg,)
    body, headers = (*more, *('', {})[len(more):])
    return status, body if isinstance(body, str) else dump(body), headers


class Socket:
    "One websocket: what it listens to, and what it has not been sent yet."

    def __init__(self, ws: web.WebSocketResponse, transport: asyncio.Transport | None, combined: bool = False):
        self.ws, self.transport, self.combined = ws, transport, combined
        self.streams: set[str] = set()
        self.user: dict[int, str] = {}                    # subscription id of user data → account
        self.frozen = False
        self.queue: asyncio.Queue[str] = asyncio.Queue(QUEUE)
        self.tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._ping())]

    def send(self, text: str):
        "Queue one message; a reader that is too slow is dropped, as exchanges do."
        if self.frozen: return
        try: self.queue.put_nowait(text)
        except asyncio.QueueFull:
            for task in self.tasks: task.cancel()
            self.closing = asyncio.create_task(self.ws.close(code=1008))

    async def _write(self):
        with contextlib.suppress(ConnectionError):
            while True: await self.ws.send_str(await self.queue.get())

    async def _ping(self):
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(PING_S)
                await self.ws.ping()

    def freeze(self):
        "Half-open from now on: nothing is read, nothing is sent, and the connection stays."
        self.frozen = True
        for task in self.tasks: task.cancel()
        if self.transport: self.transport.pause_reading()

    async def close(self):
        for task in self.tasks: task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Server:
    "The handlers of one exchange."

    def __init__(self, exchange: LocalExchange):
        self.exchange, self.binance, self.okx, self.faults = exchange, Binance(exchange), okx.Okx(exchange), exchange.faults
        self.sockets: set[Socket] = set()
        self.subscriptions = count()
        self.routes = {f'{method} {path}': WEIGHTS.get(f'{method} {path}', WEIGHTS.get(path, 1)) for method, path in REST}
        self.routes |= {' '.join(route): 1 for route in okx.REST}
        self.methods = {method: self.routes[' '.join(route)] for method, route in WEBSOCKET.items()} | dict.fromkeys(SUBSCRIPTIONS, 2)
        self.faults.serve([*self.routes, *(f'WS {method}' for method in self.methods)])
        exchange.listeners.append(self._hear)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._pass])
        for (method, path), (asked, signed) in REST.items():
            app.router.add_route(method, path, self._rest(asked, signed))
        for (method, path), (asked, signed) in okx.REST.items(): app.router.add_route(method, path, self._okx(asked, signed))
        app.add_routes([web.get('/ws', self.market), web.get('/ws/{streams:.*}', self.market), web.get('/stream', self.market),
                        web.get('/ws-api/v3', self.api), *Control(self).routes()])
        if self.exchange.books: app.cleanup_ctx.append(self._playing)
        return app

    # What every request passes

    @web.middleware
    async def _pass(self, request: web.Request, handler) -> web.StreamResponse:
        "Where a faulty network is played: REST requests go through `_faulty`, everything else straight on."
        route = f'{request.method} {request.path}'
        if route not in self.routes: return await self._answered(request, handler)
        await request.read()   # all of it has arrived, whatever comes next
        no, fault = self._met(route, self.routes[route])
        if no and request.path.startswith('/api/v5'): no = no[0], okx.said(*no[:2]), no[2]
        if no is None and fault is None:
            response = await self._answered(request, handler)
            if response.status == 200: self.faults.last[route] = response.body
            response.headers['X-MBX-USED-WEIGHT-1M'] = str(self.faults.used_weight)
            return response
        async def do() -> tuple[int, str, dict]:
            response = await self._answered(request, handler)
            return response.status, response.text, {}
        answer = (*no, True) if no else await self._faulty(fault, route, do)
        if answer is None:
            cut(request.transport)
            return web.Response()
        status, text, headers, whole = answer
        if whole: return web.Response(text=text, status=status, content_type='text/html' if text.startswith('<') else 'application/json',
                                      headers={'X-MBX-USED-WEIGHT-1M': str(self.faults.used_weight)} | headers)
        response = web.StreamResponse(status=status, headers={'Content-Length': str(len(text.encode())), 'Content-Type': 'application/json'})
        await response.prepare(request)
        await response.write(text.encode()[:len(text.encode()) // 2])
        request.transport.close()
        return response

    async def _answered(self, request: web.Request, handler) -> web.StreamResponse:
        "The answer of a handler; errors become Binance's."
        if request.path.startswith('/control') and from_elsewhere(request):
            return web.json_response({'msg': 'not from the page of another site'}, status=403)
        try: return await handler(request)
        except Refusal as no: return web.json_response(no.body, status=no.status, dumps=dump)
        except BadInput as bad:
            return web.json_response({'code': -1000, 'msg': str(bad)}, status=400 if request.path.startswith('/control') else 500, dumps=dump)
        except web.HTTPNotFound:
            return web.json_response({'code': -1000, 'msg': f'{request.method} {request.path} is not served here.'}, status=404, dumps=dump)

    def _met(self, route: str, weight: int) -> tuple[tuple[int, str, dict] | None, Fault | None]:
        "What a request meets: a venue that answers nobody now, or a fault of its own."
        no = self._not_now(weight)
        return no, None if no else self.faults.strike(route)

    async def _faulty(self, fault: Fault, route: str, do: Callable[[], Awaitable[tuple[int, str, dict]]]) -> tuple[int, str, dict, bool] | None:
        "Status, text, headers, and whether all of it arrives; None where the connection breaks."
        if (told := await self._before(fault)) is not True: return told
        earlier = self.faults.last.get(route, b'')
        status, text, headers = await do()
        if status == 200: self.faults.last[route] = text.encode()
        return await self._after(fault, earlier.decode(), status, text, headers)

    async def _before(self, fault: Fault) -> tuple[int, str, dict, bool] | None | bool:
        "What happens on the way there: True if the request arrives."
        if fault.kind == 'lose_request': return None
        if fault.kind == 'delay': await asyncio.sleep(fault.arg)
        return (*_instead(fault.arg), True) if fault.kind == 'http' else True

    async def _after(self, fault: Fault, earlier: str, status: int, text: str, headers: dict) -> tuple[int, str, dict, bool] | None:
        "What happens on the way back."
        match fault.kind:
            case 'lose_response': return None
            case 'delay_after': await asyncio.sleep(fault.arg)
            case 'truncate': return status, text, headers, False
            case 'http_after': return *_instead(fault.arg), True
            case 'garbage': return 200, HTML if fault.arg is None else fault.arg, {}, True
            case 'stale': return 200, earlier, {}, True
            case 'patch' | 'rows' if status == 200: return status, patched(fault, text), headers, True
        return status, text, headers, True

    def _not_now(self, weight: int) -> tuple[int, str, dict] | None:
        "A ban, too much weight, or maintenance."
        venue, now = self.faults.venue, self.binance.now()
        if venue.banned_until > now:
            said = f'Way too much request weight used; IP banned until {venue.banned_until}. Please use WebSocket Streams for live updates to avoid bans.'
            return 418, dump({'code': -1003, 'msg': said}), {'Retry-After': str(math.ceil((venue.banned_until - now) / 1000))}
        if wait := self.faults.weigh(weight, asyncio.get_running_loop().time()):
            said = (f'Too much request weight used; current limit is {venue.weight_limit} request weight per 1 MINUTE. '
                    'Please use WebSocket Streams to avoid polling the API.')
            return 429, dump({'code': -1003, 'msg': said}), {'Retry-After': str(math.ceil(wait))}
        if venue.maintenance:
            said = 'Server is currently overloaded with other requests. Please try again in a few minutes.'
            return 503, dump({'code': -1008, 'msg': said}), {}

    # REST

    def _rest(self, asked, signed: bool):
        async def handle(request: web.Request) -> web.Response:
            query, body = request.raw_path.partition('?')[2], await request.text()
            given = dict(parse_qsl(query) + parse_qsl(body))
            payload = ''.join('&'.join(part for part in text.split('&') if not part.startswith('signature=')) for text in (query, body))
            who = self.binance.check(given, payload, request.headers.get('X-MBX-APIKEY'), signed)
            result = asked(who, given)
            return web.Response(text=result if isinstance(result, str) else dump(result), content_type='application/json')
        return handle

    def _okx(self, asked, signed: bool):
        async def handle(request: web.Request) -> web.Response:
            body = await request.text()
            try:
                try: given = json.loads(body) if body else dict(request.query)
                except ValueError: raise okx.OkxRefusal('50002', 'JSON syntax error', 400) from None
                who = self.okx.check(request.method, request.raw_path, body, request.headers) if signed else self.okx
                answer = asked(who, given)
            except okx.OkxRefusal as no: return web.json_response(no.body, status=no.status, dumps=dump)
            return web.json_response(answer if isinstance(answer, dict) else {'code': '0', 'data': answer, 'msg': ''}, dumps=dump)
        return handle

    # Websockets

    async def _socket(self, request: web.Request, combined: bool = False) -> AsyncIterator[tuple[Socket, dict]]:
        "Messages of one websocket, parsed, for as long as it lives."
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        socket = Socket(ws, request.transport, combined)
        self.sockets.add(socket)
        try:
            yield socket, {}
            async for message in ws:
                if message.type != WSMsgType.TEXT: continue
                try: asked = json.loads(message.data)
                except ValueError: asked = None
                if isinstance(asked, dict): yield socket, asked
                else: socket.send(dump({'code': 3, 'msg': 'Invalid JSON: expected an object'}))
        finally:
            self.sockets.discard(socket)
            await socket.close()

    async def market(self, request: web.Request) -> web.WebSocketResponse:
        "Market streams: named in the address, or by SUBSCRIBE."
        named = request.match_info.get('streams') or request.query.get('streams', '')
        async with contextlib.aclosing(self._socket(request, request.path == '/stream')) as messages:
            async for socket, asked in messages:
                if not asked: socket.streams |= {name for name in named.split('/') if '@' in name}
                elif asked.get('method') in ('SUBSCRIBE', 'UNSUBSCRIBE'):
                    names = set(asked.get('params') or ())
                    socket.streams = socket.streams | names if asked['method'] == 'SUBSCRIBE' else socket.streams - names
                    socket.send(dump({'result': None, 'id': asked.get('id')}))
                elif asked.get('method') == 'LIST_SUBSCRIPTIONS': socket.send(dump({'result': sorted(socket.streams), 'id': asked.get('id')}))
                else: socket.send(dump({'error': {'code': 1, 'msg': f'Unknown method {asked.get("method")}'}, 'id': asked.get('id')}))
        return socket.ws

    async def api(self, request: web.Request) -> web.WebSocketResponse:
        "The websocket API: the requests of REST, and the account's own events."
        async with contextlib.aclosing(self._socket(request)) as messages:
            async for socket, asked in messages:
                if asked: await self._told(socket, asked)
        return socket.ws

    async def _told(self, socket: Socket, asked: dict):
        "Answer one request of the websocket API, over the same faulty network."
        method, params = asked.get('method'), asked.get('params') or {}
        async def do() -> tuple[int, str, dict]:
            status, answer = self._ask(socket, method, params)
            return status, dump(answer), {}
        no, fault = self._met(f'WS {method}', self.methods[method]) if method in self.methods else (None, None)
        answer = (*no, True) if no else (*await do(), True) if fault is None else await self._faulty(fault, f'WS {method}', do)
        if answer is None: return cut(socket.transport)
        status, text, _, whole = answer
        if fault is None and status == 200: self.faults.last[f'WS {method}'] = text.encode()
        said = text if text.startswith(('{', '[')) else dump(text)
        message = f'{{"id":{dump(asked.get("id"))},"status":{status},"{"result" if status == 200 else "error"}":{said},"rateLimits":[]}}'
        if text.startswith('<'): message = text
        socket.send(message if whole else message[:len(message) // 2])

    def _ask(self, socket: Socket, method: str, params: dict) -> tuple[int, dict | list]:
        "The status and the answer to one request of the websocket API."
        given = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in params.items()}
        payload = '&'.join(f'{name}={given[name]}' for name in sorted(given) if name != 'signature')
        try:
            if method == 'userDataStream.subscribe.signature':
                who = self.binance.check(given, payload, given.get('apiKey'))
                socket.user[number := next(self.subscriptions)] = who.name
                return 200, {'subscriptionId': number}
            if method == 'userDataStream.unsubscribe':
                socket.user = {number: name for number, name in socket.user.items() if str(number) != given.get('subscriptionId', str(number))}
                return 200, {}
            if method not in WEBSOCKET: raise Refusal(-1000, f'Unknown method {method}')
            asked, signed = REST[WEBSOCKET[method]]
            result = asked(self.binance.check(given, payload, given.get('apiKey'), signed), given)
            return 200, json.loads(result) if isinstance(result, str) else result
        except Refusal as no: return no.status, no.body
        except TradingError as error: return 500, {'code': -1000, 'msg': str(error)}

    # What is told without being asked

    def _hear(self, what: str, *about: object):
        "Pass on what happened at the venue to whoever listens."
        if what == 'bar': return self._hear_bar(*about)
        *about, account = about
        if not any(account in socket.user.values() for socket in self.sockets) or self.faults.mutes('user'): return
        who = self.binance.of(account)
        events = {'order': who.order_events, 'balance': who.balance_events, 'list': who.list_events}[what]
        for event in events(*about, account) if what == 'order' else events(*about):
            for text in self.faults.passed(dump(event), event.get('x') == 'TRADE'): self._tell_user(account, text)

    def _tell_user(self, account: str, text: str):
        for socket in self.sockets:
            for number, name in socket.user.items():
                if name == account: socket.send(f'{{"subscriptionId":{number},"event":{text}}}')

    def _hear_bar(self, symbol: str, at: int):
        stream = f'{self.binance.id_of[symbol].lower()}@kline_{self.exchange.timeframe}'
        listening = [] if self.faults.mutes(stream) else [socket for socket in self.sockets if stream in socket.streams]
        for event in self.binance.bar_events(symbol, at) if listening else (): self._tell_market(listening, stream, dump(event))

    def _tell_market(self, listening: list[Socket], stream: str, text: str):
        for socket in listening: socket.send(f'{{"stream":"{stream}","data":{text}}}' if socket.combined else text)

    async def _playing(self, app: web.Application):
        task = asyncio.create_task(self._play_books())
        yield
        task.cancel()

    async def _play_books(self):
        "Send the changes of recorded books when they are due."
        books, binance = self.exchange.books, self.binance
        sent = {symbol: book.upto(self.exchange.now()) for symbol, book in books.items()}
        while True:
            await asyncio.sleep(.1)
            for symbol, book in books.items():
                name, due = f'{binance.id_of[symbol].lower()}@depth', book.upto(self.exchange.now())
                for stream in (name, f'{name}@100ms'):
                    listening = [] if self.faults.mutes(stream) else [socket for socket in self.sockets if stream in socket.streams]
                    for change in book.changes[sent[symbol]:due] if listening else (): self._tell_market(listening, stream, dump(change))
                sent[symbol] = due

    # What may befall a websocket

    async def drop(self, code: int):
        "Close every websocket; 1006 is a connection that breaks without a word."
        for socket in list(self.sockets):
            if code == 1006: cut(socket.transport)
            else: await socket.ws.close(code=code)

    def freeze(self):
        for socket in self.sockets: socket.freeze()

    def flood(self, messages: int):
        "So many messages at once on every stream of bars that is listened to: the forming bar, again and again."
        for socket in self.sockets:
            for stream in sorted(socket.streams):
                symbol = self.exchange.ids.get(stream.split('@')[0].upper())
                if symbol is None or not stream.endswith(f'@kline_{self.exchange.timeframe}') or self.faults.mutes(stream): continue
                text = dump(self.binance.kline_event(symbol, self.exchange.visible(symbol)[0] - 1, self.exchange.visible(symbol)[1]))
                for _ in range(messages): self._tell_market([socket], stream, text)

    def end_user_streams(self):
        "The venue ends every subscription to user data, and says so."
        event = dump({'e': 'eventStreamTerminated', 'E': self.binance.now()})
        for account in self.exchange.accounts: self._tell_user(account, event)
        for socket in self.sockets: socket.user.clear()


@contextlib.asynccontextmanager
async def served(exchange: LocalExchange, host: str = '127.0.0.1', port: int = 0) -> AsyncIterator[str]:
    "The exchange on a port, for as long as the block runs; gives its address. Port 0 is any free one."
    runner = web.AppRunner(Server(exchange).app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try: await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise BadInput(f'{host}:{port} cannot be used ({error.strerror or error}); choose another with --port, 0 for any free one') from None
        yield f'http://{host}:{runner.addresses[0][1]}'
    finally:
        await runner.cleanup()
        exchange.close()


async def serve(
    exchange: LocalExchange,
    host: str = '127.0.0.1',
    port: int = 8090,
    bars_per_s: float | None = None,      # releases bars by itself at this pace; None waits for /control/release
    ready: asyncio.Future | None = None,  # gets the address
):
    "Serve until cancelled."
    async with served(exchange, host, port) as address:
        if ready: ready.set_result(address)
        while bars_per_s and not exchange.done:
            await asyncio.sleep(1 / bars_per_s)
            exchange.step()
        await asyncio.Event().wait()
