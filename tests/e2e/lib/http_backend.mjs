// A plain HTTP server as a process of its own, started as `NAME PORT`:
//   GET /           200 and a few bytes
//   POST /echo      the content as it came, in chunks; X-Framing and X-Method say how it came
//   POST /refuse    413, before any content was read or asked for
//   GET /nothing    204
//   GET /cached     200 with an ETag, 304 to who has it
// Prints { address } once it serves; answers any line with { requests, connections }.
import http from 'node:http';
import readline from 'node:readline';

const [name, port = '0'] = process.argv.slice(2);
let requests = 0;
let connections = 0;

function answer(request, response) {
  requests += 1;
  response.setHeader('X-Backend', name);
  switch (request.url) {
    case '/echo':
      response.setHeader('X-Method', request.method);
      response.setHeader('X-Framing', request.headers['transfer-encoding'] ??
        `length ${request.headers['content-length']}`);
      request.pipe(response);
      break;
    case '/refuse':
      response.writeHead(413, { 'Content-Length': 0 }).end();
      break;
    case '/nothing':
      response.writeHead(204).end();
      break;
    case '/cached':
      response.setHeader('ETag', '"one"');
      response.writeHead(request.headers['if-none-match'] === '"one"' ? 304 : 200);
      response.end(response.statusCode === 304 ? undefined : 'cached');
      break;
    default:
      response.end(request.method === 'HEAD' ? undefined : 'hello\n');
  }
}

const server = http.createServer(answer);
server.on('checkContinue', (request, response) => {
  if (request.url !== '/refuse') {
    response.writeContinue();
  }
  answer(request, response);
});
server.on('connection', () => {
  connections += 1;
});
server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify({ requests, connections }));
});
