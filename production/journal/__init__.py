"""What was decided, sent and heard: tables, their migrations, and the one class that reads and writes them."""
from production.journal.journal import UNRESOLVED, Journal, moved, utc_ms
from production.journal.tables import Bot, Decision, Intent, Money, Trade

__all__ = ['Journal', 'Bot', 'Decision', 'Intent', 'Trade', 'Money', 'UNRESOLVED', 'moved', 'utc_ms']
