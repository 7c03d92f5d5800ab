// A GraphQL server over WebSocket, by graphql-ws on ws, as a process of its own, started as
// `NAME PORT`. Query `hello(text)`, subscription `ticks`: numbers from 1 for each subscriber.
// Prints { address } once it serves; answers any line with { protocols }: the subprotocols that were
// agreed, and how often.
import http from 'node:http';
import readline from 'node:readline';
import { setInterval } from 'node:timers/promises';
import { GraphQLInt, GraphQLNonNull, GraphQLObjectType, GraphQLSchema, GraphQLString } from 'graphql';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';

const [name, port = '0'] = process.argv.slice(2);
const tick = 50; // ms
const protocols = {};

const schema = new GraphQLSchema({
  query: new GraphQLObjectType({
    name: 'Query',
    fields: {
      hello: {
        type: GraphQLString,
        args: { text: { type: new GraphQLNonNull(GraphQLString) } },
        resolve: (_, { text }) => `${name}: ${text}`,
      },
    },
  }),
  subscription: new GraphQLObjectType({
    name: 'Subscription',
    fields: {
      ticks: {
        type: new GraphQLObjectType({
          name: 'Tick',
          fields: { name: { type: GraphQLString }, number: { type: GraphQLInt } },
        }),
        async *subscribe() {
          let number = 0;
          for await (const _ of setInterval(tick)) {
            number += 1;
            yield { ticks: { name, number } };
          }
        },
      },
    },
  }),
});

const server = http.createServer((_, response) => response.writeHead(404).end());
const sockets = new WebSocketServer({ server, path: '/graphql' });
sockets.on('connection', ({ protocol }) => {
  protocols[protocol] = (protocols[protocol] ?? 0) + 1;
});
useServer({ schema }, sockets);

server.listen(Number(port), '127.0.0.1', () => {
  console.log(JSON.stringify({ address: `127.0.0.1:${server.address().port}` }));
});
readline.createInterface({ input: process.stdin }).on('line', () => {
  console.log(JSON.stringify({ protocols }));
});
