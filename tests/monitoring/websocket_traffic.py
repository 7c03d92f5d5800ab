"""WebSocket backends and clients that give every metric of Sluice something to count.

They speak RFC 6455 over plain sockets and do on request what no library would: unmasked client
frames, masked backend frames, half a frame and then the end.
"""

import base64
import contextlib
import hashlib
import os
import random
import socket
import socketserver
import ssl
import struct
import threading

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
SECONDS_TO_ANSWER = 5

# Text messages that an EchoBackend obeys instead of echoing them.
SEND_MASKED = b"do: send a masked frame"
CLOSE_NOW = b"do: close with 4321"
CUT_IN_FRAME = b"do: cut inside a frame"


def encode_frame(opcode, payload=b"", mask=False):
    """One whole frame with FIN set."""
    length = len(payload)
    flag = 0x80 if mask else 0
    if length < 126:
        head = struct.pack("!BB", 0x80 | opcode, flag | length)
    elif length < 1 << 16:
        head = struct.pack("!BBH", 0x80 | opcode, flag | 126, length)
    else:
        head = struct.pack("!BBQ", 0x80 | opcode, flag | 127, length)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + apply_mask(payload, key)


def apply_mask(payload, key):
    stream = (key * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(
        len(payload), "big")


def read_exactly(stream, count):
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def read_frame(stream):
    """Reads one frame from a buffered stream: (opcode, unmasked payload)."""
    first, second = read_exactly(stream, 2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", read_exactly(stream, 2))
    elif length == 127:
        (length,) = struct.unpack("!Q", read_exactly(stream, 8))
    key = read_exactly(stream, 4) if second & 0x80 else None
    payload = read_exactly(stream, length)
    return first & 0x0F, apply_mask(payload, key) if key else payload


def read_head(stream):
    """Reads up to the empty line: (start line, fields with lower-case names)."""
    start = stream.readline()
    if not start:
        raise EOFError
    fields = {}
    while (line := stream.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    return start.rstrip(), fields


class EchoHandler(socketserver.StreamRequestHandler):
    timeout = 60

    def handle(self):
        try:
            self.serve()
        except (EOFError, OSError):
            pass  # the other side went away: an ordinary end

    def serve(self):
        _, fields = read_head(self.rfile)
        if fields.get(b"upgrade", b"").lower() != b"websocket":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n"
                             b"Connection: close\r\n\r\nok\n")
            return
        digest = hashlib.sha1(fields[b"sec-websocket-key"] + GUID).digest()
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         b"Connection: Upgrade\r\nSec-WebSocket-Accept: "
                         + base64.b64encode(digest) + b"\r\n\r\n")
        while True:
            opcode, payload = read_frame(self.rfile)
            if opcode == CLOSE:
                self.wfile.write(encode_frame(CLOSE, payload))
                return
            if opcode == PING:
                self.wfile.write(encode_frame(PONG, payload))
            elif payload == SEND_MASKED:
                self.wfile.write(encode_frame(TEXT, b"never to be masked", mask=True))
            elif payload == CLOSE_NOW:
                self.wfile.write(encode_frame(CLOSE, struct.pack("!H", 4321)))
            elif payload == CUT_IN_FRAME:
                self.wfile.write(encode_frame(BINARY, bytes(1000))[:500])
                return
            elif opcode in (TEXT, BINARY):
                self.wfile.write(encode_frame(opcode, payload))


class EchoBackend(socketserver.ThreadingTCPServer):
    """Serves in threads of its own from construction to close()."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self):
        super().__init__(("127.0.0.1", 0), EchoHandler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05},
                         daemon=True).start()

    @property
    def address(self):
        return "127.0.0.1:%d" % self.server_address[1]

    def handle_error(self, request, client_address):
        pass  # what went wrong with one connection shows in the metrics of the proxy

    def close(self):
        self.shutdown()
        self.server_close()


class RefusingBackend:
    """Holds a port on which nothing listens, so that every connect is refused."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._socket.getsockname()[1]

    def close(self):
        self._socket.close()


class WebSocketClient:
    """A client of one session; `key` is what the proxy picks the backend by."""

    def __init__(self, address, key, tls=None, session=None, path="/socket"):
        self.socket = open_socket(address, tls, session)
        self.stream = self.socket.makefile("rb")
        try:
            self.upgrade(key, path)
        except BaseException:
            self.end()
            raise

    def upgrade(self, key, path):
        nonce = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET {path}?u={key} HTTP/1.1\r\nHost: localhost\r\n"
                             "Upgrade: websocket\r\nConnection: Upgrade\r\n"
                             f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n"
                             "\r\n").encode())
        start, _ = read_head(self.stream)
        if not start.startswith(b"HTTP/1.1 101"):
            raise OSError(f"not upgraded: {start.decode(errors='replace')}")

    def send(self, opcode, payload=b"", mask=True):
        self.socket.sendall(encode_frame(opcode, payload, mask))

    def echo(self, opcode, payload):
        """Sends a data message and checks that it comes back as it went."""
        self.send(opcode, payload)
        if read_frame(self.stream) != (opcode, payload):
            raise OSError("the echo differs")

    def close(self, code=1000):
        self.send(CLOSE, struct.pack("!H", code))
        self.read_to_end()

    def read_to_end(self):
        try:
            while True:
                opcode, payload = read_frame(self.stream)
                if opcode == CLOSE:
                    self.send(CLOSE, payload)
        except (EOFError, OSError):
            self.end()

    def end(self):
        self.stream.close()
        self.socket.close()


def open_socket(address, tls=None, session=None):
    host, _, port = address.rpartition(":")
    plain = socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls is None:
        return plain
    try:
        return tls.wrap_socket(plain, server_hostname="localhost", session=session)
    except BaseException:
        plain.close()
        raise


def raw_request(address, request):
    """Sends bytes and returns all that is answered until the end."""
    with open_socket(address) as connection:
        connection.sendall(request)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


class Traffic:
    """Clients of every kind in threads of their own, from start() to stop().

    `rounds` counts how often each kind of client went through, `failures` holds the first exception
    of each kind that did not.
    """

    HELD_SESSIONS = 6

    def __init__(self, plain, secure, certificate):
        self._plain = plain
        self._secure = secure
        self._certificate = certificate
        self._stop = threading.Event()
        self._kinds = {
            "plain sessions": self._plain_session,
            "TLS sessions": self._tls_sessions,
            "HTTP requests": self._http_requests,
            "bad requests": self._bad_requests,
            "broken frames": self._broken_frames,
            "obedient backends": self._backend_tricks,
            "silent sessions": self._silent_session,
        }
        self.rounds = dict.fromkeys(self._kinds, 0)
        self.failures = {}
        self._held = []
        self._silent = None
        self._threads = []

    def start(self):
        for i in range(self.HELD_SESSIONS):
            self._held.append(WebSocketClient(self._plain, f"held-{i}"))
        self._silent = WebSocketClient(self._plain, "silent", path="/silent")
        for kind, once in self._kinds.items():
            thread = threading.Thread(target=self._repeat, args=(kind, once), daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for client in [*self._held, self._silent]:
            client.close()

    def _repeat(self, kind, once):
        while not self._stop.wait(0.02):  # a pace that leaves the machine to the others
            try:
                once()
                self.rounds[kind] += 1
            except (OSError, EOFError) as error:
                self.failures.setdefault(kind, error)

    def _plain_session(self):
        client = WebSocketClient(self._plain, random.random())
        for size in (0, 10, 200, 3000, 70_000):
            client.echo(TEXT, b"a" * size)
            client.echo(BINARY, os.urandom(size))
        client.send(PING, b"are you there")
        if read_frame(client.stream) != (PONG, b"are you there"):
            raise OSError("no pong")
        for held in self._held:
            for _ in range(4):
                held.echo(TEXT, b"still here")
        client.close(1000)

    def _silent_session(self):
        """One that says nothing but what it is asked: both its sides are pinged."""
        opcode, payload = read_frame(self._silent.stream)
        if opcode != PING:
            raise OSError("not asked")
        self._silent.send(PONG, payload)

    def _tls_sessions(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=self._certificate)
            context.minimum_version = context.maximum_version = version
            first = WebSocketClient(self._secure, random.random(), context)
            first.echo(TEXT, b"over TLS")  # a TLS 1.3 ticket comes behind the handshake
            session = first.socket.session
            first.close(1001)
            second = WebSocketClient(self._secure, random.random(), context, session)
            second.echo(BINARY, b"over TLS again")
            second.close(1000)
        with contextlib.suppress(ConnectionError):  # refused in whichever way
            raw_request(self._secure, b"this is no TLS record at all\r\n\r\n")

    def _http_requests(self):
        for folder in (b"", b"checked/"):
            answer = raw_request(self._plain, b"GET /%s%d?u=%d HTTP/1.1\r\nHost: localhost\r\n"
                                 b"Connection: close\r\n\r\n" % (folder, random.getrandbits(16),
                                                                 random.getrandbits(32)))
            if not answer.startswith(b"HTTP/1.1 200"):
                raise OSError(f"answered {answer[:40]!r}")

    def _bad_requests(self):
        raw_request(self._plain, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        raw_request(self._plain, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        raw_request(self._plain, b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n"
                    b"Connection: Upgrade, close\r\nSec-WebSocket-Key: short\r\n"
                    b"Sec-WebSocket-Version: 13\r\n\r\n")

    def _broken_frames(self):
        client = WebSocketClient(self._plain, random.random())
        client.send(TEXT, b"not masked", mask=False)
        client.read_to_end()

    def _backend_tricks(self):
        for order in (SEND_MASKED, CLOSE_NOW, CUT_IN_FRAME):
            client = WebSocketClient(self._plain, random.random())
            client.send(TEXT, order)
            client.read_to_end()
