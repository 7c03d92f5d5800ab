// The SignalR client through Sluice: POST negotiate over HTTP, then a WebSocket to the backend that
// negotiated, in front of two small hubs that speak its JSON protocol.
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { HttpTransportType, HubConnectionBuilder, LogLevel } from '@microsoft/signalr';
import { WebSocketServer } from 'ws';
import { startSluice, within } from './lib/sluice.mjs';
import { listen } from './lib/wire.mjs';

const end = '\u001e'; // of a record

// A hub with one method, `echo`. It knows only the connection tokens that it gave out itself.
function startHub(name, refused) {
  const tokens = new Set();
  const sockets = new WebSocketServer({ noServer: true });
  const server = http.createServer((request, response) => {
    const token = randomUUID();
    tokens.add(token);
    request.resume();
    response.setHeader('Content-Type', 'application/json');
    response.end(JSON.stringify({
      negotiateVersion: 1,
      connectionId: randomUUID(),
      connectionToken: token,
      availableTransports: [{ transport: 'WebSockets', transferFormats: ['Text', 'Binary'] }],
    }));
  });
  server.on('upgrade', (request, socket, head) => {
    const token = new URL(request.url, 'http://hub').searchParams.get('id');
    if (!tokens.has(token)) {
      refused.push(token);
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    sockets.handleUpgrade(request, socket, head, (ws) => {
      let shaken = false;
      ws.on('message', (data) => {
        for (const record of data.toString().split(end).filter(Boolean)) {
          const message = JSON.parse(record);
          if (!shaken) {
            shaken = true;
            ws.send(`{}${end}`);
          } else if (message.type === 1) {
            ws.send(JSON.stringify({ type: 3, invocationId: message.invocationId,
              result: { name, text: message.arguments[0] } }) + end);
          }
        }
      });
    });
  });
  return server;
}

describe('signalr', () => {
  let sluice;
  const refused = [];
  const hubs = [];

  before(async () => {
    const backends = [];
    for (const name of ['one', 'two']) {
      const hub = startHub(name, refused);
      hubs.push(hub);
      backends.push({ name, address: await listen(hub) });
    }
    sluice = await startSluice({
      backends,
      route: 'affinity = ["cookie:sticky", "ip"]\naffinity_cookie = "sticky"',
    });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    hubs.forEach((hub) => {
      hub.closeAllConnections();
      hub.close();
    });
  });

  test('twenty clients negotiate and invoke a method of the hub that knows them', async () => {
    const names = await Promise.all(Array.from({ length: 20 }, async (_, index) => {
      const connection = new HubConnectionBuilder()
        .withUrl(`${sluice.http}/hub`, { transport: HttpTransportType.WebSockets })
        .configureLogging(LogLevel.None)
        .build();
      await within('the start', connection.start());
      const answer = await within('the result', connection.invoke('echo', `hello ${index}`));
      assert.equal(answer.text, `hello ${index}`);
      await connection.stop();
      return answer.name;
    }));
    assert.deepEqual(refused, []);
    assert.equal(new Set(names).size, 2);
  });
});
