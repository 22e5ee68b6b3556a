"""Forms that another site makes a browser send: refused.

Each form holds a token that only a page of this service can have: made from the secret in the cookie, so that nothing
is kept. Before a login, the cookie holds a secret of its own. What bears an API token needs none: no browser sends it
by itself.
"""

import hmac
from base64 import urlsafe_b64encode
from urllib.parse import urlsplit

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PURPOSE = b"weibing form"


def form_token(cookie: str) -> str:
    """Return the token of the forms that are shown to the bearer of a cookie."""
    mac = hmac.digest(cookie.encode("utf-8", "surrogatepass"), PURPOSE, "sha256")
    return urlsafe_b64encode(mac).decode().rstrip("=")


def is_ours(method: str, cookie: str | None, given: str | None, *, origin: str | None, host: str) -> bool:
    """Whether a request that a browser sent comes from a page of this service.

    Parameters
    ----------
    cookie : the secret of the session, or of one who is not logged in yet
    given : the token of the form
    origin : the header ``Origin``, or None where the browser sends none
    host : the header ``Host``
    """
    if method in SAFE:
        return True
    if origin is not None and host_of(origin) != host.lower():
        return False
    expected = form_token(cookie or "").encode()
    return bool(cookie) and hmac.compare_digest(expected, (given or "").encode("utf-8", "surrogatepass"))


def host_of(origin: str) -> str:
    """Return the host, and the port if there is one, of a header ``Origin``."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
