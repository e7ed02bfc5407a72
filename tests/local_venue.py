"""What the tests of trading share: a few bars, a gateway to the local exchange, and a wire that fails on demand."""
import os
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import aiohttp
import numpy as np
import pandas as pd
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from production.gateway import Gateway, connect
from production.local_exchange.client import rewire
from production.local_exchange.exchange import LocalExchange
from production.local_exchange.server import served
from trading_lib.market.bars import Sample

HOUR = 3_600_000
POSTGRES = os.environ.get('TRADING_TEST_POSTGRES', 'postgresql+psycopg://postgres@127.0.0.1:5432/test')


@contextmanager
def postgres() -> Iterator[str]:
    "The address of an empty schema; the test is skipped where there is no server."
    try: server = create_engine(POSTGRES, connect_args={'connect_timeout': 2}, isolation_level='AUTOCOMMIT').connect()
    except OperationalError as error: pytest.skip(f'no PostgreSQL at {POSTGRES} (name one with TRADING_TEST_POSTGRES): {str(error).splitlines()[0]}')
    schema = f'journal_{uuid4().hex[:12]}'
    server.execute(text(f'create schema {schema}'))
    try: yield f'{POSTGRES}?options=-csearch_path%3D{schema}'
    finally:
        server.execute(text(f'drop schema {schema} cascade'))
        server.close()


def sample(bars: int = 64, seed: int = 3) -> Sample:
    "Hourly bars that go up and down often enough to be traded."
    rng = np.random.default_rng(seed)
    close = np.round(30_000 * np.exp(np.cumsum(rng.normal(0, .01, bars)) + .06 * np.sin(np.arange(bars) / 1.5)), 2)
    opened = np.round(np.r_[30_000, close[:-1]] * (1 + rng.normal(0, .0005, bars)), 2)
    high, low = np.maximum(opened, close) + 1, np.minimum(opened, close) - 1
    times = pd.date_range('2024-01-01', periods=bars, freq='h', tz='UTC', name='time').as_unit('ns')
    return Sample(pd.DataFrame(dict(open=opened, high=high, low=low, close=close, volume=100.), times), 'BTC/USDT', '1h', 'made up', synthetic=True)


@dataclass
class Wire:
    "The client's session, with faults: `faults` is a list of (method, part of the path, kind), each used once, in order of appearance."
    session: object
    faults: list[tuple[str, str, object]] = field(default_factory=list)
    sent: list[tuple[str, str, str]] = field(default_factory=list)

    def __getattr__(self, name): return getattr(self.session, name)
    def get(self, url, **how): return self._ask('get', url, how)
    def post(self, url, **how): return self._ask('post', url, how)
    def delete(self, url, **how): return self._ask('delete', url, how)

    @asynccontextmanager
    async def _ask(self, method, url, how):
        self.sent.append((method, str(url), how.get('data', b'') or b''))
        fault = next((f for f in self.faults if f[0] == method and f[1] in str(url)), None)
        kind = None
        if fault:
            self.faults.remove(fault)
            kind = fault[2]
        if kind == 'lose_request': raise aiohttp.ClientOSError(104, 'Connection reset by peer')
        if isinstance(kind, tuple) and kind[0] == 'instead':
            yield Answer(*kind[1:])
            return
        async with getattr(self.session, method)(url, **how) as response:
            body = await response.text()
            if kind == 'lose_response': raise aiohttp.ServerDisconnectedError()
            if kind == 'truncate': body = body[:len(body) // 2]
            if isinstance(kind, tuple) and kind[0] == 'after': yield Answer(*kind[1:])
            else: yield Answer(response.status, body, response.headers)


@dataclass
class Answer:
    status: int
    body: str
    headers: dict = field(default_factory=dict)
    reason: str = ''
    async def text(self, **_): return self.body


@asynccontextmanager
async def venue(exchange: LocalExchange, **how):
    "A gateway to this exchange, and the wire between them; `how` goes to `connect`."
    wires = []
    def redirect(client):
        session = rewire(client, address)
        client.session = Wire(session)
        wires.append(client.session)
        return session
    async with served(exchange) as address:
        gateway: Gateway = await connect('binance', 'local-key', 'local-secret', weight_per_minute=10**6, redirect=redirect, **dict(timeout_s=2) | how)
        try: yield gateway, wires[0]
        finally: await gateway.close()
