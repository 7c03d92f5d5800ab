// WebSocket frames by hand, for what the ws package hides or makes too heavy for thousands of
// sessions: which bytes arrive, when, and whether a TCP end came with or without a CLOSE.
import { createHash, randomBytes } from 'node:crypto';
import net from 'node:net';

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

export function acceptKey(key) {
  return createHash('sha1').update(`${key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest('base64');
}

export function applyMask(payload, mask) {
  const out = Buffer.from(payload);
  for (let i = 0; i < out.length; i += 1) {
    out[i] ^= mask[i & 3];
  }
  return out;
}

// One frame; masked when `mask` (4 bytes) is given, as a client must.
export function encode(opcode, payload, { fin = true, mask = null } = {}) {
  const body = Buffer.from(payload);
  const head = [(fin ? 0x80 : 0) | opcode];
  const bit = mask ? 0x80 : 0;
  if (body.length < 126) {
    head.push(bit | body.length);
  } else if (body.length < 65536) {
    head.push(bit | 126, body.length >> 8, body.length & 0xff);
  } else {
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(body.length));
    head.push(bit | 127, ...length);
  }
  return mask
    ? Buffer.concat([Buffer.from(head), mask, applyMask(body, mask)])
    : Buffer.concat([Buffer.from(head), body]);
}

export function closePayload(code, reason = '') {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  return payload;
}

// Cuts a byte stream into frames: { opcode, fin, payload (unmasked), masked }.
export class FrameReader {
  constructor(onFrame) {
    this.onFrame = onFrame;
    this.rest = Buffer.alloc(0);
  }

  push(chunk) {
    let bytes = this.rest.length > 0 ? Buffer.concat([this.rest, chunk]) : chunk;
    for (;;) {
      if (bytes.length < 2) {
        break;
      }
      const masked = (bytes[1] & 0x80) !== 0;
      let length = bytes[1] & 0x7f;
      let at = 2;
      if (length === 126) {
        if (bytes.length < 4) {
          break;
        }
        length = bytes.readUInt16BE(2);
        at = 4;
      } else if (length === 127) {
        if (bytes.length < 10) {
          break;
        }
        length = Number(bytes.readBigUInt64BE(2));
        at = 10;
      }
      const end = at + (masked ? 4 : 0) + length;
      if (bytes.length < end) {
        break;
      }
      const payload = masked
        ? applyMask(bytes.subarray(at + 4, end), bytes.subarray(at, at + 4))
        : bytes.subarray(at, end);
      const frame = { opcode: bytes[0] & 0x0f, fin: (bytes[0] & 0x80) !== 0, payload, masked };
      bytes = bytes.subarray(end);
      this.onFrame(frame);
    }
    this.rest = bytes;
  }

  // Whether the stream stands between two frames.
  get atBoundary() {
    return this.rest.length === 0;
  }
}

// The bytes behind an HTTP head, once it is complete: calls onHead(text, rest) once, then onBytes.
function afterHead(socket, onHead, onBytes) {
  let head = Buffer.alloc(0);
  let done = false;
  socket.on('data', (chunk) => {
    if (done) {
      onBytes(chunk);
      return;
    }
    head = Buffer.concat([head, chunk]);
    const end = head.indexOf('\r\n\r\n');
    if (end >= 0) {
      done = true;
      onHead(head.subarray(0, end).toString('latin1'));
      if (head.length > end + 4) {
        onBytes(head.subarray(end + 4));
      }
    }
  });
}

// A session from the client's side. `ended` resolves once TCP is over, with
// { code, reason, answered }: what the CLOSE said, or code 1006 when none came.
export class WireClient {
  constructor(socket) {
    this.socket = socket;
    this.onMessage = () => {}; // (payload: Buffer, opcode)
    this.onBytes = null; // instead of frames: the bytes as they come
    this.onClose = () => {}; // ({ code, reason }) when a CLOSE arrives
    this.close = null; // what the CLOSE of the other side said
    this.answered = false; // whether a CLOSE of ours went out
    this.fragments = [];
    this.ended = new Promise((resolve) => {
      socket.on('close', () => {
        const { code, reason } = this.close ?? { code: 1006, reason: '' };
        resolve({ code, reason, answered: this.answered });
      });
    });
    this.reader = new FrameReader((frame) => this.#onFrame(frame));
  }

  // Connects, upgrades and resolves with the client; rejects when the answer is not a 101. `listen`
  // gets the client first: a message may come in one piece with the 101.
  static open({ port, path = '/', headers = {}, listen: setUp = () => {} }) {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
      const client = new WireClient(socket);
      setUp(client);
      const lines = Object.entries({
        Host: 'localhost',
        Upgrade: 'websocket',
        Connection: 'Upgrade',
        'Sec-WebSocket-Version': '13',
        'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
        ...headers,
      }).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.on('connect', () => socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`));
      socket.on('error', reject); // after the 101 it has no effect: 'close' follows and tells
      socket.on('close', () => reject(new Error('closed before the answer')));
      socket.on('end', () => socket.end());
      afterHead(socket, (head) => {
        if (head.startsWith('HTTP/1.1 101 ')) {
          resolve(client);
        } else {
          reject(new Error(`the upgrade was answered: ${head.split('\r\n')[0]}`));
          socket.destroy();
        }
      }, (bytes) => {
        if (client.onBytes) {
          client.onBytes(bytes);
        } else {
          client.reader.push(bytes);
        }
      });
    });
  }

  send(payload, opcode = opcodes.text, fin = true) {
    if (!this.answered) {
      this.socket.write(encode(opcode, payload, { fin, mask: randomBytes(4) }));
    }
  }

  sendClose(code, reason = '') {
    this.send(closePayload(code, reason), opcodes.close);
    this.answered = true;
  }

  #onFrame({ opcode, fin, payload }) {
    if (opcode === opcodes.close) {
      this.close = payload.length >= 2
        ? { code: payload.readUInt16BE(0), reason: payload.subarray(2).toString() }
        : { code: 1005, reason: '' };
      this.onClose(this.close);
      if (!this.answered) {
        this.send(payload, opcodes.close);
        this.answered = true;
      }
      this.socket.end();
    } else if (opcode === opcodes.ping) {
      this.send(payload, opcodes.pong);
    } else if (opcode !== opcodes.pong) {
      if (opcode !== opcodes.continuation) {
        this.messageOpcode = opcode;
      }
      this.fragments.push(payload);
      if (fin) {
        const message = this.fragments.length === 1 ? payload : Buffer.concat(this.fragments);
        this.fragments = [];
        this.onMessage(message, this.messageOpcode);
      }
    }
  }
}

// A TCP server that upgrades every request and hands the socket over: onSession(socket, head) is to
// return the function that takes the bytes from then on.
export function wireServer(onSession) {
  return net.createServer({ noDelay: true, allowHalfOpen: true }, (socket) => {
    let take = null;
    socket.on('error', () => socket.destroy());
    socket.on('end', () => socket.end());
    afterHead(socket, (head) => {
      const key = /^sec-websocket-key: *(\S+)/im.exec(head)?.[1];
      if (!key) {
        socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
        take = () => {};
        return;
      }
      socket.write('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n' +
        `Connection: Upgrade\r\nSec-WebSocket-Accept: ${acceptKey(key)}\r\n\r\n`);
      take = onSession(socket, head);
    }, (bytes) => take(bytes));
  });
}

export async function listen(server) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `127.0.0.1:${server.address().port}`;
}
