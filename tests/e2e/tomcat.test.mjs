// A real browser on the WebSocket examples of Tomcat 10, a server in Java, through Sluice over TLS:
// the echo page works with each of its endpoints, is told 1012 when its Tomcat is restarted, and
// connects to the other one. Two Tomcats, each with a CATALINA_BASE and a port of its own.
// Screenshots are left in build/test-artifacts/.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import { freePorts, rollingRestart } from './lib/rolling.mjs';
import { artifacts, startSluice, temporaryFolder, waitFor, within } from './lib/sluice.mjs';

const home = '/usr/share/tomcat10';
const examples = '/usr/share/tomcat10-examples/examples';
const answers = async (port) => {
  try {
    const answer = await fetch(`http://127.0.0.1:${port}/examples/websocket/echo.xhtml`);
    await answer.arrayBuffer();
    return answer.ok;
  } catch {
    return false;
  }
};

class Tomcat {
  constructor(name, folder) {
    this.name = name;
    this.base = path.join(folder, name);
    for (const part of ['conf', 'logs', 'temp', 'work', 'webapps']) {
      fs.mkdirSync(path.join(this.base, part), { recursive: true });
    }
  }

  // For the first time. It can bind port 0, but has to come back at the port that it had.
  async begin() {
    [this.port] = await freePorts(1);
    this.address = `127.0.0.1:${this.port}`;
    fs.writeFileSync(path.join(this.base, 'conf/server.xml'), `<?xml version="1.0"?>
<Server port="-1">
  <Service name="Catalina">
    <Connector port="${this.port}" address="127.0.0.1" protocol="HTTP/1.1"/>
    <Engine name="Catalina" defaultHost="localhost" jvmRoute="${this.name}">
      <Host name="localhost" appBase="webapps">
        <Context path="/examples" docBase="${examples}">
          <Resources allowLinking="true"/>
        </Context>
      </Host>
    </Engine>
  </Service>
</Server>
`);
    fs.writeFileSync(path.join(this.base, 'conf/web.xml'), `<?xml version="1.0"?>
<web-app xmlns="https://jakarta.ee/xml/ns/jakartaee" version="6.0">
  <servlet>
    <servlet-name>default</servlet-name>
    <servlet-class>org.apache.catalina.servlets.DefaultServlet</servlet-class>
  </servlet>
  <servlet-mapping>
    <servlet-name>default</servlet-name>
    <url-pattern>/</url-pattern>
  </servlet-mapping>
  <mime-mapping>
    <extension>xhtml</extension>
    <mime-type>application/xhtml+xml</mime-type>
  </mime-mapping>
</web-app>
`);
    await this.start();
  }

  async start() {
    const jars = ['bootstrap.jar', 'tomcat-juli.jar'].map((jar) => `${home}/bin/${jar}`);
    this.child = spawn('java', ['-Xmx128m', '-XX:TieredStopAtLevel=1', '-cp', jars.join(':'),
      `-Dcatalina.home=${home}`, `-Dcatalina.base=${this.base}`,
      `-Djava.io.tmpdir=${this.base}/temp`, 'org.apache.catalina.startup.Bootstrap', 'start'],
    { stdio: ['ignore', fs.openSync(path.join(this.base, 'logs/out'), 'a'), 'ignore'] });
    process.once('exit', () => this.child.kill('SIGKILL'));
    this.exited = once(this.child, 'exit');
    await waitFor(`Tomcat ${this.name}`, () => answers(this.port), 60_000);
  }

  async stop() {
    this.child.kill('SIGTERM');
    await within('the exit of Tomcat', this.exited, 30_000);
  }
}

describe('tomcat', () => {
  let sluice;
  let browser;
  let folder;
  const tomcats = [];

  before(async () => {
    folder = temporaryFolder();
    tomcats.push(new Tomcat('one', folder), new Tomcat('two', folder));
    await Promise.all(tomcats.map((tomcat) => tomcat.begin()));
    sluice = await startSluice({
      backends: tomcats,
      route: 'affinity_cookie = "sticky"',
      pool: 'slow_start = "0s"',
    });
    // --no-sandbox: the tests may run as root, where Chromium's sandbox does not start.
    browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
      args: ['--no-sandbox'],
    });
  });

  after(async () => {
    await browser?.close();
    assert.equal(await sluice.stop(), 0);
    await Promise.all(tomcats.map((tomcat) => tomcat.stop()));
    fs.rmSync(folder, { recursive: true });
  });

  test('Chromium: the echo page of the examples over wss, in a rolling restart', async () => {
    fs.mkdirSync(artifacts, { recursive: true });
    const context = await browser.newContext({ ignoreHTTPSErrors: true,
      viewport: { width: 1000, height: 500 } });
    const page = await context.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(error.message));
    const sockets = [];
    page.on('websocket', (socket) => sockets.push(socket.url()));
    const log = () => page.locator('#console p').allTextContents();
    const saysLast = (text) => waitFor(`"${text}"`, async () => (await log()).at(-1) === text);
    const echo = async (text) => {
      await page.fill('#message', text);
      await page.click('#echo');
      await waitFor(`the echo of ${text}`, async () =>
        (await log()).at(-1)?.startsWith('Received: ') && (await log()).at(-1).includes(text));
    };
    const connect = async () => {
      await page.click('#connect');
      await saysLast('Info: WebSocket connection opened.');
    };

    await page.goto(`${sluice.https}/examples/websocket/echo.xhtml`);
    for (const endpoint of ['#radio1', '#radio2', '#radio3']) {
      await page.check(endpoint);
      await connect();
      await echo(`hello by ${endpoint} é`);
      await page.click('#disconnect');
      await waitFor('the end of the session', async () =>
        /closed, Code: (1000|1005)/.test((await log()).at(-1)));
    }

    await page.check('#radio2');
    await connect();
    await page.screenshot({ path: path.join(artifacts, 'tomcat-open.png') });
    let restarts = 0;
    await rollingRestart(sluice, tomcats, {
      between: async () => {
        const closed = 'Info: WebSocket connection closed, Code: 1012, Reason: service restart';
        if ((await log()).at(-1) === closed) {
          restarts += 1;
          await page.screenshot({ path: path.join(artifacts, 'tomcat-closed.png') });
          await connect();
        }
        await echo(`after restart ${restarts}`);
      },
    });
    assert.ok(restarts >= 1, 'no restart was seen');
    await page.screenshot({ path: path.join(artifacts, 'tomcat-back.png') });
    assert.ok(sockets.length >= 5 && sockets.every((url) => url.startsWith('wss://')), `${sockets}`);
    assert.deepEqual(errors, []);
  });
});
