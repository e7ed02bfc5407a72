"""What was decided, sent and heard: tables, their migrations, and the one class that reads and writes them."""
from production.journal.journal import DUE, RESTING, UNRESOLVED, Journal, moved, utc_ms
from production.journal.tables import HAND, Bot, Decision, Hand, Intent, Money, Trade

__all__ = ['Journal', 'Bot', 'Decision', 'Intent', 'Trade', 'Hand', 'Money', 'HAND', 'DUE', 'RESTING', 'UNRESOLVED', 'moved', 'utc_ms']
