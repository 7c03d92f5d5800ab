// SockJS on both sides of Sluice, by every transport that its client has in Node, in a rolling
// restart. All but the WebSocket are several requests to one session, whose id the client draws
// itself and puts into the path, /echo/SERVER/SESSION/TRANSPORT: a rule for the third segment is
// all that keeps them together. What would send a request elsewhere by load is off for that.
//
// The client does not come back by itself; the application opens another session, as here.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import SockJS from 'sockjs-client';
import { Backend, long, rollingRestart } from './lib/rolling.mjs';
import { startSluice, waitFor, within } from './lib/sluice.mjs';

const clients = long ? 30 : 6; // by each transport
const transports = ['websocket', 'xhr-streaming', 'eventsource', 'xhr-polling'];

// Says numbers, each after the answer to the one before, and again where a session ended without.
class Talker {
  constructor(url, transport) {
    Object.assign(this, { url, transport, said: 0, answered: 0, sessions: 0, closes: [], wrong: [] });
    this.open();
    this.done = this.talk();
  }

  open() {
    const socket = new SockJS(this.url, null, { transports: this.transport });
    this.socket = socket;
    const names = new Set();
    socket.onopen = () => {
      this.sessions += 1;
      if (this.answered < this.said) {
        this.say(this.said); // the session before has not answered it
      }
    };
    socket.onmessage = ({ data }) => {
      const [name, number] = data.split(' ');
      names.add(name);
      if (Number(number) !== this.said || names.size > 1) {
        this.wrong.push(`${data} to ${this.said}`);
      }
      this.answered = this.said;
    };
    socket.onclose = ({ code, reason, wasClean }) => {
      this.closes.push({ code, reason, wasClean });
      if (!this.ended) {
        setTimeout(() => this.open(), 50);
      }
    };
  }

  say(number) {
    this.socket.send(`${number}`);
  }

  async talk() {
    while (!this.ended) {
      if (this.answered === this.said && this.socket.readyState === SockJS.OPEN) {
        this.said += 1;
        this.say(this.said);
      }
      await delay(20);
    }
  }

  async end() {
    await waitFor('the last answer', () => this.answered === this.said);
    this.ended = true;
    await this.done;
    this.socket.close();
  }
}

describe('sockjs', () => {
  let sluice;
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push(await Backend.start('sockjs_backend.mjs', name));
    }
    sluice = await startSluice({
      backends,
      route: 'affinity = ["path:3"]',
      pool: 'slow_start = "0s"',
      // A poll, or a streamed answer, that nobody waits for any more is cut after the grace.
      tables: '[drain]\nwindow = "300ms"\ngrace = "500ms"',
    });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    await Promise.all(backends.map((backend) => backend.stop()));
  });

  test(`${clients} clients by each of ${transports.join(', ')} in a rolling restart`, async () => {
    const crowd = transports.flatMap((transport) => Array.from({ length: clients },
      () => new Talker(`${sluice.http}/echo`, transport)));
    const facts = [];
    try {
      const everyoneIsAnswered = async () => {
        const before = crowd.map(({ answered }) => answered);
        await waitFor('two answers for everyone', () =>
          crowd.every(({ answered }, index) => answered >= before[index] + 2), 20_000);
      };
      await everyoneIsAnswered();
      assert.ok(crowd.every(({ sessions }) => sessions === 1));
      const begun = await Promise.all(backends.map((backend) => backend.ask()));
      assert.deepEqual(begun.map(({ lost }) => lost), [0, 0]);
      assert.ok(begun.every(({ protocols }) => Object.keys(protocols).length > 0));
      await rollingRestart(sluice, backends, {
        empty: async (backend) => facts.push(await backend.ask()),
        between: everyoneIsAnswered,
      });
      await Promise.all(crowd.map((talker) => talker.end()));
      facts.push(...await Promise.all(backends.map((backend) => backend.ask())));

      for (const { transport, sessions, closes, wrong, answered, said } of crowd) {
        assert.deepEqual(wrong, []);
        assert.equal(answered, said);
        // Each backend ends once, and once more a session is torn whose home comes back.
        assert.ok(sessions >= 2 && sessions <= 5, `${sessions} sessions by ${transport}`);
        for (const { code, reason } of closes) {
          if (reason === 'Normal closure') {
            assert.equal(code, 1000); // by the client, in the end
          } else if (transport === 'websocket') {
            // 1012 is from after the time of the WebSocket library in Node's SockJS client, which
            // tells 1002 instead.
            assert.deepEqual({ code, reason }, { code: 1002, reason: 'service restart' });
          } else {
            assert.equal(code, 1006, reason);
          }
        }
      }
      // A poll that reaches another backend begins a session there that its client does not want.
      for (const transport of transports) {
        const there = facts.reduce((sum, { protocols }) => sum + (protocols[transport] ?? 0), 0);
        const wanted = crowd.filter((talker) => talker.transport === transport)
          .reduce((sum, { sessions }) => sum + sessions, 0);
        assert.ok(transport === 'websocket' ? there === wanted : there >= wanted,
          `${there} sessions by ${transport} for ${wanted}`);
      }
    } finally {
      crowd.forEach((talker) => {
        talker.ended = true;
        talker.socket.close();
      });
    }
  });
});
