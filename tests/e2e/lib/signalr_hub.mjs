// A hub that speaks SignalR's JSON protocol over all three transports, as a process of its own,
// started as `NAME PORT`. It knows only the connection tokens that it gave out itself; any other is
// answered 404, as ASP.NET Core does. One method, `echo`, and every client is sent numbers by
// invocations of `tick`.
// Prints { address } once it serves; answers any line with { refused, strange, opened }: how often a
// token was not known, how often it was one that another process has given out, and by transport, how
// many connections there were.
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import readline from 'node:readline';
import { WebSocketServer } from 'ws';

const end = '\u001e'; // of a record
const tick = 100; // ms
const [name, port = '0'] = process.argv.slice(2);
const connections = new Map(); // by token
const given = new Set(); // tokens
let refused = 0;
let strange = 0;
const opened = { WebSockets: 0, ServerSentEvents: 0, LongPolling: 0 };

// One connection, whatever carries it: `send` is given by the transport.
class Connection {
  constructor(token) {
    this.token = token;
    this.shaken = false;
    this.number = 0;
  }

  open(transport, send) {
    opened[transport] += 1;
    this.send = send;
  }

  take(text) {
    for (const record of text.split(end).filter(Boolean)) {
      const message = JSON.parse(record);
      if (!this.shaken) {
        this.shaken = true;
        this.send(`{}${end}`);
        this.timer = setInterval(() => {
          this.number += 1;
          this.sendRecord({ type: 1, target: 'tick', arguments: [this.number] });
        }, tick);
      } else if (message.type === 1) {
        this.sendRecord({ type: 3, invocationId: message.invocationId,
          result: { name, text: message.arguments[0] } });
      }
    }
  }

  sendRecord(record) {
    this.send(JSON.stringify(record) + end);
  }

  close() {
    clearInterval(this.timer);
    connections.delete(this.token);
    this.poll?.writeHead(204).end();
  }
}

function negotiate(response) {
  const token = randomUUID();
  given.add(token);
  connections.set(token, new Connection(token));
  response.setHeader('Content-Type', 'application/json');
  response.end(JSON.stringify({
    negotiateVersion: 1,
    connectionId: randomUUID(),
    connectionToken: token,
    availableTransports: Object.keys(opened).map((transport) =>
      ({ transport, transferFormats: ['Text'] })),
  }));
}

function streamEvents(connection, request, response) {
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' });
  response.write(':\r\n');
  connection.open('ServerSentEvents', (text) => response.write(`data: ${text}\r\n\r\n`));
  response.on('close', () => connection.close());
}

// The first poll is answered at once: the connection is there. What is to be sent waits for a poll.
function poll(connection, response) {
  if (!connection.send) {
    connection.waiting = '';
    connection.open('LongPolling', (text) => {
      connection.waiting += text;
      connection.flush();
    });
    connection.flush = () => {
      if (connection.poll && connection.waiting) {
        connection.poll.end(connection.waiting);
        connection.poll = null;
        connection.waiting = '';
      }
    };
    response.end();
    return;
  }
  connection.poll = response;
  connection.flush();
}

function read(request, then) {
  let text = '';
  request.setEncoding('utf8');
  request.on('data', (data) => {
    text += data;
  });
  request.on('end', () => then(text));
}

// The connection that a request names, or null after it was told 404.
function find(request, refuse) {
  const token = new URL(request.url, 'http://hub').searchParams.get('id');
  const connection = connections.get(token);
  if (!connection) {
    refused += 1;
    strange += given.has(token) ? 0 : 1;
    refuse();
  }
  return connection;
}

const server = http.createServer((request, response) => {
  if (new URL(request.url, 'http://hub').pathname === '/hub/negotiate') {
    read(request, () => negotiate(response));
    return;
  }
  const connection = find(request, () => {
    request.resume();
    response.writeHead(404).end('No Connection with that ID');
  });
  if (!connection) {
    return;
  }
  if (request.method === 'POST') {
    read(request, (text) => {
      response.end();
      connection.take(text);
    });
  } else if (request.method === 'DELETE') {
    connection.close();
    response.writeHead(202).end();
  } else if (request.headers.accept === 'text/event-stream') {
    streamEvents(connection, request, response);
  } else {
    poll(connection, response);
  }
});

const sockets = new WebSocketServer({ noServer: true });
server.on('upgrade', (request, socket, head) => {
  const connection = find(request, () =>
    socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n'));
  if (connection) {
    sockets.handleUpgrade(request, socket, head, (ws) => {
      connection.open('WebSockets', (text) => ws.send(text));
      ws.on('message', (data) => connection.take(data.toString()));
      ws.on('close', () => connection.close());
    });
  }
});

server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify({ refused, strange, opened }));
});
