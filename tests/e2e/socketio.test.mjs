// Socket.IO through Sluice with two backend processes. A session starts with HTTP polling and then
// upgrades to WebSocket: all its requests have to reach the process that knows its id. Nothing in
// the client tells Sluice which that is but the cookie that Sluice issues itself.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { io } from 'socket.io-client';
import { startHelper, startSluice, waitFor, within } from './lib/sluice.mjs';

const clients = 200;

describe('socket.io', () => {
  let sluice;
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push({ name, ...await startHelper('socketio_backend.mjs', [name]) });
    }
    sluice = await startSluice({
      backends,
      route: 'affinity = ["cookie:sticky", "ip"]\naffinity_cookie = "sticky"',
    });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    await Promise.all(backends.map((backend) => backend.stop()));
  });

  test(`${clients} clients poll, upgrade and talk, each to one backend`, async () => {
    const errors = [];
    const sockets = Array.from({ length: clients }, () => {
      const socket = io(sluice.http, { forceNew: true, withCredentials: true, reconnection: false });
      socket.on('connect_error', (error) => errors.push(error.message));
      return socket;
    });
    const count = new Map();
    try {
      await within('200 conversations', Promise.all(sockets.map(async (socket, index) => {
        const names = new Set();
        const say = async (message) => {
          const answer = await socket.timeout(20_000).emitWithAck('say', message);
          assert.equal(answer.message, message);
          names.add(answer.name);
        };
        await say(`${index} by polling or not`);
        await waitFor('the upgrade', () => socket.io.engine.transport.name === 'websocket', 20_000);
        await say(`${index} by WebSocket`);
        assert.equal(names.size, 1);
        const [name] = names;
        count.set(name, (count.get(name) ?? 0) + 1);
      })), 60_000);
      assert.deepEqual(errors, []);

      // The cookie is the only affinity: half of the clients each, give or take.
      assert.equal(count.size, 2);
      for (const [name, share] of count) {
        assert.ok(share > clients / 4, `${name} has ${share} of ${clients}`);
      }
      const totals = await Promise.all(backends.map((backend) => backend.ask({})));
      const sum = (key) => totals.reduce((total, counts) => total + counts[key], 0);
      assert.equal(sum('unknown'), 0);
      assert.equal(sum('sessions'), clients);
      assert.equal(sum('upgraded'), clients);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
    }
  });
});
