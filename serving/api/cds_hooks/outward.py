"""Requests to the servers that the operator listed, and to no others.

A caller names a server; where that is one of its own on the list, the operator's text of it is what is asked. Redirects
are not followed, proxies of the environment not used, and a name is asked for once: the address that was looked at is
the one that is connected to. Addresses that belong to this machine, to its link or to nobody are refused, so that a
listed name whose owner points it there leads nowhere.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_address
from socket import AF_INET, AddressFamily

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

Json = dict[str, object]


class OutwardError(Exception):
    """What was asked for cannot be had; says why, with nothing of what the other side sent."""


class Outward:
    """Asks servers for JSON, within a time and a size for everything that is asked through it.

    Parameters
    ----------
    session
        From :func:`outward`.
    most_bytes
        How much all answers together may hold.
    """

    def __init__(self, session: aiohttp.ClientSession, most_bytes: int) -> None:
        self._session = session
        self._left = most_bytes

    async def get(self, url: str, *, token: str | None = None, accept: str = "application/json") -> Json:
        """Return the object that an address of a listed server answers with.

        Raises
        ------
        OutwardError
            If there is none.
        """
        headers = {"Accept": accept, "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                body = await self._body(response)
        except TimeoutError:
            raise OutwardError("it did not answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise OutwardError("it cannot be reached") from None
        return _object(body)

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        if response.status != 200:
            raise OutwardError(f"it answered with status {response.status}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise OutwardError("it answered compressed, though that was not asked for")
        body = bytearray()
        async for chunk in response.content.iter_chunked(64 * 2**10):
            self._left -= len(chunk)
            if self._left < 0:
                raise OutwardError("it answered with more than may be fetched")
            body += chunk
        return bytes(body)


@asynccontextmanager
async def outward(seconds: float, most_bytes: int) -> AsyncIterator[Outward]:
    """Open a way outward; what is not had within so many seconds cannot be had."""
    connector = aiohttp.TCPConnector(resolver=_Resolver(), use_dns_cache=False, limit=8)
    timeout = aiohttp.ClientTimeout(total=seconds)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
    ) as session:
        yield Outward(session, most_bytes)


class _Resolver(AbstractResolver):
    """Asks the system for the addresses of a name, and refuses those where no other server can be."""

    async def resolve(self, host: str, port: int = 0, family: AddressFamily = AF_INET) -> list[ResolveResult]:
        """Return the addresses of a name; raise OSError where one must not be asked."""
        found = await aiohttp.ThreadedResolver().resolve(host, port, family)
        if not found or not all(may_be_asked(each["host"]) for each in found):
            raise OSError(f"{host} has an address that must not be asked")
        return found

    async def close(self) -> None:
        """Let go of nothing."""


def may_be_asked(address: str) -> bool:
    """Whether a name may lead to an address; hospitals' servers have private ones."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved)


def _object(body: bytes) -> Json:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise OutwardError("it did not answer in JSON") from None
    if not isinstance(found, dict):
        raise OutwardError("it answered with something else than was asked for")
    return found
