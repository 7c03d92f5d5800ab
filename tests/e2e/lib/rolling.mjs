// A rolling restart as an operator makes it: each backend in turn is drained with `sluice drain`,
// ended once it is empty, started again on its port and undrained, while clients go on talking.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { binary, startHelper, within } from './sluice.mjs';

// With SLUICE_E2E_LONG the tests have the size that is promised, else one for every day.
export const long = process.env.SLUICE_E2E_LONG === '1';

// A helper of tests/e2e/lib that takes its name and its port (0 at first) as arguments: a process
// that can be started again at the address that it had.
export class Backend {
  static async start(helper, name, args = []) {
    const backend = new Backend();
    Object.assign(backend, { helper, name, args, starts: 0, address: '127.0.0.1:0' });
    await backend.start();
    return backend;
  }

  async start() {
    const port = this.address.split(':').at(-1);
    this.process = await startHelper(this.helper, [this.name, port, ...this.args]);
    this.address = this.process.address;
    this.starts += 1;
  }

  ask(question = {}) {
    return this.process.ask(question);
  }

  stop() {
    return this.process.stop();
  }
}

// Runs `sluice ...ARGUMENTS` against the admin interface of `sluice`; it has to succeed.
export async function control(sluice, ...args) {
  const child = spawn(binary, [...args, '--admin', new URL(sluice.admin).host],
    { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
    });
  }
  const [status] = await within(`sluice ${args[0]}`, once(child, 'close'), 60_000);
  assert.equal(status, 0, `sluice ${args.join(' ')}: ${output}`);
}

// What the admin API says of a backend.
export async function look(sluice, { pool = 'backends', name }) {
  return (await fetch(`${sluice.admin}/backends/${pool}/${name}`)).json();
}

// Restarts `backends` one after the other: { name, start(), stop() } and, unless it is "backends",
// the pool. `empty` is awaited while one is drained and not ended yet; `between` when it is back: the
// time for clients to be served again before the next one goes. `more`: further options of the drain.
export async function rollingRestart(sluice, backends,
  { window = '300ms', more = [], empty, between } = {}) {
  for (const backend of backends) {
    await control(sluice, 'drain', backend.name, '--window', window, '--wait', ...more);
    const { open, drain } = await look(sluice, backend);
    assert.equal(open, 0, `${backend.name} is not empty`);
    assert.equal(drain.state, 'drained');
    assert.equal(drain.forced, 0, `${backend.name}: sessions were cut`);
    await empty?.(backend);
    await backend.stop();
    await backend.start();
    await control(sluice, 'undrain', backend.name);
    await between?.(backend);
  }
}

// Ports that were free a moment ago, for servers that cannot bind port 0 themselves.
export async function freePorts(count) {
  const servers = Array.from({ length: count }, () => net.createServer());
  for (const server of servers) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  const ports = servers.map((server) => server.address().port);
  for (const server of servers) {
    server.close();
    await once(server, 'close');
  }
  return ports;
}

// Resolves with whether somebody takes connections on `port`.
export function accepts(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
