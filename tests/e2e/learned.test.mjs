// Clients without cookies in front of two servers: SignalR over each of its transports, and Socket.IO
// that polls and then upgrades. All that tells Sluice where they belong is the token in the first
// answer: the pool takes its backends in turn, and so would every other request.
//
// In a rolling restart a session of several requests goes on at the server that drains until its
// instant, and is then told 503 by Sluice: no server is ever asked for a session of another.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { HttpTransportType, HubConnectionBuilder, LogLevel } from '@microsoft/signalr';
import { io } from 'socket.io-client';
import { setTimeout as delay } from 'node:timers/promises';
import { Backend, long, rollingRestart } from './lib/rolling.mjs';
import { metric, startHelper, startSluice, waitFor, within } from './lib/sluice.mjs';
import { Hub } from './lib/hub_in_process.mjs';
import { listen } from './lib/wire.mjs';

const inTurn = 'balance = "round_robin"\nslow_start = "0s"';
const pause = long ? 1000 : 100; // ms between two messages of a client in a rolling restart
const drain = '[drain]\nwindow = "0s"\ngrace = "500ms"';

async function expectAllAtHome(sluice, learned) {
  assert.equal(await metric(sluice, 'sluice_affinity_learned_total'), learned);
  assert.equal(await metric(sluice, 'sluice_affinity_learned_entries'), learned);
  assert.equal(await metric(sluice, 'sluice_affinity_learned_picks_total', ['how="fallback"']), 0);
  assert.equal(await metric(sluice, 'sluice_affinity_unreadable_total'), 0);
}

describe('signalr without cookies', () => {
  let sluice;
  let learned = 0;
  const hubs = [];

  before(async () => {
    const backends = [];
    for (const name of ['one', 'two']) {
      const hub = new Hub(name);
      hubs.push(hub);
      backends.push({ name, address: await listen(hub.server) });
    }
    sluice = await startSluice({
      backends,
      workers: 2,
      pool: inTurn,
      tables: drain,
      route: 'affinity = ["query:id", "ip"]\n' +
        'learn = { json = "connectionToken", from = "/negotiate" }',
    });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    hubs.forEach((hub) => hub.close());
  });

  for (const transport of ['WebSockets', 'ServerSentEvents', 'LongPolling']) {
    test(`twelve clients over ${transport} stay with the hub that knows them`, async () => {
      const names = await Promise.all(Array.from({ length: 12 }, async (_, index) => {
        const connection = new HubConnectionBuilder()
          .withUrl(`${sluice.http}/hub`, { transport: HttpTransportType[transport] })
          .configureLogging(LogLevel.None)
          .build();
        await within('the start', connection.start());
        const heard = new Set();
        for (let i = 0; i < 4; i += 1) {
          const answer = await within('the result', connection.invoke('echo', `${index} ${i}`));
          assert.equal(answer.text, `${index} ${i}`);
          heard.add(answer.name);
        }
        await within('the stop', connection.stop());
        assert.equal(heard.size, 1);
        return [...heard][0];
      }));
      learned += names.length;
      assert.deepEqual(hubs.flatMap((hub) => hub.refused), []);
      assert.equal(new Set(names).size, 2);
      await expectAllAtHome(sluice, learned);
      for (const hub of hubs) {
        assert.equal(hub.compressed, 0, 'the answer can be read');
        assert.equal(hub.cookies, 0);
      }
    });
  }
});

describe('socket.io without cookies', () => {
  let sluice;
  let learned = 0;
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push({ name, ...await startHelper('socketio_backend.mjs', [name]) });
    }
    sluice = await startSluice({
      backends,
      workers: 2,
      pool: inTurn,
      tables: drain,
      route: 'affinity = ["query:sid", "ip"]\nlearn = { json = "sid", from = "/socket.io/" }',
    });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    await Promise.all(backends.map((backend) => backend.stop()));
  });

  for (const [what, transports] of [['poll and upgrade', ['polling', 'websocket']],
    ['only poll', ['polling']]]) {
    test(`forty clients that ${what} stay with the server that knows them`, async () => {
      const clients = 40;
      const errors = [];
      const sockets = Array.from({ length: clients }, () => {
        const socket = io(sluice.http, { forceNew: true, transports, reconnection: false });
        socket.on('connect_error', (error) => errors.push(error.message));
        return socket;
      });
      try {
        const names = await within('the conversations', Promise.all(
          sockets.map(async (socket, index) => {
            const heard = new Set();
            const say = async (message) => {
              const answer = await socket.timeout(20_000).emitWithAck('say', message);
              assert.equal(answer.message, message);
              heard.add(answer.name);
            };
            await say(`${index} first`);
            await waitFor('the last transport',
              () => socket.io.engine.transport.name === transports.at(-1), 20_000);
            await say(`${index} second`);
            await say(`${index} third`);
            assert.equal(heard.size, 1);
            return [...heard][0];
          })), 60_000);
        learned += clients;
        assert.deepEqual(errors, []);
        assert.equal(new Set(names).size, 2);
        const totals = await Promise.all(backends.map((backend) => backend.ask({})));
        const sum = (key) => totals.reduce((total, counts) => total + counts[key], 0);
        assert.equal(sum('unknown'), 0);
        assert.equal(sum('sessions'), learned);
        assert.equal(sum('upgraded'), clients);
        await expectAllAtHome(sluice, learned);
      } finally {
        sockets.forEach((socket) => socket.disconnect());
      }
    });
  }
});

// Every client says one thing after the other and begins a new session when its own has ended.
async function everyoneTalks(crowd) {
  const had = crowd.map(({ answered }) => answered);
  await waitFor('two answers for everyone', () =>
    crowd.every(({ answered }, index) => answered >= had[index] + 2), long ? 120_000 : 30_000);
}

class Poller {
  constructor(url) {
    this.answered = 0;
    this.sessions = 0;
    this.errors = [];
    this.socket = io(url, { forceNew: true, transports: ['polling'], auth: { tick: pause },
      reconnectionDelay: 100, reconnectionDelayMax: 1000, retries: 100, ackTimeout: 60_000 });
    this.socket.on('connect_error', (error) => this.errors.push(error.message));
    this.socket.on('connect', () => {
      this.sessions += 1;
    });
    this.socket.on('tick', (number, answer) => answer());
    this.done = this.talk();
  }

  async talk() {
    while (!this.ended) {
      const { message } = await this.socket.emitWithAck('say', this.answered);
      assert.equal(message, this.answered);
      this.answered += 1;
      await delay(pause);
    }
  }

  async fallSilent() {
    this.ended = true;
    await this.done;
  }
}

class Caller {
  constructor(url, transport) {
    Object.assign(this, { transport, answered: 0, sessions: 1, failures: [] });
    this.connection = new HubConnectionBuilder()
      .withUrl(url, { transport: HttpTransportType[transport] })
      .withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 100 })
      .configureLogging(LogLevel.None)
      .build();
    this.connection.on('tick', () => {});
    this.connection.onreconnected(() => {
      this.sessions += 1;
    });
    this.connection.onclose((error) => {
      this.closed = error ?? true;
    });
  }

  async start() {
    await this.connection.start();
    this.done = this.talk();
  }

  async talk() {
    while (!this.ended && !this.closed) {
      if (this.connection.state === 'Connected') {
        const said = `call ${this.answered}`;
        const answer = await this.connection.invoke('echo', said).catch((error) => {
          this.failures.push(error.message); // under way when its session ended
        });
        if (answer) {
          assert.equal(answer.text, said);
          this.answered += 1;
        }
      }
      await delay(pause / 2);
    }
  }

  async fallSilent() {
    this.ended = true;
    await this.done;
  }
}

describe('rolling restarts without cookies', () => {
  const window = long ? '10s' : '400ms';

  async function withBackends(helper, learn, use) {
    const backends = [];
    for (const name of ['one', 'two']) {
      backends.push(await Backend.start(helper, name));
    }
    const sluice = await startSluice({ backends, workers: 2, pool: inTurn, tables: drain,
      route: learn });
    try {
      await use(sluice, backends);
      assert.equal(await metric(sluice, 'sluice_affinity_learned_picks_total',
        ['how="fallback"']), 0);
      assert.ok(await metric(sluice, 'sluice_affinity_learned_picks_total', ['how="ended"']) > 0);
    } finally {
      assert.equal(await sluice.stop(), 0);
      await Promise.all(backends.map((backend) => backend.stop()));
    }
  }

  // Everybody talks before, during and after. What each backend counted until its end, or until the
  // last answer: before the clients leave, since what they have on its way then names a session that
  // they ended.
  async function countsOfRestart(sluice, backends, crowd) {
    const facts = [];
    await everyoneTalks(crowd);
    await rollingRestart(sluice, backends, { window,
      empty: async (backend) => facts.push(await backend.ask()),
      between: () => everyoneTalks(crowd) });
    await within('the last answers', Promise.all(crowd.map((one) => one.fallSilent())), 60_000);
    facts.push(...await Promise.all(backends.map((backend) => backend.ask())));
    return facts;
  }

  const pollers = long ? 500 : 24;
  test(`${pollers} clients of socket.io that only poll`, () =>
    withBackends('socketio_backend.mjs',
      'affinity = ["query:sid", "ip"]\nlearn = { json = "sid", from = "/socket.io/" }',
      async (sluice, backends) => {
        const crowd = Array.from({ length: pollers }, () => new Poller(sluice.http));
        try {
          const facts = await countsOfRestart(sluice, backends, crowd);
          assert.equal(facts.reduce((sum, { unknown }) => sum + unknown, 0), 0);
          for (const { sessions, errors } of crowd) {
            assert.ok(sessions >= 2 && sessions <= 3, `${sessions} sessions`);
            assert.deepEqual(errors, []);
          }
        } finally {
          crowd.forEach(({ socket }) => socket.disconnect());
        }
      }));

  const callers = long ? 60 : 10;
  test(`${callers} clients of signalr by each of ServerSentEvents and LongPolling`, () =>
    withBackends('signalr_hub.mjs',
      'affinity = ["query:id", "ip"]\nlearn = { json = "connectionToken", from = "/negotiate" }',
      async (sluice, backends) => {
        const crowd = ['ServerSentEvents', 'LongPolling'].flatMap((transport) =>
          Array.from({ length: callers }, () => new Caller(`${sluice.http}/hub`, transport)));
        try {
          await within('all starts', Promise.all(crowd.map((one) => one.start())));
          const facts = await countsOfRestart(sluice, backends, crowd);
          assert.equal(facts.reduce((sum, { strange }) => sum + strange, 0), 0);
          // A POST that crosses the end of its own stream comes to a hub that has just forgotten it.
          const streams = crowd.filter(({ transport }) => transport === 'ServerSentEvents');
          const refused = facts.reduce((sum, fact) => sum + fact.refused, 0);
          assert.ok(refused <= streams.reduce((sum, { sessions }) => sum + sessions - 1, 0),
            `${refused} times refused by the hub that gave the token`);
          for (const { transport, sessions, failures } of crowd) {
            assert.ok(sessions >= 2 && sessions <= 3, `${sessions} sessions by ${transport}`);
            assert.ok(failures.length <= 2 * (sessions - 1), failures.join());
          }
        } finally {
          await Promise.allSettled(crowd.map(({ connection }) => connection.stop()));
        }
      }));
});
