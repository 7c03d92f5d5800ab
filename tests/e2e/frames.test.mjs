// What arrives through Sluice is what arrives without it: messages of every size, their types,
// fragments, pings, pongs, and close codes with their reasons, in both directions, plain and over
// TLS, with and without permessage-deflate.
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import WebSocket, { WebSocketServer } from 'ws';
import { startSluice, within } from './lib/sluice.mjs';
import { WireClient, encode, listen, opcodes, wireServer } from './lib/wire.mjs';

const MiB = 1 << 20;
const sizes = [0, 1, 125, 126, 127, 65535, 65536, MiB, 16 * MiB];
const closeCodes = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000,
  4000, 4999];

// Bytes that look random but are the same in every run; text that deflate can shrink to three
// quarters, so that 16 MiB stay below the message limit when compressed.
function payload(size) {
  const out = Buffer.alloc(size);
  let state = 0x12345678 ^ size;
  for (let i = 0; i < size; i += 1) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    out[i] = 48 + (state >>> 26);
  }
  return out;
}

const digest = (data) => createHash('sha256').update(data).digest('hex').slice(0, 16);

// Both ends of one session, and what each saw.
class Session {
  static async open(server, url, options) {
    const session = new Session();
    const arrived = once(server, 'connection');
    session.client = new WebSocket(url, options);
    const [[backend]] = await within('the session', Promise.all([
      arrived, once(session.client, 'open')]));
    session.backend = backend;
    session.seen = { client: [], backend: [] };
    for (const side of ['client', 'backend']) {
      const note = (...what) => session.seen[side].push(what);
      session[side].on('message', (data, binary) => note('message', binary, data.length,
        digest(data)));
      session[side].on('ping', (data) => note('ping', data.toString('hex')));
      session[side].on('pong', (data) => note('pong', data.toString('hex')));
      session[side].on('close', (code, reason) => note('close', code, reason.toString()));
      session[side].on('error', (error) => note('error', error.message));
    }
    return session;
  }

  // Resolves when `side` sees its next `event`.
  next(side, event) {
    return within(`${event} at the ${side}`, once(this[side], event), 20_000);
  }

  // Closes from `side` and waits until both ends are closed.
  async close(side, ...closing) {
    const done = Promise.all([this.next('client', 'close'), this.next('backend', 'close')]);
    this[side].close(...closing);
    await done;
    return this.seen;
  }
}

async function sendEverySize(session) {
  for (const size of sizes) {
    for (const binary of [false, true]) {
      for (const [from, to] of [['client', 'backend'], ['backend', 'client']]) {
        const arrived = session.next(to, 'message');
        session[from].send(payload(size), { binary });
        await arrived;
      }
    }
  }
  return session.close('client', 1000);
}

async function sendFragments(session) {
  for (const [from, to] of [['client', 'backend'], ['backend', 'client']]) {
    for (const binary of [false, true]) {
      const arrived = session.next(to, 'message');
      const pinged = session.next(to, 'ping');
      const answered = session.next(from, 'pong');
      session[from].send(payload(1), { binary, fin: false });
      session[from].send(payload(0), { binary, fin: false });
      session[from].ping('between');
      session[from].send(payload(70_000), { binary, fin: false });
      session[from].send(payload(126), { binary, fin: true });
      // A ping may overtake what is being compressed: it is not compared by position.
      await Promise.all([arrived, pinged, answered]);
    }
  }
  const seen = await session.close('backend', 1000);
  for (const side of Object.keys(seen)) {
    seen[side].sort();
  }
  return seen;
}

async function sendPings(session) {
  for (const [from, to] of [['client', 'backend'], ['backend', 'client']]) {
    for (const size of [0, 1, 125]) {
      const arrived = session.next(to, 'ping');
      const answered = session.next(from, 'pong');
      session[from].ping(payload(size));
      await Promise.all([arrived, answered]);
      const unasked = session.next(to, 'pong');
      session[from].pong(payload(size));
      await unasked;
    }
  }
  return session.close('client', 1000);
}

describe('frames', () => {
  let sluice;
  let ca;
  const servers = {};

  before(async () => {
    const backends = [];
    for (const deflate of [false, true]) {
      servers[deflate] = new WebSocketServer({
        port: 0,
        host: '127.0.0.1',
        maxPayload: 64 * MiB,
        perMessageDeflate: deflate && { threshold: 0 },
      });
      await once(servers[deflate], 'listening');
      servers[deflate].url = `ws://127.0.0.1:${servers[deflate].address().port}`;
    }
    backends.push({ name: 'ws', address: servers[true].url.slice(5) });
    sluice = await startSluice({
      backends,
      tables: `
[[route]]
path = "/uncompressed"
pool = "uncompressed"

[pool.uncompressed]
backends = [{ name = "uncompressed", address = "${servers[false].url.slice(5)}" }]
`,
    });
    ca = fs.readFileSync(path.join(sluice.folder, 'localhost.pem'));
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    for (const server of Object.values(servers)) {
      server.close();
    }
  });

  for (const deflate of [false, true]) {
    const target = deflate ? '/compressed?x=1' : '/uncompressed?x=1';
    const open = (base) => Session.open(servers[deflate], base + target,
      { ca, perMessageDeflate: deflate && { threshold: 0 }, maxPayload: 64 * MiB });

    for (const kind of ['ws', 'wss']) {
      const name = `${kind}, ${deflate ? 'permessage-deflate' : 'uncompressed'}`;

      for (const act of [sendEverySize, sendFragments, sendPings]) {
        test(`${act.name}: ${name}`, async () => {
          const direct = await act(await open(servers[deflate].url));
          const session = await open(sluice[kind]);
          assert.equal(session.client.extensions.includes('permessage-deflate'), deflate);
          const through = await act(session);
          assert.ok(direct.client.length >= 4 && direct.backend.length >= 4);
          assert.deepEqual(through, direct);
        });
      }

      test(`every close code from either side: ${name}`, async () => {
        const closings = closeCodes.map((code) => [code, `because of ${code}`]);
        closings.push([], [1000], [4999, 'r'.repeat(123)]);
        for (const side of ['client', 'backend']) {
          for (const closing of closings) {
            const direct = await (await open(servers[deflate].url)).close(side, ...closing);
            const through = await (await open(sluice[kind])).close(side, ...closing);
            assert.deepEqual(through, direct);
            const [code = 1005, reason = ''] = closing;
            const other = side === 'client' ? 'backend' : 'client';
            assert.deepEqual(through[other], [['close', code, reason]]);
          }
        }
      });
    }
  }

  test('a message of one byte more than the limit is refused with 1009 to both sides', async () => {
    const session = await Session.open(servers[false], `${sluice.ws}/uncompressed`,
      { perMessageDeflate: false });
    const closed = Promise.all([session.next('client', 'close'), session.next('backend', 'close')]);
    session.client.send(Buffer.alloc(16 * MiB + 1));
    const [[clientCode], [backendCode]] = await closed;
    assert.equal(clientCode, 1009);
    assert.notEqual(backendCode, 1006);
    assert.deepEqual(session.seen.backend.filter(([what]) => what === 'message'), []);
  });
});

test('the relayed bytes are the sent bytes, frame by frame', async () => {
  let backendSocket;
  const received = { client: [], backend: [] };
  const server = wireServer((socket) => {
    backendSocket = socket;
    return (bytes) => received.backend.push(bytes);
  });
  const sluice = await startSluice({ backends: [{ name: 'wire', address: await listen(server) }] });
  const client = await WireClient.open({ port: sluice.port });
  client.onBytes = (bytes) => received.client.push(bytes);

  const stream = (masked) => {
    const frames = [];
    const add = (opcode, size, fin) => frames.push(encode(opcode, randomBytes(size),
      { fin, mask: masked ? randomBytes(4) : null }));
    // 90 control frames: a client may send 100 at once.
    for (let round = 0; round < 30; round += 1) {
      add(round % 2 ? opcodes.text : opcodes.binary, round * 37, false);
      for (let fragment = 0; fragment < round % 5; fragment += 1) {
        add(opcodes.continuation, fragment === 3 ? 66_000 : fragment, false);
        add(opcodes.ping, fragment * 31, true);
      }
      add(opcodes.continuation, 125 + (round % 3), true);
      add(opcodes.pong, round, true);
    }
    return Buffer.concat(frames);
  };

  for (const [side, socket, bytes] of [['backend', client.socket, stream(true)],
    ['client', backendSocket, stream(false)]]) {
    // In pieces of 1 to 3,000 bytes: headers are cut everywhere.
    for (let at = 0, size = 1; at < bytes.length; at += size, size = (size * 7 + 1) % 3000 + 1) {
      socket.write(bytes.subarray(at, at + size));
    }
    const arrived = (async () => {
      while (Buffer.concat(received[side]).length < bytes.length) {
        await once(side === 'backend' ? backendSocket : client.socket, 'data');
      }
    })();
    await within(`all bytes at the ${side}`, arrived);
    assert.equal(digest(Buffer.concat(received[side])), digest(bytes));
  }

  client.socket.destroy();
  assert.equal(await sluice.stop(), 0);
  server.close();
  backendSocket.destroy();
});
