"""The local exchange on a port: REST, market streams, the websocket API, and two requests that only a rehearsal has (`/control`)."""
import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from itertools import count
from urllib.parse import parse_qsl

from aiohttp import WSMsgType, web

from production.local_exchange.exchange import LocalExchange
from production.local_exchange.protocol import REST, WEBSOCKET, Binance, Refusal
from trading_lib.core.errors import BadInput, TradingError

QUEUE = 10_000   # events a websocket may lag behind before it is dropped


def dump(value: object) -> str: return json.dumps(value, separators=(',', ':'))


@web.middleware
async def answer(request: web.Request, handler) -> web.StreamResponse:
    "Every request passes here: errors become Binance's, and a faulty network would be played here."
    try: return await handler(request)
    except Refusal as no: return web.json_response(no.body, status=no.status, dumps=dump)
    except BadInput as bad: return web.json_response({'code': -1000, 'msg': str(bad)}, status=500 if request.path.startswith('/api') else 400, dumps=dump)
    except web.HTTPNotFound: return web.json_response({'code': -1000, 'msg': f'{request.method} {request.path} is not served here.'}, status=404, dumps=dump)


class Socket:
    "One websocket: what it listens to, and what it has not been sent yet."

    def __init__(self, ws: web.WebSocketResponse, combined: bool = False):
        self.ws, self.combined = ws, combined
        self.streams: set[str] = set()
        self.user: set[int] = set()                       # subscription ids of user data
        self.queue: asyncio.Queue[str] = asyncio.Queue(QUEUE)
        self.writer = asyncio.create_task(self._write())

    def send(self, text: str):
        "Queue one message; a reader that is too slow is dropped, as exchanges do."
        try: self.queue.put_nowait(text)
        except asyncio.QueueFull:
            self.writer.cancel()
            self.closing = asyncio.create_task(self.ws.close(code=1008))

    async def _write(self):
        with contextlib.suppress(ConnectionError):
            while True: await self.ws.send_str(await self.queue.get())

    async def close(self):
        self.writer.cancel()
        with contextlib.suppress(asyncio.CancelledError): await self.writer


class Server:
    "The handlers of one exchange."

    def __init__(self, exchange: LocalExchange):
        self.exchange, self.binance = exchange, Binance(exchange)
        self.sockets: set[Socket] = set()
        self.subscriptions = count()
        exchange.listeners.append(self._hear)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[answer])
        for (method, path), (asked, signed) in REST.items():
            app.router.add_route(method, path, self._rest(asked, signed))
        app.add_routes([web.get('/ws', self.market), web.get('/ws/{streams:.*}', self.market), web.get('/stream', self.market),
                        web.get('/ws-api/v3', self.api), web.post('/control/release', self.release), web.get('/control/state', self.state)])
        return app

    # REST

    def _rest(self, asked, signed: bool):
        async def handle(request: web.Request) -> web.Response:
            query, body = request.raw_path.partition('?')[2], await request.text() if request.can_read_body else ''
            given = dict(parse_qsl(query) + parse_qsl(body))
            payload = ''.join('&'.join(part for part in text.split('&') if not part.startswith('signature=')) for text in (query, body))
            self.binance.check(given, payload, request.headers.get('X-MBX-APIKEY'), signed)
            result = asked(self.binance, given)
            return web.Response(text=result if isinstance(result, str) else dump(result), content_type='application/json')
        return handle

    async def release(self, request: web.Request) -> web.Response:
        "The bar that opens at `through` is settled; close the next. Calling twice does nothing."
        try: given = json.loads(await request.text())
        except ValueError: given = None
        if not isinstance(given, dict) or not isinstance(given.get('through'), int):
            raise BadInput('release needs {"through": open time of the settled bar in epoch ms}')
        moved = self.exchange.release(given['through'])
        exchange = self.exchange
        return web.json_response(dict(moved=moved, current=exchange.times[exchange.current], done=exchange.done, time=exchange.now()))

    async def state(self, request: web.Request) -> web.Response: return web.json_response(self.exchange.state())

    # Websockets

    async def _socket(self, request: web.Request, combined: bool = False) -> AsyncIterator[tuple[Socket, dict]]:
        "Messages of one websocket, parsed, for as long as it lives."
        ws = web.WebSocketResponse(heartbeat=20)
        await ws.prepare(request)
        socket = Socket(ws, combined)
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
                if asked: socket.send(dump({'id': asked.get('id'), **self._ask(socket, asked.get('method'), asked.get('params') or {})}))
        return socket.ws

    def _ask(self, socket: Socket, method: str, params: dict) -> dict:
        "Answer one request of the websocket API."
        given = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in params.items()}
        payload = '&'.join(f'{name}={given[name]}' for name in sorted(given) if name != 'signature')
        try:
            if method == 'userDataStream.subscribe.signature':
                self.binance.check(given, payload, given.get('apiKey'))
                socket.user.add(number := next(self.subscriptions))
                result = {'subscriptionId': number}
            elif method == 'userDataStream.unsubscribe':
                socket.user = {number for number in socket.user if str(number) != given.get('subscriptionId', str(number))}
                result = {}
            elif method in WEBSOCKET:
                asked, signed = REST[WEBSOCKET[method]]
                self.binance.check(given, payload, given.get('apiKey'), signed)
                result = asked(self.binance, given)
                result = json.loads(result) if isinstance(result, str) else result
            else: raise Refusal(-1000, f'Unknown method {method}')
        except Refusal as no: return {'status': no.status, 'error': no.body, 'rateLimits': []}
        except TradingError as error: return {'status': 500, 'error': {'code': -1000, 'msg': str(error)}, 'rateLimits': []}
        return {'status': 200, 'result': result, 'rateLimits': []}

    def _hear(self, what: str, *about: object):
        "Pass on what happened at the venue to whoever listens."
        if what == 'order' and any(socket.user for socket in self.sockets):
            for event in self.binance.order_events(*about):
                for socket in self.sockets:
                    for number in socket.user: socket.send(dump({'subscriptionId': number, 'event': event}))
        if what == 'bar':
            stream = f'{self.binance.id_of[about[0]].lower()}@kline_{self.exchange.timeframe}'
            listening = [socket for socket in self.sockets if stream in socket.streams]
            for event in self.binance.bar_events(*about) if listening else ():
                text = dump(event)
                for socket in listening: socket.send(f'{{"stream":"{stream}","data":{text}}}' if socket.combined else text)


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
