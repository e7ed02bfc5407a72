"""What each bot holds, what that cost, and what it has earned, from its fills alone.

The cost of a position is the cash that was paid for it, fees in the quote asset included, and its average is over what arrived, fees in the base asset
taken off. So realised and unrealised profit together are exactly the change of equity. What a bot found when it began counts at its first close. A fee
in a third asset moves neither; it is only told.
"""
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from production.journal.tables import plain


@dataclass(frozen=True)
class Holding:
    "A position by the average-cost method, without rounding."
    quantity: Fraction = Fraction(0)   # below 0 where it is short
    cost: Fraction = Fraction(0)       # cash paid for all of it; below 0 where cash was received
    realised: Fraction = Fraction(0)

    def moved(self, cash: Decimal, quantity: Decimal) -> 'Holding':
        "After a fill that moved cash and position by so much."
        cash, quantity = Fraction(cash), Fraction(quantity)
        if quantity == 0: return Holding(self.quantity, self.cost, self.realised + cash)
        if self.quantity * quantity >= 0: return Holding(self.quantity + quantity, self.cost - cash, self.realised)
        closed = min(abs(self.quantity / quantity), 1)    # share of the fill that closes
        given = min(abs(quantity / self.quantity), 1)     # share of the position that is closed
        return Holding(self.quantity + quantity, self.cost * (1 - given) - cash * (1 - closed), self.realised + cash * closed - self.cost * given)

    @property
    def average(self) -> Fraction | None: return self.cost / self.quantity if self.quantity else None

    def unrealised(self, price: Decimal) -> Fraction: return self.quantity * Fraction(price) - self.cost


def exact(value: Fraction | None) -> Decimal | None:
    "As a decimal, of 18 places where it never ends."
    if value is None: return None
    whole = round(value * 10**18)
    return Decimal(plain(Decimal((whole < 0, tuple(map(int, str(abs(whole)))), -18))))


def fees_by_asset(fills: Iterable[Mapping]) -> dict[str, Decimal]:
    fees = {}
    for fill in fills:
        if fill['fee']: fees[fill['fee_asset']] = fees.get(fill['fee_asset'], Decimal(0)) + fill['fee']
    return fees
