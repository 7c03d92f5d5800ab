// A SockJS echo server (sockjs-node) as a process of its own, started as `NAME PORT`: a session
// belongs to the process where it began. It answers each message with its name and that message.
// Prints { address } once it serves; answers any line with { protocols, lost }: the sessions that
// there were, by transport, and how many requests came for a session that it does not know.
import http from 'node:http';
import readline from 'node:readline';
import sockjs from 'sockjs';

const [name, port = '0'] = process.argv.slice(2);
const protocols = {};
let lost = 0;

const echo = sockjs.createServer({ log() {}, sockjs_url: '/unused.js' });
echo.on('connection', (connection) => {
  protocols[connection.protocol] = (protocols[connection.protocol] ?? 0) + 1;
  connection.on('data', (message) => connection.write(`${name} ${message}`));
});
const server = http.createServer();
echo.installHandlers(server, { prefix: '/echo' });
server.prependListener('request', (request, response) => {
  response.on('finish', () => {
    lost += request.url.endsWith('/xhr_send') && response.statusCode === 404 ? 1 : 0;
  });
});

server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify({ protocols, lost }));
});
