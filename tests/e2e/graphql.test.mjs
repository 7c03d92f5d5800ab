// graphql-ws on both sides of Sluice in a rolling restart. Its client takes most close codes for
// fatal; after 1012 it connects again and subscribes anew by itself, so a subscription goes on.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';
import { Backend, long, rollingRestart } from './lib/rolling.mjs';
import { startSluice, waitFor, within } from './lib/sluice.mjs';

const clients = long ? 100 : 20;

// A client with one subscription that is meant to last, and a query now and then.
class Subscriber {
  constructor(url) {
    this.closes = [];
    this.protocols = [];
    this.errors = [];
    this.number = 0;
    this.events = 0;
    this.gaps = 0;
    this.client = createClient({
      url,
      webSocketImpl: WebSocket,
      retryAttempts: 5, // its default; the wait is not
      retryWait: () => delay(50),
      on: {
        connected: (socket) => {
          this.protocols.push(socket.protocol);
          this.number = 0; // the server counts anew for a subscription that is new to it
        },
        closed: ({ code, reason }) => this.closes.push(`${code} ${reason}`),
        error: (error) => this.errors.push(`${error.message ?? error}`),
      },
    });
    this.client.subscribe({ query: 'subscription { ticks { name number } }' }, {
      next: ({ data }) => {
        const { name, number } = data.ticks;
        this.gaps += number === this.number + 1 ? 0 : 1;
        this.number = number;
        this.name = name;
        this.events += 1;
      },
      error: (error) => this.errors.push(`fatal: ${JSON.stringify(error)}`),
      complete: () => {
        this.completed = true;
      },
    });
  }

  ask(query) {
    return within('the result of a query', new Promise((resolve, reject) => {
      let result;
      this.client.subscribe({ query }, {
        next: (value) => {
          result = value;
        },
        error: reject,
        complete: () => resolve(result),
      });
    }));
  }
}

describe('graphql-ws', () => {
  let sluice;
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push(await Backend.start('graphql_backend.mjs', name));
    }
    sluice = await startSluice({ backends, pool: 'balance = "least_connections"' });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    await Promise.all(backends.map((backend) => backend.stop()));
  });

  test(`the subscriptions of ${clients} clients go on in a rolling restart`, async () => {
    const crowd = Array.from({ length: clients }, () => new Subscriber(`${sluice.ws}/graphql`));
    const facts = [];
    try {
      const everyoneHears = async () => {
        const before = crowd.map(({ events }) => events);
        await waitFor('two events for everyone', () =>
          crowd.every(({ events }, index) => events >= before[index] + 2));
      };
      await everyoneHears();
      assert.equal(new Set(crowd.map(({ name }) => name)).size, 2);
      await rollingRestart(sluice, backends, {
        empty: async (backend) => facts.push(await backend.ask()),
        between: everyoneHears,
      });
      const answers = await Promise.all(crowd.map((one, index) =>
        one.ask(`{ hello(text: "${index}") }`)));
      answers.forEach(({ data }, index) => assert.match(data.hello, new RegExp(`^\\w+: ${index}$`)));
      facts.push(...await Promise.all(backends.map((backend) => backend.ask())));

      for (const { closes, protocols, errors, gaps, completed } of crowd) {
        assert.deepEqual(errors, []);
        assert.equal(completed, undefined);
        assert.equal(gaps, 0);
        assert.deepEqual([...new Set(closes)], ['1012 service restart']);
        assert.equal(protocols.length, closes.length + 1);
        assert.deepEqual([...new Set(protocols)], ['graphql-transport-ws']);
      }
      const connected = crowd.reduce((sum, { protocols }) => sum + protocols.length, 0);
      assert.deepEqual(new Set(facts.flatMap(({ protocols }) => Object.keys(protocols))),
        new Set(['graphql-transport-ws']));
      assert.equal(facts.flatMap(({ protocols }) => Object.values(protocols))
        .reduce((sum, count) => sum + count, 0), connected);
    } finally {
      await Promise.all(crowd.map(({ client }) => client.dispose()));
    }
  });
});
