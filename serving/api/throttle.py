"""How often a caller may ask: a bucket that holds so many requests, and fills again by so many a second."""

from collections import OrderedDict
from collections.abc import Callable, Collection
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from time import monotonic

# Of an IPv6 network, one household or machine has so many bits; the rest it chooses as it likes.
NETWORK_BITS = 64
# Who has not asked for longest is forgotten first, and may then ask as one who never has.
MOST_CALLERS = 20_000


class Throttle:
    """Counts the requests of each caller, in one process.

    Of a caller one number is kept: until when the bucket would take to be full again.

    Parameters
    ----------
    rate : requests a second in the long run; 0 for no limit
    burst : requests at once
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = monotonic) -> None:
        self._step = 1 / rate if rate else 0.0
        self._most = burst * self._step
        self._clock = clock
        self._full_at: OrderedDict[object, float] = OrderedDict()

    def wait(self, callers: Collection[object]) -> float:
        """Count a request of all these callers at once; return 0, or after how many seconds to try again.

        A request that is told to wait is not counted.
        """
        if not self._step:
            return 0.0
        now = self._clock()
        full = {caller: max(self._full_at.get(caller, now), now) + self._step for caller in callers}
        over = max(full.values(), default=now) - now - self._most
        # A step added and taken away again is not always nothing.
        if over > self._step * 1e-6:
            return over
        for caller, moment in full.items():
            self._full_at[caller] = moment
            self._full_at.move_to_end(caller)
        while len(self._full_at) > MOST_CALLERS:
            self._full_at.popitem(last=False)
        return 0.0


@lru_cache(maxsize=4_096)
def place_of(address: str) -> str:
    """Return what counts as one place among addresses: of IPv6 a network, of others the address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (128 - NETWORK_BITS):x}::"
