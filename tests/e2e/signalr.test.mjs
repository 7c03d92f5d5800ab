// The SignalR client through Sluice: POST negotiate over HTTP, then a WebSocket, an event stream
// with POSTs beside it, or polls, all of them to the hub that negotiated; in front of two small hubs
// that speak its JSON protocol. The cookie that Sluice issues is what keeps them there.
//
// In a drain, a client on a WebSocket is told by a CLOSE, one on an event stream by its end, one that
// polls by the 404 of another hub. From the beginning of the drain on, POSTs beside an event stream
// that is still open are answered so, too: their invocations fail.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { HttpTransportType, HubConnectionBuilder, LogLevel } from '@microsoft/signalr';
import { Backend, long, rollingRestart } from './lib/rolling.mjs';
import { everybodyLeft, startSluice, waitFor, within } from './lib/sluice.mjs';

const clients = long ? 60 : 10; // by each transport
const transports = ['WebSockets', 'ServerSentEvents', 'LongPolling'];

// A client that invokes `echo` all the time and comes back by withAutomaticReconnect.
class Caller {
  constructor(url, transport) {
    this.transport = transport;
    this.results = 0;
    this.failures = 0; // invocations under way when their connection went
    this.reconnected = 0;
    this.gaps = 0;
    this.number = 0;
    this.connection = new HubConnectionBuilder()
      .withUrl(url, { transport: HttpTransportType[transport] })
      .withAutomaticReconnect({ nextRetryDelayInMilliseconds: () => 100 })
      .configureLogging(LogLevel.None)
      .build();
    this.connection.on('tick', (number) => {
      this.gaps += number === this.number + 1 ? 0 : 1;
      this.number = number;
    });
    // A hub whose connection is new begins to count anew.
    this.connection.onreconnecting(() => {
      this.number = 0;
    });
    this.connection.onreconnected(() => {
      this.reconnected += 1;
    });
    this.connection.onclose(() => {
      this.closed = true;
    });
  }

  async start() {
    await this.connection.start();
    this.done = this.call();
  }

  async call() {
    while (!this.ended && !this.closed) {
      if (this.connection.state === 'Connected') {
        try {
          const text = `call ${this.results}`;
          const answer = await this.connection.invoke('echo', text);
          assert.equal(answer.text, text);
          this.results += 1;
          this.name = answer.name;
        } catch (error) {
          if (error instanceof assert.AssertionError) {
            throw error;
          }
          this.failures += 1;
        }
      }
      await delay(50);
    }
  }

  async stop() {
    this.ended = true;
    await this.done;
    await this.connection.stop();
  }
}

describe('signalr', () => {
  let sluice;
  const hubs = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      hubs.push(await Backend.start('signalr_hub.mjs', name));
    }
    sluice = await startSluice({
      backends: hubs,
      route: 'affinity = ["cookie:sticky", "ip"]\naffinity_cookie = "sticky"',
      pool: 'slow_start = "0s"',
    });
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    await Promise.all(hubs.map((hub) => hub.stop()));
  });

  test('twenty clients negotiate and invoke a method of the hub that knows them', async () => {
    const names = await Promise.all(Array.from({ length: 20 }, async (_, index) => {
      const connection = new HubConnectionBuilder()
        .withUrl(`${sluice.http}/hub`, { transport: HttpTransportType.WebSockets })
        .configureLogging(LogLevel.None)
        .build();
      await within('the start', connection.start());
      const answer = await within('the result', connection.invoke('echo', `hello ${index}`));
      assert.equal(answer.text, `hello ${index}`);
      await connection.stop();
      return answer.name;
    }));
    for (const hub of hubs) {
      assert.equal((await hub.ask()).refused, 0);
    }
    assert.equal(new Set(names).size, 2);
    await everybodyLeft(sluice);
  });

  test(`${clients} clients by each of ${transports.join(', ')} in a rolling restart`, async () => {
    const callers = transports.flatMap((transport) => Array.from({ length: clients },
      () => new Caller(`${sluice.http}/hub`, transport)));
    const before = await Promise.all(hubs.map((hub) => hub.ask()));
    const facts = [];
    try {
      await within('all starts', Promise.all(callers.map((caller) => caller.start())));
      const everyoneIsAnswered = async () => {
        const had = callers.map(({ results }) => results);
        await waitFor('two results for everyone', () =>
          callers.every(({ results, closed }, index) => !closed && results >= had[index] + 2),
        20_000);
      };
      await everyoneIsAnswered();
      assert.equal(new Set(callers.map(({ name }) => name)).size, 2);

      await rollingRestart(sluice, hubs, {
        empty: async (hub) => facts.push(await hub.ask()),
        between: everyoneIsAnswered,
      });
      await within('the last results', Promise.all(callers.map((caller) => caller.stop())));
      facts.push(...await Promise.all(hubs.map((hub) => hub.ask())));

      for (const { transport, reconnected, failures, gaps } of callers) {
        assert.ok(reconnected >= 1 && reconnected <= 2, `${reconnected} times by ${transport}`);
        assert.equal(gaps, 0);
        // An invocation may be under way when its connection goes, and a poll has a POST beside it.
        if (transport !== 'ServerSentEvents') {
          assert.ok(failures <= 2 * reconnected, `${failures} without a result by ${transport}`);
        }
      }
      for (const transport of transports) {
        const count = (all) => all.reduce((sum, { opened }) => sum + opened[transport], 0);
        const sessions = callers.filter((caller) => caller.transport === transport)
          .reduce((sum, { reconnected }) => sum + 1 + reconnected, 0);
        assert.equal(count(facts) - count(before), sessions, transport);
      }
    } finally {
      await Promise.allSettled(callers.map(({ connection }) => connection.stop()));
    }
  });
});
