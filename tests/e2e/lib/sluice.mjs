// Starts Sluice (the real binary) with a configuration of its own on free ports, and ends it. Every
// wait is for a condition, with a deadline.
import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..');
export const binary = process.env.SLUICE_BIN ?? path.join(root, 'build/release/bin/sluice');
export const artifacts = path.join(root, 'build/test-artifacts');

// Resolves with the first truthy value that `probe` returns; rejects after `timeout` ms.
export async function waitFor(what, probe, timeout = 10_000) {
  const deadline = Date.now() + timeout;
  for (;;) {
    const value = await probe();
    if (value) {
      return value;
    }
    if (Date.now() > deadline) {
      throw new Error(`not within ${timeout} ms: ${what}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// As `promise`, but rejects when it takes longer than `timeout` ms.
export async function within(what, promise, timeout = 10_000) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${timeout} ms: ${what}`)), timeout);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

export function temporaryFolder() {
  return fs.mkdtempSync(path.join(os.tmpdir(), 'sluice-e2e-'));
}

// A certificate for localhost, made for this run.
export function makeCertificate(folder) {
  const chain = path.join(folder, 'localhost.pem');
  const key = path.join(folder, 'localhost.key');
  if (!fs.existsSync(chain)) {
    execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256',
      '-nodes', '-days', '2', '-subj', '/CN=localhost',
      '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', key, '-out', chain],
    { stdio: 'pipe' });
  }
  return { chain, key };
}

// A process that says when it serves, through a file of JSON. Its output is kept for failures.
export class Program {
  constructor(child, folder, readyFile) {
    this.child = child;
    this.folder = folder;
    this.readyFile = readyFile;
    this.output = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on('data', (data) => {
        this.output = (this.output + data).slice(-64 * 1024);
      });
    }
    this.exited = once(child, 'exit').then(([code, signal]) => code ?? signal);
  }

  get pid() {
    return this.child.pid;
  }

  async ready(timeout = 15_000) {
    let ended = null;
    this.exited.then((status) => {
      ended = status;
    });
    return waitFor('the ready file', () => {
      if (ended !== null) {
        throw new Error(`ended with ${ended} before it served:\n${this.output}`);
      }
      return fs.existsSync(this.readyFile) && JSON.parse(fs.readFileSync(this.readyFile, 'utf8'));
    }, timeout);
  }

  // Sends `signal` and resolves with the exit status (or the signal that ended the process).
  async stop(signal = 'SIGTERM', timeout = 30_000) {
    this.child.kill(signal);
    try {
      return await within(`the exit after ${signal}`, this.exited, timeout);
    } catch (error) {
      this.child.kill('SIGKILL');
      throw new Error(`${error.message}\n${this.output}`);
    }
  }
}

// A test that failed before it stopped `child` ends all the same; its exit ends the child. Who waits
// for the child has a deadline, and so a timer that keeps the test alive.
function letEnd(child) {
  for (const handle of [child, child.stdin, child.stdout, child.stderr]) {
    handle?.unref();
  }
}

function start(args, environment = {}) {
  const folder = temporaryFolder();
  const readyFile = path.join(folder, 'ready.json');
  const child = spawn(binary, args(folder), {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, SLUICE_READY_FILE: readyFile, ...environment },
  });
  const program = new Program(child, folder, readyFile);
  letEnd(child);
  process.once('exit', () => {
    child.kill('SIGKILL');
    fs.rmSync(folder, { recursive: true, force: true });
  });
  return program;
}

// The configuration that the tests share: a plain and a TLS listener in front of one pool.
//   backends: [{ name, address }]; route, pool, tables: further lines of TOML.
export function configuration(folder, { backends, route = '', pool = '', tables = '', workers = 1 }) {
  const { chain, key } = makeCertificate(folder);
  const list = backends.map(({ name, address }) => `  { name = "${name}", address = "${address}" },`);
  return `
[server]
workers = ${workers}

[[listener]]
name = "plain"
address = "127.0.0.1:0"

[[listener]]
name = "tls"
address = "127.0.0.1:0"
tls.certificates = [{ chain = "${chain}", key = "${key}" }]

[[route]]
path = "/"
pool = "backends"
${route}

[pool.backends]
${pool}
backends = [
${list.join('\n')}
]

[admin]
address = "127.0.0.1:0"

[log]
level = "warn"
access = "off"

${tables.includes('[drain]') ? '' : '[drain]\nwindow = "1s"\ngrace = "5s"'}
${tables}
`;
}

// Starts `sluice run`. Resolves with the Program and the addresses: ws, wss, http, https, admin.
export async function startSluice(options) {
  const program = start((folder) => {
    const file = path.join(folder, 'sluice.toml');
    fs.writeFileSync(file, configuration(folder, options));
    return ['run', '-c', file];
  });
  return withAddresses(program, await program.ready());
}

export async function startDemo(args = []) {
  const program = start(() => ['demo', '--http', '127.0.0.1:0', '--https', '127.0.0.1:0', '--admin',
    '127.0.0.1:0', ...args]);
  return withAddresses(program, await program.ready());
}

function withAddresses(program, facts) {
  const plain = facts.listeners.find((listener) => !listener.tls)?.address;
  const tls = facts.listeners.find((listener) => listener.tls)?.address;
  const tlsName = tls?.replace('127.0.0.1', 'localhost');
  return Object.assign(program, {
    ws: `ws://${plain}`,
    http: `http://${plain}`,
    wss: `wss://${tlsName}`,
    https: `https://${tlsName}`,
    admin: `http://${facts.admin}`,
    port: Number(plain?.split(':').at(-1)),
  });
}

// The sum of a metric's samples whose labels contain all of `labels` (["side=\"client\""]).
export async function metric(program, name, labels = []) {
  const text = await (await fetch(`${program.admin}/metrics`)).text();
  let sum = 0;
  let found = false;
  for (const line of text.split('\n')) {
    const [series, value] = line.split(' ');
    if ((series === name || series.startsWith(`${name}{`)) &&
        labels.every((label) => series.includes(label))) {
      found = true;
      sum += Number(value);
    }
  }
  if (!found) {
    throw new Error(`no sample of ${name} with ${labels}`);
  }
  return sum;
}

// Resolves when no backend has anything to do any more. Clients that have left count as load until
// Sluice has seen it, and who comes meanwhile may be given to the backend whose clients left first.
export async function everybodyLeft(program) {
  await waitFor('the end of all sessions',
    async () => await metric(program, 'sluice_backend_connections_open') === 0);
}

// Starts a Node program of tests/e2e/lib that prints one line of JSON once it serves and answers
// each later line of its standard input with one line of JSON.
export async function startHelper(name, args = []) {
  const file = path.join(root, 'tests/e2e/lib', name);
  const child = spawn(process.execPath, [file, ...args], { stdio: ['pipe', 'pipe', 'inherit'] });
  letEnd(child);
  process.once('exit', () => child.kill('SIGKILL'));
  const waiting = [];
  const lines = [];
  let rest = '';
  child.stdout.on('data', (data) => {
    const parts = (rest + data).split('\n');
    rest = parts.pop();
    for (const line of parts) {
      const next = waiting.shift();
      if (next) {
        next(JSON.parse(line));
      } else {
        lines.push(JSON.parse(line));
      }
    }
  });
  const read = () => within(`an answer of ${name}`, lines.length > 0
    ? Promise.resolve(lines.shift())
    : new Promise((resolve) => waiting.push(resolve)));
  const hello = await read();
  return {
    ...hello,
    child,
    ask(question) {
      child.stdin.write(`${JSON.stringify(question)}\n`);
      return read();
    },
    async stop() {
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      await within(`the exit of ${name}`, ended);
    },
  };
}
