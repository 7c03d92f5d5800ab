// A backend as a process of its own, for thousands of sessions: sends each one numbered messages
// about once a second, checks the numbers of what it receives, and answers a CLOSE as it came.
// Message: a text frame "NUMBER padding"; every 16th is big and in fragments.
//
// Prints { address } once it serves. Questions, one line of JSON each:
//   {}                 -> { open, gaps, sessions: { ID: { sent, received, close } } }
// where ID is the query of the upgrade, `sent` the last number sent before the CLOSE was answered,
// `received` the last number that came, `close` the code of the CLOSE that came (1006: none).
import { randomInt } from 'node:crypto';
import readline from 'node:readline';
import { FrameReader, closePayload, encode, listen, opcodes, wireServer } from './wire.mjs';

const interval = 1000;
const tick = 50;
const sessions = new Map();
const open = new Set();
let gaps = 0;

function send(session) {
  session.sent += 1;
  const text = Buffer.from(`${session.sent} `);
  if (session.sent % 16 !== 0) {
    session.socket.write(encode(opcodes.text, text));
    return;
  }
  session.socket.write(encode(opcodes.text, text, { fin: false }));
  session.socket.write(encode(opcodes.continuation, Buffer.alloc(20_000, 0x2e), { fin: false }));
  session.socket.write(encode(opcodes.continuation, Buffer.alloc(300, 0x2e)));
}

const server = wireServer((socket, head) => {
  const id = /^GET \S*\?(\S+) /.exec(head)[1];
  const session = { socket, sent: 0, received: 0, close: 1006, slot: randomInt(interval / tick) };
  sessions.set(id, session);
  open.add(session);
  socket.on('close', () => open.delete(session));
  let text = '';
  const reader = new FrameReader(({ opcode, fin, payload }) => {
    if (opcode === opcodes.close) {
      session.close = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      // One last message just before the answer: it has to arrive as well.
      send(session);
      open.delete(session);
      socket.end(encode(opcodes.close, payload.length >= 2 ? closePayload(session.close) : ''));
    } else if (opcode === opcodes.ping) {
      socket.write(encode(opcodes.pong, payload));
    } else if (opcode === opcodes.text || opcode === opcodes.continuation) {
      text += payload.toString('latin1');
      if (fin) {
        const number = Number.parseInt(text, 10);
        gaps += number === session.received + 1 ? 0 : 1;
        session.received = number;
        text = '';
      }
    }
  });
  return (bytes) => reader.push(bytes);
});

let slot = 0;
setInterval(() => {
  slot = (slot + 1) % (interval / tick);
  for (const session of open) {
    if (session.slot === slot) {
      send(session);
    }
  }
}, tick);

console.log(JSON.stringify({ address: await listen(server) }));
readline.createInterface({ input: process.stdin }).on('line', () => {
  const facts = {};
  for (const [id, { sent, received, close }] of sessions) {
    facts[id] = { sent, received, close };
  }
  console.log(JSON.stringify({ open: open.size, gaps, sessions: facts }));
});
