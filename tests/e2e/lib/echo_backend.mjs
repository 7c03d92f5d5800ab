// An echo backend as a process of its own; the text message "close" makes it close with 1000.
// Prints { address } once it serves.
import { FrameReader, closePayload, encode, listen, opcodes, wireServer } from './wire.mjs';

const server = wireServer((socket) => {
  let closing = false;
  const reader = new FrameReader(({ opcode, fin, payload }) => {
    if (opcode === opcodes.close) {
      socket.end(closing ? undefined : encode(opcodes.close, payload));
    } else if (opcode === opcodes.ping) {
      socket.write(encode(opcodes.pong, payload));
    } else if (opcode === opcodes.text && payload.equals(Buffer.from('close'))) {
      closing = true;
      socket.write(encode(opcodes.close, closePayload(1000)));
    } else {
      socket.write(encode(opcode, payload, { fin }));
    }
  });
  return (bytes) => reader.push(bytes);
});

console.log(JSON.stringify({ address: await listen(server) }));
