// A real browser on the page of `sluice demo`, over TLS: it connects, echoes, and when Sluice is told
// to stop it sees a clean close with 1012. The screenshot is left in build/test-artifacts/.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { chromium } from 'playwright-core';
import { artifacts, startDemo } from './lib/sluice.mjs';

test('Chromium: connects over wss, echoes, sees a clean 1012 on SIGTERM', async () => {
  fs.mkdirSync(artifacts, { recursive: true });
  const demo = await startDemo();
  // --no-sandbox: the tests may run as root, where Chromium's sandbox does not start.
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox'],
  });
  try {
    const context = await browser.newContext({ ignoreHTTPSErrors: true,
      viewport: { width: 1100, height: 800 } });
    const page = await context.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    const sockets = [];
    page.on('websocket', (socket) => sockets.push(socket.url()));

    await page.goto(`${demo.https}/`);
    await page.waitForFunction(() => globalThis.sluiceDemo?.state === 'open', null,
      { timeout: 15_000 });
    assert.equal(await page.textContent('#state'), 'open');
    await page.waitForFunction(() => globalThis.sluiceDemo.roundTrips >= 5, null,
      { timeout: 15_000 });
    const backend = await page.textContent('#backend');
    assert.match(backend, /\w/);
    assert.match(await page.textContent('#rtt'), /\d/);
    assert.ok(sockets.length > 0 && sockets.every((url) => url.startsWith('wss://')), `${sockets}`);
    await page.screenshot({ path: path.join(artifacts, 'demo-open.png') });

    const exited = demo.stop('SIGTERM', 45_000);
    await page.waitForFunction(() => globalThis.sluiceDemo.lastClose, null, { timeout: 40_000 });
    const close = await page.evaluate(() => globalThis.sluiceDemo.lastClose);
    assert.equal(close.code, 1012);
    assert.equal(close.reason, 'service restart');
    assert.equal(close.wasClean, true);
    assert.match(await page.textContent('#closes'), /1012/);
    await page.screenshot({ path: path.join(artifacts, 'demo-closed.png') });
    assert.equal(await exited, 0);
    assert.deepEqual(errors, []);
  } finally {
    await browser.close();
  }
});
