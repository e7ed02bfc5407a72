"""Hands on the wheel, for whoever stands outside.

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

from production.hands import booked, told
from production.journal import Journal, opening
from production.journal.hands import EVERYTHING
from production.journal.telling import Alerts
from trading_lib.core.errors import BadInput, Refused, TradingError, Unreachable, did_you_mean
from trading_lib.core.settings import Settings

START_S = 20     # a runner that holds the journal listens within this time
NOBODY = 'no bot runs, and its venue cannot be reached from here; the next start does it before anything else'
PATIENCE_S = 40   # a runner that cancels orders at a slow venue may take this long to answer


def socket_of(url) -> Path | None:
    "Where the runner of this journal listens; none where the journal needs no one writer."
    if url.get_backend_name() != 'sqlite': return None
    beside = Path(url.database).resolve().with_suffix('.sock')
    if len(os.fsencode(beside)) < 100: return beside   # the system's limit for the name of a socket is 108 bytes
    return Path(tempfile.gettempdir()) / f'trading-{os.getuid()}-{sha256(os.fsencode(beside)).hexdigest()[:16]}.sock'


# the runner's side

@asynccontextmanager
async def listening(journal: Journal, halt: Callable[[str, str], Awaitable], resume: Callable[[str, str], Awaitable],
                    hand: Callable[[dict], Awaitable[dict | None]] | None = None) -> AsyncIterator[None]:
    "Answer commands until the block ends. Whoever holds the journal open to write owns the socket, so an old one is a dead one's."
    path = socket_of(journal.url)
    if path is None:
        yield
        return

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        try:
            match json.loads(await asyncio.wait_for(reader.readline(), 5)):
                case {'do': 'halt', 'flatten': True} | {'do': 'flatten' | 'cancel' | 'accept' | 'dry'} as other if hand and (more := await hand(other)) is not None:
                    said = dict(done=other['do'], by='the runner') | more
                case {'do': 'halt', 'who': str(who), 'why': str(why)}:
                    await halt(who, why)
                    said = dict(done='halt', by='the runner')
                case {'do': 'resume', 'who': str(who), 'why': str(why)}: said = dict(done='resume', by='the runner', released=await resume(who, why))
                case {'do': 'ack', 'alert': int(number), 'who': str(who)}: said = dict(done='ack', by='the runner') | journal.acknowledge(number, who)
                case {'do': 'replay', 'who': str(who)}: said = dict(done='replay', by='the runner', replayed=journal.replay(who))
                case {'do': 'status'}: said = dict(pid=os.getpid())
                case other: said = dict(error=f'not a command: {other}')
        except TradingError as error: said = dict(error=str(error))
        except (json.JSONDecodeError, UnicodeDecodeError, TimeoutError, asyncio.LimitOverrunError): said = dict(error='not a line of JSON')
        except Exception as error: said = dict(error=f'{type(error).__name__}: {error}')   # whoever asks must not bring down who trades
        writer.write(json.dumps(said, default=str).encode() + b'\n')
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


def halt(settings: Settings, who: str, why: str, dry_run: bool = False, flatten: bool = False) -> dict:
    "Close the latch. Committed first; then the runner cancels what is open, and closes what is held if that is asked, or the next one does before anything else."
    def close(journal):
        asked = journal.halt(who, why, flatten=flatten)
        return dict(bots=_waiting(journal, asked)) if flatten else {}
    return _command(settings, dict(do='halt', who=who, why=why) | (dict(flatten=True) if flatten else {}), close, dry_run)


def resume(settings: Settings, who: str, why: str = '', dry_run: bool = False) -> dict:
    "Open the latch."
    def release(journal): return dict(released=journal.resume(who, why))
    return _command(settings, dict(do='resume', who=who, why=why), release, dry_run)


def flatten(settings: Settings, who: str, why: str, symbol: str = EVERYTHING, dry_run: bool = False) -> dict:
    "Cancel every order and close every position, of one symbol or of all. Trading goes on: a bot stays flat until its target changes."
    _there(settings)
    if symbol != EVERYTHING: symbol = _symbol(settings, symbol)
    def ask_for(journal): return dict(bots=_waiting(journal, journal.demand('flatten', who, why, symbol)))
    return _command(settings, dict(do='flatten', who=who, why=why, symbol=symbol), ask_for, dry_run)


def cancel(settings: Settings, who: str, why: str, order: str = '', dry_run: bool = False) -> dict:
    "Cancel an order by its client id, or all of them."
    _there(settings)
    known = [row['client_id'] for row in _orders(settings, True)]
    if order and dry_run and order not in known: raise BadInput(f'order {order} is not open{did_you_mean(order, known)}')
    def ask_for(journal): return dict(bots=_waiting(journal, journal.demand('cancel', who, why, about=order)))
    return _command(settings, dict(do='cancel', who=who, why=why, about=order), ask_for, dry_run)


def accept(settings: Settings, who: str, why: str, dry_run: bool = False) -> dict:
    "Take what moved at the venue without an order of ours into the books, as it was found when that halted trading. The next comparison shows whether it was all."
    _there(settings)
    with Journal.reader(settings.journal_url) as journal: found = journal.differences()
    if not found: raise Refused('the venue and the journal were not found to differ; there is nothing to accept')
    if dry_run: return dict(would='accept', booked=booked(found))
    if not why.strip(): raise BadInput('accept needs a reason; give it with --why')
    return _command(settings, dict(do='accept', who=who, why=why), lambda journal: dict(booked=booked(journal.accept(who, why))), False)


def _symbol(settings: Settings, given: str) -> str:
    with Journal.reader(settings.journal_url) as journal: known = sorted({bot['symbol'] for bot in journal.status()['bots']})
    if given.upper() not in known: raise BadInput(f'no bot trades {given}{did_you_mean(given, known)}')
    return given.upper()


def _waiting(journal: Journal, asked: list[int]) -> list[dict]:
    "What was asked of bots that are not reached from here."
    return told([row | dict(said=row['said'] or _nobody(journal.url)) for row in journal.demanded(asked)])


def _nobody(url) -> str:
    "Who will do what was asked, when no runner answers here. A database may have one elsewhere."
    return NOBODY if socket_of(url) else 'written down; its bot does it within seconds if it runs, else its next start before anything else'


def acknowledge(settings: Settings, number: int, who: str) -> dict:
    "Somebody has seen an alert."
    _there(settings)
    return _command(settings, dict(do='ack', alert=number, who=who), lambda journal: journal.acknowledge(number, who), False)


def replay(settings: Settings, who: str) -> dict:
    "Try again the alerts that were given up."
    _there(settings)
    return _command(settings, dict(do='replay', who=who), lambda journal: dict(replayed=journal.replay(who)), False)


def _command(settings: Settings, request: dict, write: Callable[[Journal], dict | None], dry_run: bool) -> dict:
    if not request['who'].strip(): raise BadInput(f'{request["do"]} needs a name; give it with --who')
    url = opening.address(settings.journal_url)
    if dry_run:
        what = 'flatten' if request.get('flatten') else 'cancel' if request['do'] == 'halt' else request['do']
        symbol, about = request.get('symbol', EVERYTHING), request.get('about', '')
        alive = ask(url, dict(do='status') if what == 'resume' else dict(do='dry', what=what, symbol=symbol, about=about))
        wanted = [row['client_id'] for row in _orders(settings, True) if about in ('', row['client_id']) and symbol in (EVERYTHING, row['symbol'])]
        found = dict(would=request['do'], by='the runner' if alive else 'this command', open_orders=wanted)
        if alive and 'requests' in alive: return found | dict(requests=alive['requests'])
        return found | (dict(positions=_positions(settings, symbol), note=_nobody(url)) if what == 'flatten' else {})
    deadline = time.monotonic() + START_S
    while True:   # a runner holds the journal for a moment before it listens, and after it has stopped to
        if said := ask(url, request): return said
        try:
            with Journal.open(url.render_as_string(hide_password=False), alerts=Alerts.of(settings)) as journal: more = write(journal) or {}
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
        if not missing(settings): raise error
        return dict(journal=settings.journal_url, halt=None, runner=None, bots=[], waiting=[], differences=[])
    with journal: found, asked, apart = journal.status(), journal.waiting(), journal.differences()
    halt = found['halted'][0] if found['halted'] else None
    if halt: halt |= dict(at=moment(halt['at']))
    bots = [dict(symbol=f'{b["symbol"]} {b["timeframe"]}', account=b['account'], venue=b['venue'], state=b['state'], bar=moment(b['cursor']),
                 target=b['target'], position=b['position'], cash=b['cash'], equity=b['equity'], decisions=b['decisions'], orders=b['orders'],
                 dossier=b['dossier'][:12]) for b in found['bots']]
    return dict(journal=found['journal'], halt=halt, runner=ask(journal.url, dict(do='status')), bots=bots, waiting=told(asked), differences=booked(apart))


def order_report(settings: Settings, limit: int) -> list[dict]:
    "The newest orders first."
    return [dict(time=moment(o['at']), bar=moment(o['bar']), account=o['account'], symbol=o['symbol'], side=o['side'], kind=o['kind'], quantity=o['quantity'],
                 filled=o['filled'], status=o['status'], reason=o['reason'], client_id=o['client_id']) for o in reversed(_orders(settings)[-limit:])]


def _orders(settings: Settings, open_only: bool = False) -> list[dict]:
    if missing(settings): return []
    with Journal.reader(settings.journal_url) as journal: return journal.orders(open_only=open_only)


def _positions(settings: Settings, symbol: str) -> list[dict]:
    if missing(settings): return []
    with Journal.reader(settings.journal_url) as journal: bots = journal.status()['bots']
    return [dict(account=b['account'], symbol=b['symbol'], position=f'{b["position"]:f}') for b in bots if b['position'] and symbol in (EVERYTHING, b['symbol'])]


def _there(settings: Settings):
    if missing(settings): raise BadInput(f'there is no journal {settings.journal_url} yet; the first paper or live run makes one')


def missing(settings: Settings) -> bool:
    url = opening.address(settings.journal_url)
    return url.get_backend_name() == 'sqlite' and not Path(url.database).exists()


def moment(ms: int | None) -> str | None:
    return None if ms is None else f'{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}'
