// A SignalR hub with one method, `echo`, that speaks the JSON protocol over all three transports:
// WebSockets, ServerSentEvents and LongPolling. It knows only the connection tokens that it gave out
// itself; any other is refused with 404 and noted.
import { randomBytes, randomUUID } from 'node:crypto';
import http from 'node:http';
import zlib from 'node:zlib';
import { WebSocketServer } from 'ws';

const end = '\u001e'; // of a record
const transports = ['WebSockets', 'ServerSentEvents', 'LongPolling'];

// One connection, whatever carries it: `deliver` takes text to the client, or is null while nothing
// does.
class Connection {
  constructor(name) {
    this.name = name;
    this.shaken = false;
    this.waiting = '';
    this.deliver = null;
  }

  take(text) {
    for (const record of text.split(end).filter(Boolean)) {
      const message = JSON.parse(record);
      if (!this.shaken) {
        this.shaken = true;
        this.send('{}');
      } else if (message.type === 1) {
        this.send(JSON.stringify({ type: 3, invocationId: message.invocationId,
          result: { name: this.name, text: message.arguments[0] } }));
      }
    }
  }

  send(record) {
    this.waiting += record + end;
    this.flush();
  }

  flush() {
    if (this.deliver && this.waiting) {
      const text = this.waiting;
      this.waiting = '';
      this.deliver(text);
    }
  }
}

async function textOf(request) {
  let text = '';
  for await (const piece of request) {
    text += piece;
  }
  return text;
}

export class Hub {
  constructor(name) {
    this.name = name;
    this.connections = new Map();
    this.refused = []; // tokens of somebody else
    this.compressed = 0; // answers to negotiate that a client has let us compress
    this.cookies = 0; // requests with a cookie
    this.sockets = new WebSocketServer({ noServer: true });
    this.server = http.createServer((request, response) => this.#serve(request, response));
    this.server.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, head));
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }

  #negotiate(request, response) {
    request.resume();
    const token = randomBytes(16).toString('base64url');
    this.connections.set(token, new Connection(this.name));
    let content = JSON.stringify({
      negotiateVersion: 1,
      connectionId: randomUUID(),
      connectionToken: token,
      availableTransports: transports.map((transport) => ({ transport,
        transferFormats: ['Text'] })),
    });
    response.setHeader('Content-Type', 'application/json');
    if (/gzip/.test(request.headers['accept-encoding'])) {
      this.compressed += 1;
      response.setHeader('Content-Encoding', 'gzip');
      content = zlib.gzipSync(content);
    }
    response.end(content);
  }

  // Null: refused.
  #connectionOf(request) {
    this.cookies += request.headers.cookie ? 1 : 0;
    const token = new URL(request.url, 'http://hub').searchParams.get('id');
    const connection = this.connections.get(token);
    if (!connection) {
      this.refused.push(token);
    }
    return connection ?? null;
  }

  async #serve(request, response) {
    if (new URL(request.url, 'http://hub').pathname.endsWith('/negotiate')) {
      this.#negotiate(request, response);
      return;
    }
    const connection = this.#connectionOf(request);
    if (!connection) {
      request.resume();
      response.writeHead(404).end();
    } else if (request.method === 'POST') {
      connection.take(await textOf(request));
      response.end();
    } else if (request.method === 'DELETE') {
      connection.deliver?.('');
      response.writeHead(202).end();
    } else if (request.headers.accept === 'text/event-stream') {
      this.#streamEvents(connection, response);
    } else {
      this.#answerPoll(connection, response);
    }
  }

  #streamEvents(connection, response) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' });
    response.write(':\r\n\r\n');
    connection.deliver = (text) => response.write(`data: ${text}\r\n\r\n`);
    connection.flush();
  }

  // The first poll is answered at once, the others when there is something to say.
  #answerPoll(connection, response) {
    if (!connection.polled) {
      connection.polled = true;
      response.end();
      return;
    }
    connection.deliver = (text) => {
      connection.deliver = null;
      response.writeHead(text ? 200 : 204).end(text);
    };
    connection.flush();
  }

  #upgrade(request, socket, head) {
    const connection = this.#connectionOf(request);
    if (!connection) {
      socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
      return;
    }
    this.sockets.handleUpgrade(request, socket, head, (ws) => {
      connection.deliver = (text) => ws.send(text);
      ws.on('message', (data) => connection.take(data.toString()));
    });
  }
}
