// A thousand sessions opened and ended, twenty times, in every way that a session can end: no file
// descriptor and no memory stays behind.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import tls from 'node:tls';
import { metric, startHelper, startSluice, waitFor, within } from './lib/sluice.mjs';
import { WireClient, closePayload, encode, opcodes } from './lib/wire.mjs';

const rounds = Number(process.env.SLUICE_CHURN_ROUNDS ?? 20);
const sessions = 1000;
const tlsSessions = 100; // of these; a handshake costs the client more than a plain session
const warmUp = 3; // rounds, after which caches and pools have their size
const bound = 2 << 20; // bytes that RSS may be above what it was after the warm-up

const openFiles = (pid) => fs.readdirSync(`/proc/${pid}/fd`).length;

function residentBytes(pid) {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)[1]) * 1024;
}

// How a session ends: with a CLOSE of either side, or without one.
const endings = [
  (client) => client.sendClose(1000, 'done'),
  (client) => client.send('close', opcodes.text), // asks the backend to close
  (client) => client.socket.end(), // FIN without CLOSE
  (client) => client.socket.resetAndDestroy(),
  (client) => { // RST in the middle of a frame
    client.socket.write(encode(opcodes.binary, Buffer.alloc(1000),
      { mask: Buffer.alloc(4) }).subarray(0, 500), () => client.socket.resetAndDestroy());
  },
];

test(`${sessions} sessions, ${rounds} rounds: files and memory come back`, async () => {
  const backend = await startHelper('echo_backend.mjs');
  const sluice = await startSluice({ backends: [{ name: 'echo', address: backend.address }] });
  const ca = fs.readFileSync(path.join(sluice.folder, 'localhost.pem'));
  const tlsPort = Number(new URL(sluice.https).port);

  const overTls = () => within('a TLS session', new Promise((resolve, reject) => {
    const socket = tls.connect({ port: tlsPort, host: '127.0.0.1', servername: 'localhost', ca });
    const received = [];
    socket.on('error', reject);
    socket.on('secureConnect', () => socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n' +
      'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
      'Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n'));
    socket.once('data', () => {
      const mask = Buffer.from([1, 2, 3, 4]);
      socket.on('data', (data) => received.push(data));
      socket.write(encode(opcodes.text, 'hello', { mask }));
      socket.write(encode(opcodes.close, closePayload(1000), { mask }));
    });
    socket.on('end', () => socket.end());
    socket.on('close', () => resolve(Buffer.concat(received)));
  }), 20_000);

  const overPlain = async (index) => {
    const client = await WireClient.open({ port: sluice.port });
    const answer = within('the echo', new Promise((resolve) => {
      client.onMessage = resolve;
    }), 20_000);
    client.send(`hello ${index}`);
    assert.equal((await answer).toString(), `hello ${index}`);
    return client;
  };

  const wanted = Buffer.concat([encode(opcodes.text, 'hello'),
    encode(opcodes.close, closePayload(1000))]);
  const memory = [];
  let files = 0;
  for (let round = 1; round <= rounds; round += 1) {
    const secure = Array.from({ length: tlsSessions }, overTls);
    const open = await Promise.all(Array.from({ length: sessions - tlsSessions },
      (_, index) => overPlain(index)));
    open.forEach((client, index) => endings[index % endings.length](client));
    await within('the end of all sessions',
      Promise.all(open.map((client) => client.ended)), 20_000);
    for (const received of await Promise.all(secure)) {
      assert.ok(received.equals(wanted), received.toString('hex'));
    }
    await waitFor('no session left', async () =>
      await metric(sluice, 'sluice_sessions_open') === 0);
    if (round >= warmUp) {
      // The scrape itself holds a connection, kept alive by fetch: the same one every time.
      files ||= openFiles(sluice.pid);
      await waitFor(`the files of before, ${files}`, () => openFiles(sluice.pid) === files)
        .catch(() => assert.equal(openFiles(sluice.pid), files));
      memory.push(residentBytes(sluice.pid));
    }
  }
  const [before] = memory;
  assert.ok(Math.max(...memory) <= before + bound,
    `RSS in KiB after each round: ${memory.map((bytes) => bytes >> 10)}`);

  assert.equal(await sluice.stop(), 0);
  await backend.stop();
});
