"""Bars from an exchange into the store: opens the ccxt client that `market.history` is handed, and shows how far it is."""
import asyncio
import sys
from collections.abc import Callable

from trading_lib.core.errors import BadInput, did_you_mean
from trading_lib.market.history import Pulled, pull
from trading_lib.market.store import Store


def pull_bars(exchange: str, symbol: str, timeframe: str, since: str, until: str | None, store: Store, client=None) -> Pulled:
    "Pull what the store does not have yet; what was pulled stays when this is interrupted."
    return asyncio.run(_pull(client or public_client(exchange), exchange, symbol, timeframe, since, until, store))


async def _pull(client, exchange: str, symbol: str, timeframe: str, since: str, until: str | None, store: Store) -> Pulled:
    with _bar(f'{exchange} {symbol} {timeframe}') as progress:
        try: return await pull(client, symbol, timeframe, since, until, store, exchange, progress)
        finally: await client.close()


def public_client(exchange: str):
    "An async ccxt client without keys, its own throttle off; raises `BadInput` with the nearest id."
    import ccxt.async_support as ccxt
    import stamina
    stamina.instrumentation.set_on_retry_hooks([])   # its default prints to stdout, which belongs to --json
    if exchange not in ccxt.exchanges: raise BadInput(f'ccxt has no exchange {exchange}{did_you_mean(exchange, ccxt.exchanges)}')
    return getattr(ccxt, exchange)({'enableRateLimit': False})


class _bar:
    "A progress bar on stderr where that is a terminal, else nothing."

    def __init__(self, title: str): self.title = title

    def __enter__(self) -> Callable[[int, int], None] | None:
        if not sys.stderr.isatty(): return None
        from rich.console import Console
        from rich.progress import Progress
        self.progress = Progress(console=Console(stderr=True))
        self.progress.start()
        task = self.progress.add_task(self.title)
        return lambda done, total: self.progress.update(task, completed=done, total=total)

    def __exit__(self, *_):
        if hasattr(self, 'progress'): self.progress.stop()
