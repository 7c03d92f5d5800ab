// Socket.IO through Sluice with two backend processes. A session starts with HTTP polling and then
// upgrades to WebSocket, or stays with polling: all its requests have to reach the process that
// knows its id. Nothing in the client tells Sluice which that is but the cookie that Sluice issues.
//
// In a rolling restart a WebSocket gets a CLOSE, which the client takes for a lost transport: it
// connects anew, elsewhere. A client that polls has no connection that could be closed.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { chromium } from 'playwright-core';
import { io } from 'socket.io-client';
import { Backend, long, rollingRestart } from './lib/rolling.mjs';
import { everybodyLeft, startSluice, waitFor, within } from './lib/sluice.mjs';

const clients = 200;
const talkers = long ? 500 : 24;
const pause = long ? 1000 : 100; // ms between two messages, each way, of a talker

// A client that says numbers, one after the answer to the one before, over however many sessions
// it takes; a message without an answer is sent again. Counts what the server says, by session.
class Talker {
  constructor(url, transports) {
    this.said = 0;
    this.answered = 0;
    this.ticks = new Map(); // session -> the last number
    this.gaps = 0;
    this.errors = [];
    this.socket = io(url, { forceNew: true, withCredentials: true, transports,
      auth: { tick: pause }, reconnectionDelay: 100, reconnectionDelayMax: 1000,
      retries: 100, ackTimeout: 60_000 });
    this.socket.on('connect_error', (error) => this.errors.push(error.message));
    this.socket.on('connect', () => this.ticks.set(this.socket.id, 0));
    this.socket.on('tick', (number, answer) => {
      this.gaps += number === this.ticks.get(this.socket.id) + 1 ? 0 : 1;
      this.ticks.set(this.socket.id, number);
      answer();
    });
    this.done = this.talk();
  }

  async talk() {
    while (!this.ended) {
      this.said += 1;
      const answer = await this.socket.emitWithAck('say', this.said);
      assert.equal(answer.message, this.said);
      this.answered += 1;
      this.name = answer.name;
      await delay(pause);
    }
  }

  async end() {
    this.ended = true;
    await this.done;
    this.socket.disconnect();
  }
}

describe('socket.io', () => {
  let sluice;
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push(await Backend.start('socketio_backend.mjs', name));
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
      const totals = await Promise.all(backends.map((backend) => backend.ask()));
      const sum = (key) => totals.reduce((total, counts) => total + counts[key], 0);
      assert.equal(sum('unknown'), 0);
      assert.equal(sum('sessions'), clients);
      assert.equal(sum('upgraded'), clients);
    } finally {
      sockets.forEach((socket) => socket.disconnect());
    }
    await everybodyLeft(sluice);
  });

  for (const transports of [['polling', 'websocket'], ['polling']]) {
    test(`${talkers} clients by ${transports.join(', then ')} in a rolling restart`, async () => {
      const unknownBefore = (await Promise.all(backends.map((backend) => backend.ask())))
        .reduce((sum, { unknown }) => sum + unknown, 0);
      const crowd = Array.from({ length: talkers }, () => new Talker(sluice.http, transports));
      const facts = [];
      try {
        const everyoneTalks = async () => {
          const heard = crowd.map(({ answered }) => answered);
          await waitFor('two answers for everyone', () =>
            crowd.every(({ answered, socket }, index) => answered >= heard[index] + 2 &&
              socket.io.engine?.transport.name === transports.at(-1)), long ? 120_000 : 30_000);
        };
        await everyoneTalks();
        const homes = new Set(crowd.map(({ name }) => name));
        assert.deepEqual([...homes].sort(), ['one', 'two']);

        await rollingRestart(sluice, backends, {
          window: long ? '10s' : '300ms',
          empty: async (backend) => facts.push(await backend.ask()),
          between: everyoneTalks,
        });
        await within('the last answers', Promise.all(crowd.map((talker) => talker.end())), 60_000);
        facts.push(...await Promise.all(backends.map((backend) => backend.ask())));

        const talks = Object.assign({}, ...facts.map((fact) => fact.talks));
        const lost = [];
        for (const { said, answered, gaps, ticks } of crowd) {
          // No message was given up, and none of a session's was missed.
          assert.equal(answered, said);
          assert.equal(gaps, 0);
          const sessions = [...ticks];
          assert.ok(sessions.length >= 2, 'a client that was never moved');
          sessions.pop(); // ended by the client, whatever the server has just sent
          for (const [id, last] of sessions) {
            // What a backend sent before it answered the CLOSE has arrived. A server that is polled
            // keeps some for the poll that does not come.
            const { sent, acked, heard } = talks[id];
            heard.forEach((number, index) => assert.equal(number, heard[0] + index));
            if (transports.at(-1) === 'websocket' ? last !== sent : last < acked || last > sent) {
              lost.push(`${id}: ${last} of ${sent}`);
            }
          }
        }
        assert.deepEqual(lost, []);
        const moved = crowd.reduce((sum, { ticks }) => sum + ticks.size - 1, 0);
        assert.ok(moved <= 2 * talkers, `${moved} moves, of which each client needs two at most`);

        const unknown = facts.reduce((sum, fact) => sum + fact.unknown, -unknownBefore);
        if (transports.at(-1) === 'websocket') {
          assert.equal(unknown, 0);
        } else {
          // Being told so once is how a client that polls learns that its server is gone: by the
          // poll and by what it sends beside it, in each session but the last.
          assert.ok(unknown >= moved && unknown <= 4 * moved, `${unknown} times, ${moved} moved`);
        }
        assert.deepEqual(crowd.flatMap(({ errors }) => errors), []);
      } finally {
        crowd.forEach(({ socket }) => socket.disconnect());
      }
      await everybodyLeft(sluice);
    });
  }

  if (long) {
    // A browser keeps one cookie for all, over TLS one that is Secure.
    test('a page in Chromium over TLS in a rolling restart', async () => {
      const browser = await chromium.launch({
        executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
        args: ['--no-sandbox'], // the tests may run as root, where the sandbox does not start
      });
      try {
        const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
        await page.goto(`${sluice.https}/`);
        await page.evaluate(() => {
          const talk = async (state, socket) => {
            for (;;) {
              state.said += 1;
              const { message } = await socket.emitWithAck('say', state.said);
              state.wrong += message === state.said ? 0 : 1;
              state.answered += 1;
              await new Promise((resolve) => setTimeout(resolve, 50));
            }
          };
          globalThis.states = [['polling', 'websocket'], ['polling', 'websocket'], ['polling']]
            .map((transports) => {
              const state = { said: 0, answered: 0, wrong: 0, connects: 0, transport: '' };
              const socket = globalThis.io({ forceNew: true, transports, reconnectionDelay: 100,
                retries: 100, ackTimeout: 5000 });
              socket.on('connect', () => {
                state.connects += 1;
              });
              setInterval(() => {
                state.transport = socket.io.engine?.transport?.name;
              }, 10);
              talk(state, socket);
              return state;
            });
        });
        const look = () => page.evaluate(() => globalThis.states);
        const everyoneTalks = async () => {
          const had = (await look()).map(({ answered }) => answered);
          await waitFor('two answers for everyone', async () =>
            (await look()).every(({ answered }, index) => answered >= had[index] + 2), 30_000);
        };
        await everyoneTalks();
        assert.deepEqual((await look()).map(({ transport }) => transport),
          ['websocket', 'websocket', 'polling']);
        const connectsOf = async () => (await look()).map(({ connects }) => connects);
        let moved;
        await rollingRestart(sluice, backends, {
          window: '1s',
          empty: async () => {
            await everyoneTalks();
            moved = await connectsOf();
          },
          between: async () => {
            await everyoneTalks();
            assert.deepEqual(await connectsOf(), moved, 'torn by a home that is back');
          },
        });
        const states = await look();
        for (const { wrong, connects } of states) {
          assert.equal(wrong, 0);
          assert.ok(connects >= 2 && connects <= 3, `${connects} sessions`);
        }
      } finally {
        await browser.close();
      }
    });
  }
});
