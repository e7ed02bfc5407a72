"""What is worth telling a person, in a person's words. The settings say how severe each event is and how it is put."""
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from production.journal.tables import Bot, Decision, Intent
from trading_lib.core.settings import FIELDS, SEVERITIES, Alerting, AlertRules, AlertTemplates, Settings, channel_lists
from trading_lib.core.time import timeframe_delta

DONE = dict(buy='Bought', sell='Sold')


@dataclass(frozen=True)
class Alerts:
    "The rules by which a journal raises alerts."
    alerting: Alerting = field(default_factory=Alerting)
    rules: AlertRules = field(default_factory=AlertRules)
    templates: AlertTemplates = field(default_factory=AlertTemplates)

    @classmethod
    def of(cls, settings: Settings) -> 'Alerts': return cls(settings.alerts, settings.alert_rules, settings.alert_templates)

    def composed(self, rule: str, fields: dict) -> dict | None:
        "Severity, title and text; none where the rule is off. A field that is not given is left empty."
        severity = getattr(self.rules, rule)
        if severity == 'off': return None
        named = dict.fromkeys(FIELDS[rule].split(), '') | {name: shown(value) for name, value in fields.items()}
        title, _, text = getattr(self.templates, rule).format(**named).partition('\n')
        return dict(rule=rule, severity=severity, title=title, text=text.strip() or title)

    def first_try(self, severity: str, at: int) -> int:
        "When it may be sent: what is only for information waits for company."
        return at + int(self.alerting.batch_s * 1000) * (severity == 'info')

    def wanted(self, severity: str, level: int) -> list[str]:
        "The channels that are told by the time it was escalated so far."
        lists = channel_lists(self.alerting.channels)[:level + 1]
        return list(dict.fromkeys(name for channels in lists for name, least in channels if SEVERITIES.index(severity) >= SEVERITIES.index(least)))

    def escalation(self, severity: str, at: int, level: int) -> int | None:
        "When the next list is told, unless somebody acknowledges it."
        if severity != 'critical' or level + 1 >= len(channel_lists(self.alerting.channels)): return None
        return at + int((level + 1) * self.alerting.escalate_min * 60_000)


def shown(value) -> str:
    "A number with separators, anything else as it is."
    return f'{value.normalize():,f}' if isinstance(value, Decimal) else '' if value is None else str(value)


def moment(ms: int) -> str: return f'{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC'


def length_ms(timeframe: str) -> int: return int(timeframe_delta(timeframe).total_seconds() * 1000)


def exposure(target: float | None) -> str:
    "A target in words."
    if not target: return 'flat'
    return ('long' if target > 0 else 'short') + ('' if abs(target) == 1 else f' {abs(target):.4g}')


def because(bot: Bot, intent: Intent, decision: Decision | None, before: float | None) -> str:
    "Why an order was sent: from the decision it follows from, and the target before it."
    price = intent.price or intent.stop_price
    if price: return f'because its {intent.kind.replace("_", "-")} order at {shown(price)} was reached'
    if decision is None or decision.target is None: return f'as order {intent.client_id} asked'
    who, at = bot.strategy or 'its strategy', moment(intent.bar + length_ms(bot.timeframe))
    was, now = exposure(before), exposure(decision.target)
    change = f'stayed {now}' if was == now else f'went from {was} to {now}'
    return f'because {who} {change} at the close of {at}, at {shown(decision.close)}' + (f': {decision.reason}' if decision.reason else '')
