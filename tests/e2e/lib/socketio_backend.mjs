// A Socket.IO echo server as a process of its own: an id belongs to the process that gave it.
// Prints { address } once it serves; answers any line with its counts.
import http from 'node:http';
import readline from 'node:readline';
import { Server } from 'socket.io';

const name = process.argv[2];
const server = http.createServer();
const io = new Server(server);
let sessions = 0;
let upgraded = 0;
let unknown = 0;

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
  socket.on('say', (message, answer) => answer({ message, name }));
});

server.listen(0, '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify({ sessions, upgraded, unknown }));
});
