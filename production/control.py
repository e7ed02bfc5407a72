"""Hands on the wheel: halt, resume and status, for whoever stands outside.

A journal in a file has one writer. While a runner lives it is that writer, so a command reaches it over a local socket beside the journal,
one JSON line each way, and the runner writes. Without a runner the command opens the journal itself. A journal in PostgreSQL has many
writers: the command writes, and runners see the latch before they send anything.
"""
import asyncio
import json
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from production.journal import Journal, opening
from trading_lib.core.errors import BadInput, Refused, TradingError, Unreachable
from trading_lib.core.settings import Settings

START_S = 20     # a runner that holds the journal listens within this time
PATIENCE_S = 40   # a runner that cancels orders at a slow venue may take this long to answer


def socket_of(url) -> Path | None:
    "Where the runner of this journal listens; none where the journal needs no one writer."
    if url.get_backend_name() != 'sqlite': return None
    beside = Path(url.database).resolve().with_suffix('.sock')
    if len(os.fsencode(beside)) < 100: return beside   # the system's limit for the name of a socket is 108 bytes
    return Path(tempfile.gettempdir()) / f'trading-{os.getuid()}-{sha256(os.fsencode(beside)).hexdigest()[:16]}.sock'


# the runner's side

@asynccontextmanager
async def listening(journal: Journal, halt: Callable[[str, str], Awaitable], resume: Callable[[str, str], Awaitable]) -> AsyncIterator[None]:
    "Answer commands until the block ends. Whoever holds the journal open to write owns the socket, so an old one is a dead one's."
    path = socket_of(journal.url)
    if path is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        try:
            match json.loads(await asyncio.wait_for(reader.readline(), 5)):
                case {'do': 'halt', 'who': str(who), 'why': str(why)}:
                    await halt(who, why)
                    said = dict(done='halt', by='the runner')
                case {'do': 'resume', 'who': str(who), 'why': str(why)}: said = dict(done='resume', by='the runner', released=await resume(who, why))
                case {'do': 'status'}: said = dict(pid=os.getpid())
                case other: said = dict(error=f'not a command: {other}')
        except TradingError as error: said = dict(error=str(error))
        except (ValueError, TimeoutError): said = dict(error='not a line of JSON')
        writer.write(json.dumps(said).encode() + b'\n')
        writer.close()

    path.unlink(missing_ok=True)
    mask = os.umask(0o177)   # only its owner may connect
    try: server = await asyncio.start_unix_server(answer, path)
    finally: os.umask(mask)
    try: yield
    finally:
        server.close()
        path.unlink(missing_ok=True)


# the command's side

def ask(url, request: dict) -> dict | None:
    "The runner's answer; none if no runner lives."
    path = socket_of(url)
    if path is None: return None
    if path.exists() and path.stat().st_uid != os.getuid(): raise Refused(f'{path} belongs to another user; it is not our runner, remove it')
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(PATIENCE_S)
        try: line.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError): return None
        try:
            line.sendall(json.dumps(request).encode() + b'\n')
            said = json.loads(line.makefile().readline() or '{}')
        except (OSError, ValueError): said = {}
    if not said: raise Unreachable('the runner did not answer; whether it did as told is in: trading status')
    if 'error' in said: raise Refused(f'the runner answered: {said["error"]}')
    return said


def halt(settings: Settings, who: str, why: str, dry_run: bool = False) -> dict:
    "Close the latch. Committed first; then the runner cancels what is open, or the next one does before anything else."
    return _command(settings, dict(do='halt', who=who, why=why), lambda journal: journal.halt(who, why), dry_run)


def resume(settings: Settings, who: str, why: str = '', dry_run: bool = False) -> dict:
    "Open the latch."
    def release(journal): return dict(released=journal.resume(who, why))
    return _command(settings, dict(do='resume', who=who, why=why), release, dry_run)


def _command(settings: Settings, request: dict, write: Callable[[Journal], dict | None], dry_run: bool) -> dict:
    if not request['who'].strip(): raise BadInput(f'{request["do"]} needs a name; give it with --who')
    url = opening.address(settings.journal_url)
    if dry_run:
        alive = ask(url, dict(do='status'))
        return dict(would=request['do'], by='the runner' if alive else 'this command', open_orders=[row['client_id'] for row in _orders(settings, True)])
    deadline = time.monotonic() + START_S
    while True:   # a runner holds the journal for a moment before it listens, and after it has stopped to
        if said := ask(url, request): return said
        try:
            with Journal.open(url.render_as_string(hide_password=False)) as journal: more = write(journal) or {}
        except Refused:
            if time.monotonic() > deadline: raise
            time.sleep(.05)
            continue
        return dict(done=request['do'], by='this command', **more)


# what is shown

def status_report(settings: Settings) -> dict:
    "The latch and every bot, with moments as a person reads them."
    try: journal = Journal.reader(settings.journal_url)
    except BadInput as error:
        if not _missing(settings): raise error
        return dict(journal=settings.journal_url, halt=None, runner=None, bots=[])
    with journal: found = journal.status()
    halt = found['halted'][0] if found['halted'] else None
    if halt: halt |= dict(at=moment(halt['at']))
    bots = [dict(symbol=f'{b["symbol"]} {b["timeframe"]}', account=b['account'], venue=b['venue'], state=b['state'], bar=moment(b['cursor']),
                 target=b['target'], position=b['position'], cash=b['cash'], equity=b['equity'], decisions=b['decisions'], orders=b['orders'],
                 dossier=b['dossier'][:12]) for b in found['bots']]
    return dict(journal=found['journal'], halt=halt, runner=ask(journal.url, dict(do='status')), bots=bots)


def order_report(settings: Settings, limit: int) -> list[dict]:
    "The newest orders first."
    return [dict(time=moment(o['at']), bar=moment(o['bar']), account=o['account'], symbol=o['symbol'], side=o['side'], kind=o['kind'], quantity=o['quantity'],
                 filled=o['filled'], status=o['status'], reason=o['reason'], client_id=o['client_id']) for o in reversed(_orders(settings)[-limit:])]


def _orders(settings: Settings, open_only: bool = False) -> list[dict]:
    if _missing(settings): return []
    with Journal.reader(settings.journal_url) as journal: return journal.orders(open_only=open_only)


def _missing(settings: Settings) -> bool:
    url = opening.address(settings.journal_url)
    return url.get_backend_name() == 'sqlite' and not Path(url.database).exists()


def moment(ms: int | None) -> str | None:
    return None if ms is None else f'{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}'
