"""A table of prices of a team's own, named on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidPriceError
from .python_objects import object_named

if TYPE_CHECKING:
    from ..pricing.price_table import PriceTable


def prices_named(name: str | None) -> PriceTable | None:
    """The table of a name such as ``acme.prices:TABLE``; ``None`` without a name.

    Raises:
        InvalidPriceError: there is none.
    """
    if name is None:
        return None
    from ..pricing.price_table import PriceTable

    try:
        found = object_named(name)
    # It is code of others.
    except Exception as error:
        raise InvalidPriceError(
            f"There is no table of prices {name!r} to import ({type(error).__name__}: {error}). "
            "Name it module:TABLE, such as acme.prices:TABLE, and run the command where Python "
            "finds the module."
        ) from None
    if not isinstance(found, PriceTable):
        raise InvalidPriceError(
            f"{name} is no PriceTable, but a {type(found).__name__}. Write TABLE = "
            'PriceTable({"model": TokenPrice(input=5, output=25)}) there.'
        )
    return found
