// MQTT over WebSocket: npm mqtt through Sluice to mosquitto, a broker in C that knows nothing of us.
//
// Two brokers do not share sessions: a client that a drain sent to the other one would leave its
// subscriptions and what is queued for it behind. So each broker has a route and a pool of its own
// here, and a client keeps to its path: while its broker restarts it is answered 503 and tries again,
// and finds its session as it was, because the broker persists it. What a client of one publishes
// reaches those of the other over a bridge between the brokers, which queues meanwhile.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import mqtt from 'mqtt';
import WebSocket from 'ws';
import { accepts, freePorts, long, rollingRestart } from './lib/rolling.mjs';
import { startSluice, temporaryFolder, waitFor, within } from './lib/sluice.mjs';

const pairs = long ? 8 : 3; // of a publisher and a subscriber at each broker
const pause = long ? 100 : 20; // ms between two messages of a publisher; every subscriber gets all

// A mosquitto that keeps its ports and its sessions when it is started again.
class Broker {
  constructor(name, pool, folder) {
    this.name = name;
    this.pool = pool;
    this.folder = path.join(folder, name);
    fs.mkdirSync(this.folder);
  }

  // For the first time; it cannot bind port 0, so it is given ports that were free a moment ago.
  async begin(bridge = '') {
    for (let attempt = 0; ; attempt += 1) {
      [this.port, this.plain] = await freePorts(2);
      this.configure(bridge);
      if (await this.start()) {
        return;
      }
      assert.ok(attempt < 3, 'mosquitto does not start');
    }
  }

  configure(bridge) {
    this.address = `127.0.0.1:${this.port}`;
    // mosquitto 2.0.11 does not start without a listener that is not for WebSocket.
    fs.writeFileSync(path.join(this.folder, 'mosquitto.conf'), `
listener ${this.plain} 127.0.0.1
listener ${this.port} 127.0.0.1
protocol websockets
allow_anonymous true
log_dest stderr
log_type error
persistence true
persistence_location ${this.folder}/
max_queued_messages 0
user ${os.userInfo().username}
${bridge}`);
  }

  // Resolves with whether it serves.
  async start() {
    // Debian installs it in /usr/sbin, which is not in every user's PATH.
    const child = spawn('mosquitto', ['-c', path.join(this.folder, 'mosquitto.conf')], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    });
    process.once('exit', () => child.kill('SIGKILL'));
    this.exited = once(child, 'exit').then(() => {
      this.child = null;
    });
    this.child = child;
    await waitFor('mosquitto', async () => !this.child || await accepts(this.port));
    return this.child !== null;
  }

  async stop() {
    this.child.kill('SIGTERM');
    await within('the exit of mosquitto', this.exited);
  }
}

// The payload that publisher `from` sends as its message `number`: of any size, and told from all
// others by each of its bytes.
function payloadOf(from, number) {
  const payload = Buffer.alloc(8 + (number * 7919) % 3000, (from * 31 + number) & 0xff);
  payload.writeUInt32BE(from, 0);
  payload.writeUInt32BE(number, 4);
  return payload;
}

describe('mqtt', () => {
  let sluice;
  let folder;
  const brokers = [];
  const clients = [];

  // An MQTT client through Sluice, and the subprotocol that was agreed.
  async function connect() {
    let socket;
    const client = mqtt.connect(`${sluice.ws}/mqtt`, {
      reconnectPeriod: 0,
      createWebsocket(url, protocols) {
        socket = new WebSocket(url, protocols);
        return socket;
      },
    });
    clients.push(client);
    await within('CONNACK', once(client, 'connect'));
    return { client, protocol: socket.protocol };
  }

  before(async () => {
    folder = temporaryFolder();
    brokers.push(new Broker('one', 'backends', folder), new Broker('two', 'two', folder));
    const [one, two] = brokers;
    await one.begin();
    await two.begin(`connection bridge
address 127.0.0.1:${one.plain}
topic rolling/# both 1
cleansession false
restart_timeout 1
notifications false
`);
    sluice = await startSluice({
      backends: [one],
      tables: `
[[route]]
path = "/two"
pool = "two"

[pool.two]
backends = [{ name = "two", address = "${two.address}" }]
`,
    });
  });

  after(async () => {
    await Promise.all(clients.map((client) => client.endAsync(true)));
    assert.equal(await sluice.stop(), 0);
    await Promise.all(brokers.map((broker) => broker.stop()));
    fs.rmSync(folder, { recursive: true });
  });

  test('the subprotocol is agreed between client and broker', async () => {
    const { protocol } = await connect();
    assert.equal(protocol, 'mqtt');
  });

  for (const qos of [0, 1]) {
    test(`binary payloads arrive as they were published, QoS ${qos}`, async () => {
      const { client: subscriber } = await connect();
      const { client: publisher } = await connect();
      const topic = `sluice/qos${qos}`;
      const [granted] = await subscriber.subscribeAsync(topic, { qos });
      assert.equal(granted.qos, qos);

        // No larger ones: mosquitto 2.0.11 does not deliver 1 MiB over WebSocket, with or without us.
      const payloads = [0, 1, 127, 128, 16_383, 16_384, 65_536].map((size) => randomBytes(size));
      const arrived = [];
      const all = new Promise((resolve) => {
        subscriber.on('message', (from, payload, packet) => {
          assert.equal(from, topic);
          arrived.push({ payload, qos: packet.qos });
          if (arrived.length === payloads.length) {
            resolve();
          }
        });
      });
      for (const payload of payloads) {
        await publisher.publishAsync(topic, payload, { qos });
      }
      await within('all messages', all);
      arrived.forEach((message, index) => {
        assert.ok(message.payload.equals(payloads[index]), `payload ${index}`);
        assert.equal(message.qos, qos);
      });
    });
  }

  test(`QoS 1 with ${2 * pairs} persistent sessions in a rolling restart: none lost`, async () => {
    const received = []; // for each subscriber: publisher -> Set of numbers
    const resumed = [];
    const wrong = [];
    const publishers = [];
    const open = (url, clientId) => {
      const client = mqtt.connect(url, { clientId, clean: false, reconnectPeriod: 100 });
      clients.push(client);
      const state = { client, connects: 0, sessionsFound: 0 };
      client.on('connect', ({ sessionPresent }) => {
        state.connects += 1;
        state.sessionsFound += sessionPresent ? 1 : 0;
      });
      client.on('error', (error) => wrong.push(`${clientId}: ${error.message}`));
      resumed.push(state);
      return client;
    };
    for (let index = 0; index < 2 * pairs; index += 1) {
      const url = `${sluice.ws}${index % 2 === 0 ? '' : '/two'}/mqtt`;
      const numbers = new Map();
      received.push(numbers);
      const subscriber = open(url, `subscriber-${index}`);
      subscriber.on('message', (_, payload) => {
        const [from, number] = [payload.readUInt32BE(0), payload.readUInt32BE(4)];
        if (!payload.equals(payloadOf(from, number))) {
          wrong.push(`message ${number} of ${from} has changed`);
        }
        numbers.set(from, (numbers.get(from) ?? new Set()).add(number));
      });
      await within('SUBACK', subscriber.subscribeAsync('rolling/#', { qos: 1 }));
      publishers.push({ client: open(url, `publisher-${index}`), sent: 0, acknowledged: 0 });
    }
    let stopping = false;
    const publishing = publishers.map(async (publisher, from) => {
      while (!stopping) {
        publisher.sent += 1;
        publisher.client.publish(`rolling/${from}`, payloadOf(from, publisher.sent), { qos: 1 },
          (error) => {
            publisher.acknowledged += error ? 0 : 1;
          });
        await delay(pause);
      }
    });
    const everythingArrived = () => received.every((numbers) =>
      publishers.every(({ sent }, from) => numbers.get(from)?.size === sent));

    await waitFor('messages over the bridge', () =>
      received.every((numbers) => numbers.size === publishers.length));
    await rollingRestart(sluice, brokers, {
      more: ['--force'], // the last backend of its pool, which is what is wanted
      between: async (broker) => {
        const index = brokers.indexOf(broker);
        const mine = resumed.filter((_, at) => Math.floor(at / 2) % 2 === index);
        await waitFor(`the clients of ${broker.name} are back`, () =>
          mine.every(({ client, connects }) => client.connected && connects === 2));
      },
    });
    stopping = true;
    await Promise.all(publishing);
    await waitFor('every PUBACK', () =>
      publishers.every(({ sent, acknowledged }) => acknowledged === sent));
    await waitFor('every message', everythingArrived, 20_000).catch(() => {
      assert.deepEqual(received.map((numbers) => [...numbers.values()].map(({ size }) => size)),
        received.map(() => publishers.map(({ sent }) => sent)));
    });
    assert.deepEqual(wrong, []);
    for (const { connects, sessionsFound } of resumed) {
      assert.deepEqual({ connects, sessionsFound }, { connects: 2, sessionsFound: 1 });
    }
  });
});
