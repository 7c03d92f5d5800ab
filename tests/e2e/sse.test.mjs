// EventSource of a real browser through Sluice while its two backends are restarted: a stream ends
// between two events, the browser comes back by itself with Last-Event-ID, and no event is lost or
// comes twice. It would give up for good if it were told an error status (readyState 2).
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Backend, control, long, rollingRestart } from './lib/rolling.mjs';
import { metric, startSluice, waitFor } from './lib/sluice.mjs';

const contexts = long ? 10 : 3; // each with connections of its own
const sources = 5; // in a context: a browser keeps to six connections to one host

describe('event streams', () => {
  let sluice;
  let browser;
  const pages = [];
  const backends = [];

  before(async () => {
    for (const name of ['one', 'two']) {
      backends.push(await Backend.start('sse_backend.mjs', name));
    }
    sluice = await startSluice({ backends, pool: 'balance = "least_connections"' });
    // --no-sandbox: the tests may run as root, where Chromium's sandbox does not start.
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox'],
    });
  });

  after(async () => {
    await browser?.close();
    assert.equal(await sluice.stop(), 0);
    await Promise.all(backends.map((backend) => backend.stop()));
  });

  // What the EventSources of all pages have seen.
  async function look() {
    return (await Promise.all(pages.map((page) => page.evaluate(() => globalThis.seen)))).flat();
  }

  // Every EventSource has had three more events since now.
  async function everyoneHears() {
    const heard = (await look()).map(({ last }) => last);
    await waitFor('events for everyone', async () =>
      (await look()).every(({ last }, index) => last >= heard[index] + 3), 20_000);
  }

  test('Chromium resumes every stream and loses no event', async () => {
    for (let index = 0; index < contexts; index += 1) {
      const page = await (await browser.newContext()).newPage();
      await page.goto(`${sluice.http}/`);
      await page.evaluate((count) => {
        globalThis.seen = Array.from({ length: count }, () => {
          const state = { last: 0, wrong: [], opens: 0, final: 0, names: [] };
          const source = new EventSource('/events');
          source.addEventListener('open', () => {
            state.opens += 1;
          });
          source.addEventListener('error', () => {
            state.final += source.readyState === EventSource.CLOSED ? 1 : 0;
          });
          source.addEventListener('number', (event) => {
            const { name, number } = JSON.parse(event.data);
            if (number !== state.last + 1 || event.lastEventId !== `${number}`) {
              state.wrong.push(`${number} after ${state.last}, id ${event.lastEventId}`);
            }
            state.last = number;
            if (!state.names.includes(name)) {
              state.names.push(name);
            }
          });
          return state;
        });
      }, sources);
      pages.push(page);
    }
    await everyoneHears();
    const facts = [];
    await rollingRestart(sluice, backends, {
      empty: async (backend) => {
        await waitFor('no stream left', async () => (await backend.ask()).open === 0);
        facts.push(await backend.ask());
      },
      between: everyoneHears,
    });

    // With nobody left to go to, they wait; an answer of 503 would be the end of them.
    await control(sluice, 'drain', 'one', '--window', '0s', '--wait');
    await control(sluice, 'drain', 'two', '--window', '0s', '--wait', '--force');
    const unanswered = () => metric(sluice, 'sluice_http_requests_total', ['code="none"']);
    const before = await unanswered();
    await waitFor('attempts that find nobody', async () =>
      await unanswered() >= before + contexts * sources);
    for (const { name } of backends) {
      await control(sluice, 'undrain', name);
    }
    await everyoneHears();

    facts.push(...await Promise.all(backends.map((backend) => backend.ask())));
    const seen = await look();
    assert.equal(seen.length, contexts * sources);
    for (const { wrong, opens, final, names } of seen) {
      assert.deepEqual(wrong, []);
      assert.equal(final, 0);
      assert.ok(opens >= 3 && opens <= 5, `${opens} streams one after the other`);
      assert.deepEqual(names.sort(), ['one', 'two']);
    }
    const sum = (key) => facts.reduce((total, counts) => total + counts[key], 0);
    assert.equal(sum('streams'), seen.reduce((total, { opens }) => total + opens, 0));
    assert.equal(sum('streams') - sum('resumed'), seen.length);
  });
});
