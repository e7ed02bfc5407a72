"""The local exchange in a process of its own, which never outlives the one that started it."""
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

import pandas as pd

from trading_lib.core.errors import BadInput, TradingError, Unreachable
from trading_lib.execution.matching import MarketRules
from trading_lib.market.bars import Sample
from trading_lib.market.store import write_whole


@dataclass
class Child:
    "A running exchange: its address, and its process."
    url: str
    process: subprocess.Popen

    def stop(self):
        "Let it end by itself: closing its stdin is the sign."
        self.process.stdin.close()
        try: self.process.wait(10)
        except subprocess.TimeoutExpired: self.process.kill()   # its log survives that
        self.process.stdout.close()


def start_child(
    samples: Sequence[Sample],                       # as for `LocalExchange`
    folder: Path,                                    # where the bars are put for it, and its log
    rules: Mapping[str, MarketRules] | None = None,
    port: int = 0,
    bars_per_s: float | None = None,
    **settings: object,                              # `first balances slippage max_share keys` of `LocalExchange`
) -> Child:
    "Start an exchange and wait until it serves; the log in the folder is continued. Raises `BadInput` with the child's own words."
    markets = []
    for sample in samples:
        path = folder / f'{sample.fingerprint[:16]}.parquet'
        if not path.exists(): write_whole(path, sample.bars.to_parquet())
        markets.append(dict(symbol=sample.symbol, timeframe=sample.timeframe, path=str(path)))
    ask = dict(markets=markets, log=str(folder / 'exchange.log'), port=port, bars_per_s=bars_per_s, settings=settings,
               rules={symbol: asdict(rule) for symbol, rule in (rules or {}).items()})
    process = subprocess.Popen([sys.executable, '-m', 'production.local_exchange'], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               start_new_session=True)   # Ctrl-C is for the parent, which then lets this one go
    process.stdin.write(json.dumps(ask, default=str) + '\n')
    process.stdin.flush()
    said = process.stdout.readline()
    if not said: raise Unreachable(f'the local exchange ended before it served (exit code {process.wait()}); see stderr above')
    answer = json.loads(said)
    if 'error' in answer:
        process.wait(10)
        raise BadInput(answer['error'])
    return Child(answer['url'], process)


def main():
    "Read one line of settings, serve, print the address as one JSON line, and end when stdin ends."
    from production.local_exchange.exchange import LocalExchange
    ask = json.loads(sys.stdin.readline())
    try:
        samples = [Sample(pd.read_parquet(m['path']), m['symbol'], m['timeframe'], m['path']) for m in ask['markets']]
        rules = {symbol: _rules(rule) for symbol, rule in ask['rules'].items()}
        exchange = LocalExchange(samples, rules=rules, log=Path(ask['log']), **ask['settings'])
        asyncio.run(_until_stdin_ends(exchange, ask['port'], ask['bars_per_s']))
    except TradingError as error:
        _tell({'error': str(error)})
        return error.exit_code
    except KeyboardInterrupt: return 130
    return 0


def _tell(answer: dict):
    "One JSON line for the parent; it may have been interrupted, and then nobody listens."
    with contextlib.suppress(BrokenPipeError): os.write(sys.stdout.fileno(), (json.dumps(answer) + '\n').encode())


def _rules(rule: dict) -> MarketRules:
    "Rules as they were before JSON made text of their numbers."
    return MarketRules(**{name: Decimal(value) if name in ('step', 'tick', 'min_quantity', 'min_notional', 'fee', 'unit') else value
                          for name, value in rule.items()})


async def _until_stdin_ends(exchange, port: int, bars_per_s: float | None):
    from production.local_exchange.server import serve
    loop = asyncio.get_running_loop()
    ready, ended = loop.create_future(), asyncio.Event()
    def watch():
        sys.stdin.read()
        loop.call_soon_threadsafe(ended.set)
    threading.Thread(target=watch, daemon=True).start()
    serving = asyncio.create_task(serve(exchange, port=port, bars_per_s=bars_per_s, ready=ready))
    await asyncio.wait([serving, ready], return_when=asyncio.FIRST_COMPLETED)
    if serving.done(): serving.result()
    _tell({'url': ready.result(), 'port': int(ready.result().rpartition(':')[2])})
    waiting = asyncio.create_task(ended.wait())
    await asyncio.wait([serving, waiting], return_when=asyncio.FIRST_COMPLETED)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
