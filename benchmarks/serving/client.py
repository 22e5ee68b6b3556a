"""A bare client: kept-alive connections on one thread, each of which sends its call again when its answer has come.

It reads no more of an answer than where it ends and whether it is one, so that what is measured is the service.
"""

import re
import socket
import time
from dataclasses import dataclass, field
from selectors import EVENT_READ, DefaultSelector

AT_ONCE = 1 << 16
SECONDS_TO_ANSWER = 30
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass
class Told:
    """What came back: how long each good answer took, and how many calls failed."""

    seconds: list[float] = field(default_factory=list)
    errors: int = 0
    took: float = 0.0


@dataclass
class Line:
    """One connection, and the call that is under way on it."""

    port: int
    request: bytes
    connection: socket.socket = field(init=False)
    heard: bytes = b""
    sent_at: float = 0.0

    def __post_init__(self) -> None:
        self.connection = socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS_TO_ANSWER)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        """Send the call."""
        self.heard, self.sent_at = b"", time.perf_counter()
        self.connection.sendall(self.request)

    def receive(self) -> bool:
        """Read what has come; return whether that is all of the answer."""
        come = self.connection.recv(AT_ONCE)
        if not come:
            raise ConnectionError("closed before the answer ended")
        self.heard += come
        head, found, content = self.heard.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        return bool(found and length) and len(content) >= int(length[1])

    @property
    def good(self) -> bool:
        """Whether the answer is one."""
        return self.heard.startswith(b"HTTP/1.1 200 ")


def request(port: int, path: str, body: bytes, token: str) -> bytes:
    """Return a call as it goes over the line."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def call(port: int, request: bytes) -> bytes:
    """Call once; return the answer, headers and all."""
    line = Line(port, request)
    with line.connection:
        line.send()
        while not line.receive():
            pass
    return line.heard


def press(port: int, request: bytes, clients: int, seconds: float) -> Told:
    """Let so many clients call, each again and again, for so long."""
    told = Told()
    begun = time.perf_counter()
    with DefaultSelector() as selector:
        for _ in range(clients):
            _begin(Line(port, request), selector)
        while (now := time.perf_counter()) < begun + seconds:
            for key, _ in selector.select(timeout=SECONDS_TO_ANSWER):
                _go_on(key.data, selector, told)
        told.took = now - begun
        for key in list(selector.get_map().values()):
            key.data.connection.close()
    return told


def _begin(line: Line, selector: DefaultSelector) -> None:
    selector.register(line.connection, EVENT_READ, line)
    line.send()


def _go_on(line: Line, selector: DefaultSelector, told: Told) -> None:
    """Read what has come on a line; where that is an answer, or the end of it, call again."""
    try:
        if not line.receive():
            return
        if line.good:
            told.seconds.append(time.perf_counter() - line.sent_at)
        else:
            told.errors += 1
        line.send()
    except OSError:
        told.errors += 1
        selector.unregister(line.connection)
        line.connection.close()
        _begin(Line(line.port, line.request), selector)
