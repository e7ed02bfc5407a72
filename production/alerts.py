"""Telling people: what the journal raised goes out through apprise, beside trading and never in its way.

An alert is in the journal before anybody tries to send it, and it is marked as sent afterwards. So a crash or an outage loses none; at worst one that was
being sent is sent again, with the same number. A channel that is slow or down holds up nothing but itself.
"""
import asyncio
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from production.journal import Journal, opening
from production.journal.outbox import Delivery
from production.journal.tables import Alert
from production.journal.telling import Alerts, moment
from trading_lib.core.errors import BadInput, Refused, TradingError, did_you_mean
from trading_lib.core.settings import SEVERITIES, Settings, channel_lists, quiet_span

PREFIX = 'TRADING_ALERT_'   # and the name of the channel: the variable with its address
TICK_S = .5                 # how often the outbox is looked at
FAREWELL_S = 5              # for the last alerts, when a runner stops
LINES = 20                  # of alerts that are sent together


@dataclass(frozen=True)
class Channel:
    "A name, and the service behind it."
    name: str
    service: object   # an Apprise with one service in it

    def send(self, severity: str, title: str, text: str) -> tuple[bool, str]:
        "Was it taken, and what was said if not? Waits for the network."
        import apprise
        kind = dict(info=apprise.NotifyType.INFO, warning=apprise.NotifyType.WARNING, critical=apprise.NotifyType.FAILURE)[severity]
        told = self.service.notify(body=text, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
        said = [line.message for result in told.results for attempt in result.attempts for line in attempt.logs] if not told else []
        return bool(told), said[-1] if said else '' if told else 'the service did not take it'


def channels(alerts: Alerts) -> dict[str, Channel]:
    "Every channel that the settings name, with its address from the environment; raises `BadInput` that never shows an address."
    names = dict.fromkeys(name for level in channel_lists(alerts.alerting.channels) for name, _ in level)
    return {name: channel(name) for name in names}


def channel(name: str) -> Channel:
    import apprise
    from apprise.manager_plugins import NotificationManager
    variable = PREFIX + name.upper()
    address = os.environ.get(variable, '')
    if not address:
        given = [v for v in os.environ if v.startswith(PREFIX)]
        raise BadInput(f'channel {name} has no address; set {variable} to one such as slack://… or mailto://…{did_you_mean(variable, given) if given else ""}')
    asset = apprise.AppriseAsset(app_id='trading', app_desc='Trading workbench', app_url='', storage_mode=apprise.PersistentStoreMode.MEMORY)
    service, schema = apprise.Apprise(asset=asset), address.partition('://')[0]
    if service.add(address): return Channel(name, service)
    known = set(NotificationManager().schemas())
    why = 'is not complete' if schema in known and '://' in address else f'begins with no known service{did_you_mean(schema, known) if "://" in address else ""}'
    raise BadInput(f'{variable}: the address {why}; how it is written is said at https://appriseit.com/services/')


# ── what is sent ──

def messages(alerts: list[Alert], most: int) -> list[tuple[list[Alert], str, str, str]]:
    "What is critical by itself and the rest together; everything together where there are more messages than may be sent. With severity, title, text."
    grave, rest = [[a] for a in alerts if a.severity == 'critical'], [a for a in alerts if a.severity != 'critical']
    groups = grave + [rest] * bool(rest)
    return [(group, *_message(group)) for group in (groups if len(groups) <= most else [alerts])]


def _message(group: list[Alert]) -> tuple[str, str, str]:
    if len(group) == 1:
        [alert] = group
        seen = f'; when you have seen it: trading alerts ack {alert.id}' if alert.severity == 'critical' else ''
        return alert.severity, alert.title, f'{alert.text}\n\n#{alert.id}, {moment(alert.at)}{seen}'
    worst = max((alert.severity for alert in group), key=SEVERITIES.index)
    lines = [f'#{alert.id} {moment(alert.at)} {alert.title}' for alert in group]
    more = [f'and {len(group) - LINES} more: trading alerts'] if len(group) > LINES else []
    return worst, f'{len(group)} alerts' + ('' if worst == 'info' else f', the worst {worst}'), '\n'.join(lines[:LINES] + more)


def quiet_until(quiet: str, at: int) -> int | None:
    "When the quiet hours end that this moment is in; none outside them."
    span, now = quiet_span(quiet), datetime.fromtimestamp(at / 1000, UTC)
    if not span: return None
    start, end = span
    minute = now.hour * 60 + now.minute
    inside = start <= minute < end if start <= end else minute >= start or minute < end
    if not inside: return None
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return int((midnight + timedelta(minutes=end, days=end <= minute)).timestamp() * 1000)


# ── the sender ──

class Sender:
    "Empties the outbox, a channel at a time in its own thread; the journal is only touched from the event loop."

    def __init__(self, journal: Journal, channels: dict[str, Channel]):
        self.journal, self.channels, self.alerting = journal, channels, journal.alerts.alerting
        self.pool = ThreadPoolExecutor(max(1, len(channels)), 'alerts')
        self.busy: dict[str, asyncio.Task] = {}
        self.sent = {name: deque(maxlen=self.alerting.per_minute) for name in channels}   # when, on a clock that does not jump
        self.ready: dict[int, int] = {}
        self.lock: opening.Lock | None = None   # on sending

    async def run(self):
        "For ever. Where several runners share a journal, one of them sends."
        while True:
            with suppress(TradingError):   # the journal cannot be used just now; who trades halts for it
                if self._alone(): self.step()
            await asyncio.sleep(TICK_S)

    def _alone(self) -> bool:
        if self.journal.engine.dialect.name == 'sqlite': return True   # its one writer sends
        if self.lock and self.lock.held(): return True
        self.lock, engine = None, self.journal.engine
        with opening.translated(self.journal.url), suppress(Refused): self.lock = opening.lock(self.journal.url, f'alerts of {opening.schema(engine)}', engine)
        return self.lock is not None

    def step(self, at_once: bool = False):
        "Notice, then start to send what is due."
        self.journal.notice(self.ready)
        now, settled, by_channel = self.journal.now(), [], {}
        due = self.journal.due(at_once)
        if until := quiet_until(self.alerting.quiet, now):
            self.journal.put_off([alert.id for alert in due if alert.severity != 'critical'], until)
            due = [alert for alert in due if alert.severity == 'critical']
        for alert in due:
            waiting = [name for name in self.journal.alerts.wanted(alert.severity, alert.level) if not self._over(alert, name)]
            if not waiting: settled.append(alert.id)
            for name in waiting:
                if name not in self.busy and alert.results.get(name, {}).get('next', 0) <= now: by_channel.setdefault(name, []).append(alert)
        if settled: self.journal.told(settled=settled)
        for name, alerts in by_channel.items(): self._begin(name, alerts)

    def _over(self, alert: Alert, name: str) -> bool:
        result = alert.results.get(name, {})
        return result.get('done') or result.get('attempts', 0) >= self.alerting.retries

    def _begin(self, name: str, alerts: list[Alert]):
        sent, now = self.sent[name], time.monotonic()
        left = self.alerting.per_minute - sum(at > now - 60 for at in sent)
        if not left: return
        task = self.busy[name] = asyncio.create_task(self._send(name, messages(alerts, left)))
        task.add_done_callback(lambda _: self.busy.pop(name, None))

    async def _send(self, name: str, batch: Iterable[tuple[list[Alert], str, str, str]]):
        loop = asyncio.get_running_loop()
        for group, severity, title, text in batch:
            self.sent[name].append(time.monotonic())
            try: done, said = await loop.run_in_executor(self.pool, self.channels[name].send, severity, title, text)
            except Exception as error: done, said = False, f'{type(error).__name__}'   # a service's own fault must not end the others
            with suppress(TradingError): self.journal.told(Delivery(alert.id, name, done, said) for alert in group)

    async def farewell(self):
        "What is left, for a moment; the rest goes out at the next start."
        deadline = time.monotonic() + FAREWELL_S
        while (left_s := deadline - time.monotonic()) > 0:
            with suppress(TradingError):
                if self._alone(): self.step(at_once=True)
            if not self.busy: break
            await asyncio.wait(list(self.busy.values()), timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in list(self.busy.values()): task.cancel()
        self.pool.shutdown(wait=False, cancel_futures=True)
        if self.lock: self.lock()


@asynccontextmanager
async def sending(journal: Journal, settings: Settings | None) -> AsyncIterator[None]:
    "Raise by these settings and send while the block runs; without settings alerts stay in the journal. Raises `BadInput` for a bad channel."
    if settings is None:
        yield
        return
    journal.alerts = Alerts.of(settings)
    sender = Sender(journal, channels(journal.alerts))
    task = asyncio.create_task(sender.run())
    task.add_done_callback(_said_aloud)
    try: yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await sender.farewell()


def _said_aloud(task: asyncio.Task):
    "A sender that ends by itself has a fault; trading goes on, and it is seen."
    if not task.cancelled() and (error := task.exception()):
        asyncio.get_running_loop().call_exception_handler(dict(message='alerts are no longer sent', exception=error, task=task))


async def send_now(journal: Journal, settings: Settings) -> int:
    "Send what is due without a runner; how many alerts are left."
    async with sending(journal, settings): pass
    return len(journal.history(state='pending'))


def tried(settings: Settings, who: str) -> dict[str, dict]:
    "A test alert to every channel, at once and past the outbox; what each said."
    alerts = Alerts.of(settings)
    said = alerts.composed('test', dict(who=who)) or dict(severity='info', title='Test alert', text=who)
    answers = {name: channel.send(said['severity'], said['title'], said['text']) for name, channel in channels(alerts).items()}
    return {name: dict(taken=taken, said=words) for name, (taken, words) in answers.items()}
