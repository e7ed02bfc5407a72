"What is known of each venue, and the clients that ccxt does not have."
from production.venues.facts import Facts
from production.venues.tables import VENUES

__all__ = ['VENUES', 'Facts']
