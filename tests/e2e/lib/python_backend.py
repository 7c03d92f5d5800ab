#!/usr/bin/python3
"""An echo backend by aiohttp or by tornado: python_backend.py FRAMEWORK NAME PORT.

Prints {"address"} once it serves. Over WebSocket every message comes back as it came, and
{"close": [CODE, REASON]} makes it close so. GET /seen tells how sessions ended, in JSON:
[[CODE, REASON], ...], and forgets them. aiohttp knows no reason of its client's.
"""

import asyncio
import json
import signal
import sys

ENDS = []


def wanted_close(message):
    """What a message asks for: (code, reason), or None for one to echo."""
    if isinstance(message, str) and message.startswith('{"close"'):
        return json.loads(message)["close"]
    return None


def announce(port):
    print(json.dumps({"address": f"127.0.0.1:{port}"}), flush=True)


async def serve_aiohttp(name, port):
    from aiohttp import WSMsgType, web

    async def echo(request):
        socket = web.WebSocketResponse(max_msg_size=0)
        socket.headers["X-Backend"] = name
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                close = wanted_close(message.data)
                if close:
                    await socket.close(code=close[0], message=close[1].encode())
                    break
                await socket.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await socket.send_bytes(message.data)
        ENDS.append([socket.close_code, None])
        return socket

    async def seen(_):
        ends, ENDS[:] = list(ENDS), []
        return web.json_response(ends)

    application = web.Application()
    application.add_routes([web.get("/seen", seen), web.get("/echo", echo)])
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    announce(runner.addresses[0][1])


async def serve_tornado(name, port):
    import tornado.httpserver
    import tornado.netutil
    import tornado.web
    import tornado.websocket

    class Echo(tornado.websocket.WebSocketHandler):
        def get_compression_options(self):
            return {}

        def set_default_headers(self):
            self.set_header("X-Backend", name)

        def on_message(self, message):
            close = wanted_close(message)
            if close:
                self.close(*close)
            else:
                self.write_message(message, binary=isinstance(message, bytes))

        def on_close(self):
            ENDS.append([self.close_code, self.close_reason])

    class Seen(tornado.web.RequestHandler):
        def get(self):
            self.write(json.dumps(ENDS))
            ENDS[:] = []

    application = tornado.web.Application([("/echo", Echo), ("/seen", Seen)],
                                          websocket_max_message_size=1 << 24)
    sockets = tornado.netutil.bind_sockets(port, "127.0.0.1")
    tornado.httpserver.HTTPServer(application).add_sockets(sockets)
    announce(sockets[0].getsockname()[1])


async def main():
    framework, name, port = sys.argv[1:]
    done = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, done.set)
    await {"aiohttp": serve_aiohttp, "tornado": serve_tornado}[framework](name, int(port))
    await done.wait()


if __name__ == "__main__":
    asyncio.run(main())
