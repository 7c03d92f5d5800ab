// A server of event streams as a process of its own, started as `NAME PORT`. /events sends numbered
// events, from the one behind Last-Event-ID on; / is a page to open EventSources from.
// Prints { address } once it serves; answers any line with { streams, resumed, open }: how many there
// were, how many of them with a Last-Event-ID, how many are open.
import http from 'node:http';
import readline from 'node:readline';

const [name, port = '0'] = process.argv.slice(2);
const tick = 20; // ms
let streams = 0;
let resumed = 0;
let open = 0;

const server = http.createServer((request, response) => {
  if (request.url !== '/events') {
    response.setHeader('Content-Type', 'text/html');
    response.end('<!DOCTYPE html><title>Events</title><p>Opens event streams.');
    return;
  }
  const last = request.headers['last-event-id'];
  let number = Number(last ?? 0);
  streams += 1;
  resumed += last ? 1 : 0;
  open += 1;
  response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
  response.write('retry: 100\n\n');
  const timer = setInterval(() => {
    number += 1;
    // In two writes, now and then: an end that does not wait for the event is seen as a lost one.
    response.write(`id: ${number}\nevent: number\ndata: {"name":"${name}",\n`);
    const rest = `data: "number":${number}}\n\n`;
    if (number % 4 === 0) {
      setImmediate(() => response.write(rest));
    } else {
      response.write(rest);
    }
  }, tick);
  response.on('close', () => {
    clearInterval(timer);
    open -= 1;
  });
});

server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify({ streams, resumed, open }));
});
