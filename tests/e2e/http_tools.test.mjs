// curl, wrk and h2load through Sluice to two HTTP servers: what curl asks for it gets, and under load
// no request fails while both servers are restarted.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Backend, long, rollingRestart } from './lib/rolling.mjs';
import { startSluice, waitFor, within } from './lib/sluice.mjs';

const seconds = long ? 10 : 2; // of one run under load

// Runs a program; resolves with its output when it has succeeded.
async function run(program, args, input = null) {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  const output = { stdout: [], stderr: [] };
  for (const stream of ['stdout', 'stderr']) {
    child[stream].on('data', (data) => output[stream].push(data));
  }
  child.stdin.on('error', () => {}); // a program need not read what it is given
  child.stdin.end(input);
  const [status] = await within(program, once(child, 'close'), 60_000);
  const [stdout, stderr] = [Buffer.concat(output.stdout), Buffer.concat(output.stderr).toString()];
  assert.equal(status, 0, `${program} ${args.join(' ')}\n${stdout.subarray(0, 2000)}${stderr}`);
  return { stdout, stderr };
}

describe('HTTP tools', () => {
  let sluice;
  let upload; // a file of 3 MiB
  let content;
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push(await Backend.start('http_backend.mjs', name));
    }
    sluice = await startSluice({ backends, workers: 2, pool: 'balance = "round_robin"' });
    upload = path.join(sluice.folder, 'upload');
    content = randomBytes(3 << 20);
    fs.writeFileSync(upload, content);
  });

  after(async () => {
    assert.equal(await sluice.stop(), 0);
    await Promise.all(backends.map((backend) => backend.stop()));
  });

  // Asks by curl over HTTP/1.1. Resolves with the heads that came, interim ones included, and what
  // else curl wrote.
  async function curl(...args) {
    const heads = path.join(sluice.folder, 'heads');
    const { stdout, stderr } = await run('curl', ['-sS', '--http1.1', '-m', '30', '-D', heads,
      '--cacert', path.join(sluice.folder, 'localhost.pem'), ...args]);
    const all = fs.readFileSync(heads, 'latin1').split('\r\n\r\n').slice(0, -1);
    return { status: all.map((head) => Number(head.split(' ')[1])), head: all.at(-1), stdout, stderr };
  }

  for (const scheme of ['http', 'https']) {
    test(`curl gets what it asks for over ${scheme}`, async () => {
      const url = sluice[scheme];
      const get = await curl(`${url}/`);
      assert.deepEqual(get.status, [200]);
      assert.equal(get.stdout.toString(), 'hello\n');

      const head = await curl('-I', `${url}/`);
      assert.deepEqual(head.status, [200]);
      assert.match(head.head, /^X-Backend: (one|two)$/mi);

      const nothing = await curl(`${url}/nothing`);
      assert.deepEqual(nothing.status, [204]);
      assert.equal(nothing.stdout.length, 0);
      assert.doesNotMatch(nothing.head, /^(Content-Length|Transfer-Encoding):/mi);

      assert.deepEqual((await curl(`${url}/cached`)).status, [200]);
      const cached = await curl('-H', 'If-None-Match: "one"', `${url}/cached`);
      assert.deepEqual(cached.status, [304]);
      assert.match(cached.head, /^ETag: "one"$/mi);
      assert.equal(cached.stdout.length, 0);

      // One connection for all five, whatever their answers are like.
      const reuse = await curl('-o', '/dev/null', '-w', '%{http_code} %{num_connects}\\n',
        `${url}/`, '-o', '/dev/null', `${url}/nothing`, '-o', '/dev/null', `${url}/cached`,
        '-o', '/dev/null', `${url}/missing`, '-o', '/dev/null', `${url}/`);
      assert.equal(reuse.stdout.toString(), '200 1\n204 0\n200 0\n200 0\n200 0\n');
    });

    test(`curl uploads over ${scheme}, announced, in chunks and after asking`, async () => {
      const url = `${sluice[scheme]}/echo`;
      const sized = await curl('--data-binary', `@${upload}`, '-H', 'Expect:', url);
      assert.deepEqual(sized.status, [200]);
      assert.match(sized.head, /^X-Framing: length 3145728$/mi);
      assert.ok(sized.stdout.equals(content));

      const chunked = await curl('--data-binary', `@${upload}`, '-H', 'Expect:',
        '-H', 'Transfer-Encoding: chunked', url);
      assert.deepEqual(chunked.status, [200]);
      assert.match(chunked.head, /^X-Method: POST$/mi);
      assert.match(chunked.head, /^X-Framing: chunked$/mi);
      assert.ok(chunked.stdout.equals(content));

      const put = await curl('-T', upload, '-H', 'Expect: 100-continue', url);
      assert.deepEqual(put.status, [100, 200]);
      assert.match(put.head, /^X-Method: PUT$/mi);
      assert.ok(put.stdout.equals(content));

      // The backend refuses before it has asked for the content, and curl sends none.
      const refused = await curl('--data-binary', `@${upload}`, '-H', 'Expect: 100-continue',
        '--expect100-timeout', '20', '-w', '%{size_upload}', `${sluice[scheme]}/refuse`);
      assert.deepEqual(refused.status, [413]);
      assert.equal(refused.stdout.toString(), '0');
    });
  }

  // Runs of `seconds` one after the other until both backends have been restarted meanwhile.
  async function loadThroughRestart(load) {
    let over = false;
    let requests = 0;
    const loading = (async () => {
      while (!over) {
        requests += await load();
      }
    })();
    // If the load fails, its error is the one to tell.
    const served = async (backend) => {
      const before = (await backend.ask()).requests;
      await Promise.race([loading, waitFor('requests', async () =>
        (await backend.ask()).requests > before + 10)]);
    };
    await Promise.all(backends.map(served));
    await rollingRestart(sluice, backends, { between: served });
    over = true;
    await loading;
    assert.ok(requests > 100, `only ${requests} requests`);
  }

  for (const scheme of ['http', 'https']) {
    test(`wrk over ${scheme}: nothing fails in a rolling restart`, async () => {
      await loadThroughRestart(async () => {
        const { stdout } = await run('wrk', ['-t', '1', '-c', '20', '-d', `${seconds}s`,
          '--timeout', '20s', `${sluice[scheme]}/`]);
        const text = stdout.toString();
        assert.doesNotMatch(text, /Socket errors|Non-2xx/, text);
        return Number(/(\d+) requests in/.exec(text)[1]);
      });
    });
  }

  test('h2load --h1: nothing fails in a rolling restart', async () => {
    await loadThroughRestart(async () => {
      const { stdout } = await run('h2load', ['--h1', '-t', '1', '-c', '20', '-n', '1000',
        `${sluice.http}/`]);
      const text = stdout.toString();
      assert.match(text, /1000 succeeded, 0 failed, 0 errored, 0 timeout/, text);
      assert.match(text, /status codes: 1000 2xx/, text);
      return 1000;
    });
  });
});
