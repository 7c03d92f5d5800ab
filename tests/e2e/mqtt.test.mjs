// MQTT over WebSocket: npm mqtt through Sluice to mosquitto, a broker in C that knows nothing of us.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import mqtt from 'mqtt';
import WebSocket from 'ws';
import { startSluice, temporaryFolder, waitFor, within } from './lib/sluice.mjs';

// mosquitto cannot bind port 0, so it is given two that were free a moment ago.
async function freePorts() {
  const servers = [net.createServer(), net.createServer()];
  const ports = [];
  for (const server of servers) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    ports.push(server.address().port);
  }
  for (const server of servers) {
    server.close();
    await once(server, 'close');
  }
  return ports;
}

function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

async function startMosquitto(folder) {
  for (let attempt = 0; ; attempt += 1) {
    const [port, plain] = await freePorts();
    const file = path.join(folder, 'mosquitto.conf');
    // mosquitto 2.0.11 does not start without a listener that is not for WebSocket.
    fs.writeFileSync(file, `listener ${plain} 127.0.0.1\n` +
      `listener ${port} 127.0.0.1\nprotocol websockets\n` +
      'allow_anonymous true\nlog_dest stderr\nlog_type error\n');
    // Debian installs it in /usr/sbin, which is not in every user's PATH.
    const child = spawn('mosquitto', ['-c', file], {
      stdio: ['ignore', 'ignore', 'inherit'],
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
    });
    process.once('exit', () => child.kill('SIGKILL'));
    let ended = false;
    child.once('exit', () => {
      ended = true;
    });
    await waitFor('mosquitto', async () => ended || await accepts(port));
    if (!ended) {
      return { child, address: `127.0.0.1:${port}` };
    }
    assert.ok(attempt < 3, 'mosquitto does not start');
  }
}

describe('mqtt', () => {
  let sluice;
  let mosquitto;
  let folder;
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
    fs.chmodSync(folder, 0o755); // started as root, mosquitto reads it as its own user
    mosquitto = await startMosquitto(folder);
    sluice = await startSluice({ backends: [{ name: 'mosquitto', address: mosquitto.address }] });
  });

  after(async () => {
    await Promise.all(clients.map((client) => client.endAsync(true)));
    assert.equal(await sluice.stop(), 0);
    const ended = once(mosquitto.child, 'exit');
    mosquitto.child.kill('SIGTERM');
    await ended;
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
});
