// What SIGTERM means to 2,000 clients that talk: a CLOSE with 1012 for every one of them, spread over
// the window, and no message lost that a backend sent before it answered the CLOSE.
import assert from 'node:assert/strict';
import { randomInt } from 'node:crypto';
import { test } from 'node:test';
import { metric, startHelper, startSluice, waitFor, within } from './lib/sluice.mjs';
import { WireClient, opcodes } from './lib/wire.mjs';

const clients = 2000;
const seconds = 5; // drain.window
const interval = 1000; // ms between two messages of one client
const tick = 50;

test(`SIGTERM with ${clients} open sessions under traffic`, async () => {
  const backends = [];
  for (const name of ['one', 'two', 'three']) {
    backends.push({ name, ...await startHelper('counting_backend.mjs') });
  }
  const sluice = await startSluice({
    backends,
    workers: 2,
    route: 'affinity = ["query:id"]',
    tables: `[drain]\nwindow = "${seconds}s"\ngrace = "10s"`,
  });

  const states = [];
  const connect = async (index) => {
    const state = { id: `id=${index}`, received: 0, gaps: 0, sent: 0, closedAt: 0, afterClose: 0,
      slot: randomInt(interval / tick) };
    const listen = (client) => {
      client.onMessage = (payload) => {
        const number = Number.parseInt(payload.toString('latin1', 0, 12), 10);
        state.gaps += number === state.received + 1 ? 0 : 1;
        state.received = number;
        state.afterClose += client.close ? 1 : 0;
      };
      client.onClose = () => {
        state.closedAt = performance.now();
      };
    };
    state.client = await WireClient.open({ port: sluice.port, path: `/?id=${index}`, listen });
    states.push(state);
  };
  for (let at = 0; at < clients; at += 100) {
    await Promise.all(Array.from({ length: 100 }, (_, index) => connect(at + index)));
  }

  let slot = 0;
  const timer = setInterval(() => {
    slot = (slot + 1) % (interval / tick);
    for (const state of states) {
      if (state.slot === slot && !state.client.answered) {
        state.sent += 1;
        if (state.sent % 8 === 0) {
          state.client.send(`${state.sent} `, opcodes.text, false);
          state.client.send(Buffer.alloc(5000, 0x2e), opcodes.continuation, true);
        } else {
          state.client.send(`${state.sent} `);
        }
      }
    }
  }, tick);

  try {
    await waitFor('traffic on every session', () => states.every(({ received }) => received >= 2));
    assert.equal(await metric(sluice, 'sluice_sessions_open'), clients);

    const started = performance.now();
    const exited = sluice.stop('SIGTERM', 30_000);
    const ends = await within('the end of every session',
      Promise.all(states.map(({ client }) => client.ended)), 25_000);
    assert.equal(await exited, 0);

    const count = new Map();
    for (const { code } of ends) {
      count.set(code, (count.get(code) ?? 0) + 1);
    }
    assert.deepEqual([...count], [[1012, clients]], `codes: ${JSON.stringify([...count])}`);
    assert.ok(ends.every(({ reason }) => reason === 'service restart'));

    const bins = new Array(seconds * 10).fill(0);
    let late = 0;
    for (const { closedAt } of states) {
      const bin = Math.floor((closedAt - started) / 100);
      if (bin < bins.length) {
        bins[bin] += 1;
      } else {
        late += 1;
      }
    }
    const mean = clients / bins.length;
    assert.ok(Math.max(...bins) <= 3 * mean, `closes per 100 ms: ${bins}`);
    assert.ok(late <= clients / 100, `${late} closes after the window: ${bins}`);
    for (let second = 0; second < seconds; second += 1) {
      const share = bins.slice(second * 10, second * 10 + 10).reduce((sum, n) => sum + n, 0);
      assert.ok(share >= clients / seconds / 2, `second ${second}: ${share} closes`);
    }

    const facts = {};
    let open = 0;
    let gaps = 0;
    for (const backend of backends) {
      const answer = await backend.ask({});
      Object.assign(facts, answer.sessions);
      open += answer.open;
      gaps += answer.gaps;
    }
    assert.equal(Object.keys(facts).length, clients);
    assert.equal(open, 0);
    assert.equal(gaps, 0, 'messages of clients arrive without gaps');
    const lost = [];
    for (const { id, received, gaps: missed, afterClose } of states) {
      if (missed > 0 || afterClose > 0 || received !== facts[id].sent) {
        lost.push(`${id}: ${received} of ${facts[id].sent}, ${missed} gaps, ${afterClose} late`);
      }
    }
    assert.deepEqual(lost, []);
    const closes = new Set(Object.values(facts).map(({ close }) => close));
    assert.deepEqual([...closes], [1001]);
  } finally {
    clearInterval(timer);
    await Promise.all(backends.map((backend) => backend.stop()));
  }
});
