// A Socket.IO echo server as a process of its own, started as `NAME PORT`: an id belongs to the
// process that gave it. A client says numbers with "say"; while it is connected it is sent numbers
// of the server's own with "tick", each of which it acknowledges.
// / is a page with the client that the server brings along.
// Prints { address } once it serves; answers any line with its counts:
//   sessions, upgraded: how many there have been; unknown: requests with an id of nobody;
//   talks: { SESSION: { heard, sent, acked } }: what was said, the last number sent, and acknowledged.
import http from 'node:http';
import readline from 'node:readline';
import { Server } from 'socket.io';

const [name, port = '0'] = process.argv.slice(2);
const server = http.createServer((request, response) => {
  response.setHeader('Content-Type', 'text/html');
  response.end('<!DOCTYPE html><title>Socket.IO</title><script src="/socket.io/socket.io.js"></script>');
});
const io = new Server(server);
let sessions = 0;
let upgraded = 0;
let unknown = 0;
const talks = {};

io.engine.on('connection_error', (error) => {
  if (error.code === 1) { // "Session ID unknown"
    unknown += 1;
  }
});
io.on('connection', (socket) => {
  sessions += 1;
  socket.conn.once('upgrade', () => {
    upgraded += 1;
  });
  const talk = { heard: [], sent: 0, acked: 0 };
  talks[socket.id] = talk;
  socket.on('say', (message, answer) => {
    talk.heard.push(message);
    answer({ message, name });
  });
  const { tick } = socket.handshake.auth; // ms, for who wants any
  const timer = tick && setInterval(() => {
    const { transport } = socket.conn;
    if (transport.name === 'websocket' && transport.socket.readyState !== 1) {
      return; // a CLOSE has come: nothing that is sent now goes anywhere
    }
    talk.sent += 1;
    const number = talk.sent;
    socket.emit('tick', number, () => {
      talk.acked = number;
    });
  }, tick);
  socket.on('disconnect', () => clearInterval(timer));
});

server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify({ sessions, upgraded, unknown, talks }));
});
