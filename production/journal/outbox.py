"""The outbox: an alert is written in the transaction of what it tells of, and sent by whoever has the time. Nothing here waits for a network."""
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal

from sqlalchemy import bindparam, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from production.journal.tables import HAND, Adjustment, Alert, Bot, Decision, Intent, Trade
from production.journal.telling import DONE, Alerts, because, length_ms, moment
from trading_lib.core.errors import BadInput
from trading_lib.execution.matching import split_symbol

DAY = 86_400_000
BACKOFF_S, LONGEST_S = 2, 300   # after a failure: 2, 4, 8 … s, at most so long
MANY = 100                       # alerts handled in one go, so that a long outage does not hold up trading when it ends
AVERAGE = Context(prec=10)       # digits of an average price that are shown

OF_BOT = Decision.bot_id == bindparam('bot')
DECISION = select(Decision.target, Decision.close, Decision.reason).where(OF_BOT, Decision.bar == bindparam('bar'))
BEFORE = select(Decision.target).where(OF_BOT, Decision.bar < bindparam('bar'), Decision.target.is_not(None)).order_by(Decision.bar.desc()).limit(1)
MORNING = select(Decision.cash, Decision.position, Decision.close, Decision.at).where(OF_BOT, Decision.bar >= bindparam('day')).order_by(Decision.bar).limit(1)


@dataclass(frozen=True)
class Delivery:
    "What became of one alert on one channel."
    alert: int
    channel: str
    done: bool
    said: str = ''


class Outbox:
    "The journal's part that tells people. `alerts` holds the rules."
    alerts: Alerts

    # raising, within a transaction

    def _alert(self, s: Session, rule: str, about: object, /, **fields):
        "Raise an alert, once for whatever it is about."
        said = self.alerts.composed(rule, fields)
        if said is None: return
        insert = (postgresql if self.engine.dialect.name == 'postgresql' else sqlite).insert
        at = self.now()
        new = dict(at=at, dedupe=f'{rule}:{about}'[:200], state='pending', level=0, attempts=0, results={}, next_try=self.alerts.first_try(said['severity'], at))
        s.connection().execute(insert(Alert.__table__).on_conflict_do_nothing(index_elements=['dedupe']), new | said)

    def _tell_fills(self, s: Session, bot: Bot, intent: Intent, fresh: Iterable[Trade]):
        fresh = list(fresh)
        if not fresh: return
        quantity = sum(fill.quantity for fill in fresh)
        price = sum(fill.quantity * fill.price for fill in fresh) / quantity
        which = dict(bot=bot.id, bar=intent.bar)
        decision, before = s.connection().execute(DECISION, which).first(), s.connection().scalar(BEFORE, which)
        self._alert(s, 'fill', f'{intent.client_id}:{intent.filled}', done=DONE[intent.side], quantity=quantity, base=split_symbol(bot.symbol)[0],
                    price=AVERAGE.create_decimal(price), why='because a person asked to be flat' if intent.seq >= HAND else because(bot, intent, decision, before), **market(bot))

    def _tell_state(self, s: Session, bot: Bot, before: str):
        rule = 'start' if (before, bot.state) == ('STARTING', 'READY') else 'stop' if bot.state == 'STOPPED' else None
        if rule: self._alert(s, rule, f'{bot.id}:{self.now()}', strategy=bot.strategy or 'A bot', cash=bot.cash, position=bot.position, **market(bot))

    def _tell_decision(self, s: Session, bot: Bot, decision: Decision):
        "A strategy that failed, and a day that cost too much. Before the decision itself is written."
        if decision.target is None:
            self._alert(s, 'strategy_error', f'{bot.id}:{decision.bar}', strategy=bot.strategy or 'the strategy',
                        bar=moment(decision.bar + length_ms(bot.timeframe)), why=decision.reason, **market(bot))
        day = decision.bar // DAY * DAY
        first = s.connection().execute(MORNING, dict(bot=bot.id, day=day)).first()
        morning = first.cash + first.position * first.close if first else decision.equity
        if first:   # what was paid in or out since is no profit and no loss
            moves = select(Adjustment.cash, Adjustment.position).where(Adjustment.bot_id == bot.id, Adjustment.at >= first.at)
            morning += sum(cash + position * decision.close for cash, position in s.connection().execute(moves))
        if morning <= 0: return
        loss, limit = (1 - decision.equity / morning) * 100, Decimal(str(self.alerts.alerting.daily_loss_pct))
        if loss >= limit:
            self._alert(s, 'daily_loss', f'{bot.id}:{day}', loss_pct=round(loss, 2), limit_pct=limit, equity=decision.equity, day=moment(day)[:10], **market(bot))

    def _tell_order(self, s: Session, rule: str, bot: Bot, intent: Intent, why: str, **more):
        self._alert(s, rule, intent.client_id, side=intent.side, quantity=intent.quantity, order=intent.client_id, why=why, **more, **market(bot))

    # raising, by whoever noticed

    def alert(self, rule: str, about: object, /, **fields):
        "Raise an alert that no step of the journal raises by itself, such as a limit or sentiment. Told once for what it is about."
        with self._session() as s: self._alert(s, rule, about, **fields)

    def notice(self, ready: dict[int, int]):
        "What time alone makes worth telling: orders unknown for too long, bots without bars. `ready`: since when each bot was seen to be."
        now, alerting = self.now(), self.alerts.alerting
        with self._session() as s:
            old = select(Intent, Bot).join(Bot).where(Intent.status == 'UNKNOWN', Intent.at <= now - alerting.unknown_s * 1000)
            for intent, bot in s.execute(old).all():
                self._tell_order(s, 'unknown', bot, intent, intent.reason or 'no answer', age_s=(now - intent.at) // 1000)
            bots = s.scalars(select(Bot).where(Bot.state == 'READY')).all()
            for gone in ready.keys() - {bot.id for bot in bots}: del ready[gone]
            for bot in bots:
                last = s.execute(select(Decision.bar, Decision.at).where(Decision.bot_id == bot.id).order_by(Decision.bar.desc()).limit(1)).first()
                age = now - max(ready.setdefault(bot.id, now), last.at if last else 0)
                if age > (1 + alerting.stale_bars) * length_ms(bot.timeframe):
                    self._alert(s, 'stale_data', f'{bot.id}:{last and last.bar}', age_s=age // 1000, bar=moment(last.bar) if last else 'never', **market(bot))

    # sending, step by step

    def due(self, at_once: bool = False) -> list[Alert]:
        "What has something to be done about it now, most severe first; what waits for company comes along when any of it is due, or `at_once`."
        now = self.now()
        worst_first = (Alert.severity != 'critical', Alert.id)
        with self._session() as s:
            due = s.scalars(select(Alert).where(Alert.next_try <= now).order_by(*worst_first).limit(MANY)).all()
            for alert in due:
                at = self.alerts.escalation(alert.severity, alert.at, alert.level)
                if at is not None and at <= now: alert.level, alert.state = alert.level + 1, 'pending'
            if at_once or any(alert.severity == 'info' for alert in due):
                waiting = select(Alert).where(Alert.next_try > now, Alert.severity == 'info', Alert.attempts == 0, Alert.state == 'pending')
                due = [*due, *s.scalars(waiting.order_by(Alert.id).limit(MANY))]
        return due

    def put_off(self, alerts: Iterable[int], until: int):
        "Not now: it is a quiet hour."
        with self._session() as s:
            for alert in s.scalars(select(Alert).where(Alert.id.in_(list(alerts)))): alert.next_try = until

    def told(self, deliveries: Iterable[Delivery] = (), settled: Iterable[int] = ()):
        "What became of sending; an alert is done with when every channel that is to have it has it, or was given up."
        by_alert = {number: [] for number in settled}
        for delivery in deliveries: by_alert.setdefault(delivery.alert, []).append(delivery)
        with self._session() as s:
            for alert in s.scalars(select(Alert).where(Alert.id.in_(list(by_alert))).order_by(Alert.id).with_for_update()):
                results = dict(alert.results)
                for delivery in by_alert[alert.id]:
                    tries = results.get(delivery.channel, {}).get('attempts', 0) + 1
                    pause_s = min(BACKOFF_S ** min(tries, 20), LONGEST_S)
                    results[delivery.channel] = dict(done=delivery.done, attempts=tries, at=self.now(), next=self.now() + pause_s * 1000, said=delivery.said[:500])
                    alert.attempts = max(alert.attempts, tries)
                alert.results = results
                self._conclude(alert)

    def _conclude(self, alert: Alert):
        "State and next step follow from what the channels said."
        if alert.state == 'acknowledged': return
        wanted = [alert.results.get(name, {}) for name in self.alerts.wanted(alert.severity, alert.level)]
        given_up = [r for r in wanted if not r.get('done') and r.get('attempts', 0) >= self.alerts.alerting.retries]
        waiting = [r for r in wanted if not r.get('done') and r not in given_up]
        alert.state = 'pending' if waiting else 'failed' if given_up else 'sent'
        times = [r.get('next', self.now()) for r in waiting]
        escalation = self.alerts.escalation(alert.severity, alert.at, alert.level)
        alert.next_try = min(times + [escalation] * (escalation is not None), default=None)

    # people

    def history(self, limit: int | None = None, state: str | None = None) -> list[dict]:
        "Alerts, the newest first."
        rows = select(Alert).order_by(Alert.id.desc()).limit(limit)
        if state: rows = rows.filter_by(state=state)
        with self._session() as s: return [{c.name: getattr(row, c.name) for c in Alert.__table__.columns} for row in s.scalars(rows)]

    def acknowledge(self, number: int, who: str) -> dict:
        "Somebody has seen it: it is escalated no further. The first to say so counts."
        with self._session() as s:
            alert = s.get(Alert, number, with_for_update=True)
            if alert is None: raise BadInput(f'there is no alert {number}; see: trading alerts')
            if alert.state != 'acknowledged':
                alert.state, alert.next_try, alert.acknowledged_at, alert.acknowledged_by = 'acknowledged', None, self.now(), who
                self._note(s, who, 'acknowledge', alert=number, title=alert.title)
            return dict(alert=number, title=alert.title, acknowledged_by=alert.acknowledged_by, at=moment(alert.acknowledged_at))

    def replay(self, who: str) -> int:
        "Try again what was given up; how many there were."
        with self._session() as s:
            dead = s.scalars(select(Alert).filter_by(state='failed').with_for_update()).all()
            for alert in dead:
                alert.results = {name: result for name, result in alert.results.items() if result['done']}
                alert.state, alert.attempts, alert.next_try = 'pending', 0, self.now()
            if dead: self._note(s, who, 'replay', alerts=[alert.id for alert in dead])
        return len(dead)


def market(bot: Bot) -> dict: return dict(symbol=bot.symbol, timeframe=bot.timeframe, account=bot.account, venue=bot.venue)
