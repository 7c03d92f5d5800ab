// The least of two servers that are written in other languages, for their JavaScript clients to talk
// to, as a process of its own, started as `NAME PORT`:
//   /socket/websocket      Phoenix channels, serializer 2.0.0: any topic can be joined, `say` is
//                          answered with what was said and the name
//   /connection/websocket  Centrifugo's JSON protocol: any channel can be subscribed, rpc is answered
//                          with its data and the name. A channel publishes numbers, from the one
//                          behind the offset on for who recovers
// Prints { address } once it serves; answers any line with { phoenix, centrifuge }: the connections.
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import readline from 'node:readline';
import { WebSocketServer } from 'ws';

const [name, port = '0'] = process.argv.slice(2);
const tick = 50; // ms
const epoch = 'one'; // of the channels, whose history all backends share
const counts = { phoenix: 0, centrifuge: 0 };

function servePhoenix(socket) {
  socket.on('message', (data) => {
    const [joinRef, ref, topic, event, payload] = JSON.parse(data);
    const response = event === 'say' ? { name, text: payload.text } : {};
    socket.send(JSON.stringify([joinRef, ref, topic, 'phx_reply', { status: 'ok', response }]));
  });
}

function serveCentrifuge(socket) {
  const timers = [];
  const send = (reply) => socket.send(JSON.stringify(reply));
  const publish = (channel, from) => {
    let offset = from;
    timers.push(setInterval(() => {
      offset += 1;
      send({ push: { channel, pub: { data: { name, number: offset }, offset } } });
    }, tick));
  };
  socket.on('message', (data) => {
    for (const line of data.toString().split('\n').filter(Boolean)) {
      const { id, connect, subscribe, rpc } = JSON.parse(line);
      if (connect) {
        send({ id, connect: { client: randomUUID(), version: '0.0.0' } });
      } else if (subscribe) {
        const offset = subscribe.recover ? subscribe.offset ?? 0 : 0;
        send({ id, subscribe: { recoverable: true, epoch, offset, positioned: true,
          was_recovering: Boolean(subscribe.recover), recovered: Boolean(subscribe.recover) } });
        publish(subscribe.channel, offset);
      } else if (rpc) {
        send({ id, rpc: { data: { name, ...rpc.data } } });
      }
    }
  });
  socket.on('close', () => timers.forEach(clearInterval));
}

const server = http.createServer((_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({ server });
sockets.on('connection', (socket, { url }) => {
  const kind = url.startsWith('/socket/') ? 'phoenix' : 'centrifuge';
  counts[kind] += 1;
  (kind === 'phoenix' ? servePhoenix : serveCentrifuge)(socket);
});
server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify(counts));
});
