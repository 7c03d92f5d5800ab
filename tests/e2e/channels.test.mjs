// The JavaScript clients of Phoenix and of Centrifugo through Sluice in a rolling restart, to small
// servers that speak their protocols. Each has codes after which it stays away: Phoenix 1000,
// Centrifuge 1009 and the 3500s, and reasons that are JSON. After Sluice's CLOSE both come back by
// themselves, with the waits that they have by default, join or subscribe anew, and lose nothing.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { Centrifuge } from 'centrifuge';
import { Socket } from 'phoenix';
import WebSocket from 'ws';
import { Backend, rollingRestart } from './lib/rolling.mjs';
import { startSluice, waitFor } from './lib/sluice.mjs';

const clients = 10; // of each

// Says a thing again until it is answered, and then the next one.
class PhoenixTalker {
  constructor(url) {
    Object.assign(this, { answered: 0, opens: 0, joins: 0, closes: [], wrong: 0 });
    this.socket = new Socket(`${url}/socket`, { transport: WebSocket });
    this.socket.onOpen(() => {
      this.opens += 1;
    });
    this.socket.onClose(({ code, reason }) => this.closes.push(`${code} ${reason}`));
    this.socket.connect();
    this.channel = this.socket.channel('room:one', {});
    this.channel.join().receive('ok', () => {
      this.joins += 1;
    });
    this.done = this.talk();
  }

  say(text) {
    return new Promise((resolve) => {
      this.channel.push('say', { text }, 1000)
        .receive('ok', resolve)
        .receive('error', () => resolve(null))
        .receive('timeout', () => resolve(null));
    });
  }

  async talk() {
    while (!this.ended) {
      if (this.channel.state === 'joined' && this.socket.isConnected()) {
        const text = `${this.answered + 1}`;
        const answer = await this.say(text);
        if (answer) {
          this.wrong += answer.text === text ? 0 : 1;
          this.answered += 1;
          this.name = answer.name;
        }
      }
      await delay(20);
    }
  }

  async end() {
    this.ended = true;
    await this.done;
    this.socket.disconnect();
  }
}

// Follows a channel with recovery, and asks by rpc.
class Follower {
  constructor(url) {
    Object.assign(this, { answered: 0, opens: 0, closes: [], wrong: 0, recovered: 0, number: 0 });
    this.client = new Centrifuge(`${url}/connection/websocket`, { websocket: WebSocket });
    this.client.on('connected', () => {
      this.opens += 1;
    });
    this.client.on('connecting', ({ code, reason }) => this.closes.push(`${code} ${reason}`));
    this.client.on('disconnected', () => {
      this.disconnected = true;
    });
    this.subscription = this.client.newSubscription('news');
    this.subscription.on('publication', ({ data }) => {
      this.wrong += data.number === this.number + 1 ? 0 : 1;
      this.number = data.number;
      this.answered += 1;
      this.name = data.name;
    });
    this.subscription.on('subscribed', ({ wasRecovering, recovered }) => {
      this.recovered += wasRecovering && recovered ? 1 : 0;
    });
    this.subscription.subscribe();
    this.client.connect();
  }

  end() {
    this.client.disconnect();
  }
}

describe('channels', () => {
  let sluice;
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push(await Backend.start('channels_backend.mjs', name));
    }
    sluice = await startSluice({ backends, pool: 'balance = "least_connections"' });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    await Promise.all(backends.map((backend) => backend.stop()));
  });

  test(`${clients} clients each of Phoenix and Centrifugo in a rolling restart`, async () => {
    const talkers = Array.from({ length: clients }, () => new PhoenixTalker(sluice.ws));
    const followers = Array.from({ length: clients }, () => new Follower(sluice.ws));
    const crowd = [...talkers, ...followers];
    const facts = [];
    try {
      const everyoneIsServed = async () => {
        const had = crowd.map(({ answered }) => answered);
        await waitFor('two answers for everyone', () =>
          crowd.every(({ answered }, index) => answered >= had[index] + 2), 30_000);
      };
      await everyoneIsServed();
      assert.equal(new Set(talkers.map(({ name }) => name)).size, 2);
      assert.equal(new Set(followers.map(({ name }) => name)).size, 2);
      await rollingRestart(sluice, backends, {
        empty: async (backend) => facts.push(await backend.ask()),
        between: everyoneIsServed,
      });
      facts.push(...await Promise.all(backends.map((backend) => backend.ask())));

      for (const { opens, joins, closes, wrong } of talkers) {
        assert.equal(wrong, 0);
        assert.deepEqual([...new Set(closes)], ['1012 service restart']);
        assert.equal(opens, closes.length + 1);
        assert.equal(joins, opens);
      }
      for (const { opens, closes, wrong, recovered, disconnected } of followers) {
        assert.equal(wrong, 0);
        assert.equal(disconnected, undefined);
        assert.equal(closes.shift(), '0 connect called');
        // Its own word for every code of a server that it may come back from.
        assert.deepEqual([...new Set(closes)], ['1 transport closed']);
        assert.equal(opens, closes.length + 1);
        assert.equal(recovered, closes.length);
      }
      for (const [kind, those] of [['phoenix', talkers], ['centrifuge', followers]]) {
        assert.equal(facts.reduce((sum, counts) => sum + counts[kind], 0),
          those.reduce((sum, { opens }) => sum + opens, 0));
      }
    } finally {
      await Promise.all(crowd.map((one) => one.end()));
    }
  });
});
