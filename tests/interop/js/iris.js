// A small client of irisd, written from proto/iris/v1/*.proto alone: the comments there are its whole specification.
//
// It covers what the protocol has (every pattern, parts, credit, cancellation) and nothing an SDK would add:
// no reconnecting, no codecs, no bounded queues of its own.

"use strict";

const path = require("path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const PART = 256 * 1024;
const DATA = 64 * 1024;
const DATA_COST = 64;
const WINDOW = 256 * 1024;

const PATTERN = { request: 1, push: 2, broadcast: 4, survey: 8, tunnel: 16 };

function load(protoFolder) {
  const files = ["iris/v1/attach.proto", "iris/v1/control.proto"];
  const options = { includeDirs: [protoFolder], keepCase: true, longs: Number, enums: String, defaults: true };
  return grpc.loadPackageDefinition(loader.loadSync(files, options)).iris.v1;
}

function metadataFor(token) {
  const metadata = new grpc.Metadata();
  if (token) metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

// A call that failed. `code` and `executed` are the enum's names without their prefix.
class CallError extends Error {
  constructor(header, body) {
    const code = header.code.replace("CODE_", "");
    super(`${code}: ${header.detail}`);
    this.code = code;
    this.executed = header.executed.replace("EXECUTED_", "");
    this.reason = header.reason;
    this.body = body;
  }
}

// Throw it in a handler to say no on purpose.
class Reject extends Error {
  constructor(reason, body = "") {
    super(reason);
    this.reason = reason;
    this.body = Buffer.from(body);
  }
}

// A queue that is read with `await next()`; null once it was closed, or the error it was closed with, thrown.
class Inbox {
  constructor() {
    this.items = [];
    this.waiting = [];
    this.closed = undefined;
  }

  put(item) {
    const waiter = this.waiting.shift();
    if (waiter) waiter.resolve(item);
    else this.items.push(item);
  }

  close(error = null) {
    if (this.closed !== undefined) return;
    this.closed = error;
    for (const waiter of this.waiting) error ? waiter.reject(error) : waiter.resolve(null);
    this.waiting = [];
  }

  next() {
    if (this.items.length) return Promise.resolve(this.items.shift());
    if (this.closed) return Promise.reject(this.closed);
    if (this.closed === null) return Promise.resolve(null);
    return new Promise((resolve, reject) => this.waiting.push({ resolve, reject }));
  }
}

class Tunnel {
  constructor(mesh, id) {
    this.mesh = mesh;
    this.id = id;
    this.credit = 0;
    this.waiting = [];
    this.inbox = new Inbox();
    this.pieces = [];
    this.broken = null;
    this.finished = { us: false, them: false };
    this.accepted = new Promise((resolve, reject) => (this.acceptance = { resolve, reject }));
    this.accepted.catch(() => {}); // whoever opened it hears of it; a member does not wait
  }

  grant(count) {
    this.mesh.send({ kind: "KIND_CREDIT", id: this.id, count });
  }

  async send(message) {
    const body = Buffer.from(message);
    for (let at = 0; at === 0 || at < body.length; at += DATA) {
      const piece = body.subarray(at, at + DATA);
      while (!this.broken && this.credit < piece.length + DATA_COST) {
        await new Promise((resolve) => this.waiting.push(resolve));
      }
      if (this.broken) throw this.broken;
      this.credit -= piece.length + DATA_COST;
      this.mesh.send({ kind: "KIND_DATA", id: this.id, more: at + DATA < body.length }, piece);
    }
  }

  finish() {
    this.mesh.send({ kind: "KIND_FINISH", id: this.id });
    this.finished.us = true;
    this.forgetWhenOver();
  }

  abort(detail) {
    this.mesh.send({ kind: "KIND_ERROR", id: this.id, code: "CODE_CANCELLED", executed: "EXECUTED_YES", detail });
    this.mesh.calls.delete(this.id);
  }

  // The next message; null when the other end has finished.
  async receive() {
    const message = await this.inbox.next();
    if (message) this.grant(message.cost);
    return message && message.body;
  }

  frame(header, body) {
    if (header.kind === "KIND_CREDIT") {
      this.credit += header.count;
      this.acceptance.resolve();
      for (const wake of this.waiting.splice(0)) wake();
    } else if (header.kind === "KIND_DATA") {
      this.pieces.push(body);
      if (header.more) return;
      const pieces = this.pieces.splice(0);
      const message = Buffer.concat(pieces);
      this.inbox.put({ body: message, cost: message.length + DATA_COST * pieces.length });
    } else if (header.kind === "KIND_FINISH") {
      this.finished.them = true;
      this.inbox.close();
      this.forgetWhenOver();
    } else {
      this.fail(new CallError(header, body));
    }
  }

  fail(error) {
    this.broken = error;
    this.acceptance.reject(error);
    this.inbox.close(error);
    for (const wake of this.waiting.splice(0)) wake();
    this.mesh.calls.delete(this.id);
  }

  forgetWhenOver() {
    if (this.finished.us && this.finished.them) this.mesh.calls.delete(this.id);
  }
}

class Mesh {
  // Attach to a daemon: `target` as gRPC writes it, "unix:/run/irisd/irisd.sock" or "127.0.0.1:7510".
  static async attach(protoFolder, target, { service = "", name = "js", token = "" } = {}) {
    const mesh = new Mesh(protoFolder, target, token);
    mesh.send({ kind: "KIND_HELLO", address: service, member: name, version: "js-interop" });
    mesh.welcome = await mesh.welcomed;
    return mesh;
  }

  constructor(protoFolder, target, token) {
    this.proto = load(protoFolder);
    this.target = target;
    this.token = token;
    this.client = new this.proto.Relay(target, grpc.credentials.createInsecure());
    this.stream = this.client.Attach(metadataFor(token));
    this.id = -1;
    this.calls = new Map(); // by id: what happens to the frames of a call
    this.parts = new Map(); // by id: a body on its way
    this.welcomed = new Promise((resolve, reject) => (this.welcoming = { resolve, reject }));
    this.ended = new Promise((resolve) => this.stream.on("status", resolve));
    this.stream.on("error", () => {}); // its status is what counts
    this.stream.on("data", (batch) => batch.frames.forEach((frame) => this.received(frame.header, frame.body)));
    this.ended.then((status) => this.lost(new Error(`detached: ${status.details}`)));
  }

  nextId() {
    return (this.id += 2);
  }

  // One call of this may write several frames, but always one batch: a large body's parts among it.
  send(header, body = Buffer.alloc(0)) {
    const frames = [];
    if (body.length <= PART) {
      frames.push({ header, body });
    } else {
      frames.push({ header: { ...header, more: true, total: body.length }, body: body.subarray(0, PART) });
      for (let at = PART; at < body.length; at += PART) {
        const more = at + PART < body.length;
        frames.push({ header: { kind: "KIND_PART", id: header.id, more }, body: body.subarray(at, at + PART) });
      }
    }
    for (let at = 0; at < frames.length; at += 3) this.stream.write({ frames: frames.slice(at, at + 3) });
  }

  received(header, body) {
    if (header.kind !== "KIND_DATA" && (header.more || header.kind === "KIND_PART")) {
      const open = this.parts.get(header.id) || { header, pieces: [] };
      open.pieces.push(body);
      if (header.more) return void this.parts.set(header.id, open);
      this.parts.delete(header.id);
      [header, body] = [open.header, Buffer.concat(open.pieces)];
    }
    if (header.kind === "KIND_WELCOME") return this.welcoming.resolve(header);
    if (header.kind === "KIND_GOODBYE") return;
    const call = this.calls.get(header.id);
    if (call) call.frame(header, body);
    else if (header.id % 2 === 0) this.deliver(header, body);
  }

  lost(error) {
    this.welcoming.reject(error);
    for (const call of [...this.calls.values()]) call.fail(error);
    this.calls.clear();
  }

  // Open a call that ends with one frame of kind `end` or with ERROR. A survey's answers, which name a member, go to `each`.
  call(header, body, end, each = null) {
    const id = this.nextId();
    const over = new Promise((resolve, reject) => {
      const finish = (settle) => (value) => (this.calls.delete(id), settle(value));
      const [done, fail] = [finish(resolve), finish(reject)];
      this.calls.set(id, {
        fail,
        frame(got, gotBody) {
          if (got.kind === end) done({ header: got, body: gotBody });
          else if (each && got.member) each(got, gotBody);
          else if (got.kind === "KIND_ERROR") fail(new CallError(got, gotBody));
        },
      });
    });
    this.send({ ...header, id }, Buffer.from(body || ""));
    over.id = id;
    return over;
  }

  request(address, body, { timeout = 5000, method = "", headers = {}, content_type = "" } = {}) {
    const header = { kind: "KIND_REQUEST", address, method, headers, content_type, remaining_ms: timeout };
    return this.call(header, body, "KIND_REPLY");
  }

  cancel(id) {
    this.send({ kind: "KIND_CANCEL", id });
  }

  push(address, body, timeout = 5000) {
    return this.call({ kind: "KIND_PUSH", address, remaining_ms: timeout }, body, "KIND_DONE");
  }

  async broadcast(address, body, timeout = 5000) {
    const call = this.call({ kind: "KIND_BROADCAST", address, remaining_ms: timeout }, body, "KIND_DONE");
    return (await call).header.count;
  }

  async survey(address, body, timeout = 1000) {
    const answers = [];
    const each = (header, answer) => answers.push({ member: header.member, body: answer.toString(), kind: header.kind });
    const header = { kind: "KIND_SURVEY", address, remaining_ms: timeout };
    const done = await this.call(header, body, "KIND_DONE", each);
    return { answers, asked: done.header.members };
  }

  publish(topic, body) {
    this.send({ kind: "KIND_PUBLISH", id: this.nextId(), address: topic }, Buffer.from(body));
  }

  publishMany(topic, bodies) {
    const buffers = bodies.map((body) => Buffer.from(body));
    const sizes = buffers.map((body) => body.length);
    this.send({ kind: "KIND_PUBLISH", id: this.nextId(), address: topic, sizes }, Buffer.concat(buffers));
  }

  async flush() {
    return (await this.call({ kind: "KIND_FLUSH" }, null, "KIND_DONE")).header.lost;
  }

  // Resolves to an Inbox of events once the subscription is established.
  async subscribe(filter, { group = "" } = {}) {
    const inbox = new Inbox();
    const id = this.nextId();
    await new Promise((resolve, reject) => {
      this.calls.set(id, {
        fail: (error) => (reject(error), inbox.close(error)),
        frame: (header, body) => {
          if (header.kind === "KIND_DONE") return resolve();
          if (header.kind === "KIND_ERROR") return reject(new CallError(header, body));
          let at = 0;
          for (const size of header.sizes.length ? header.sizes : [body.length]) {
            inbox.put({ topic: header.address, body: body.subarray(at, (at += size)), lost: header.lost });
          }
        },
      });
      this.send({ kind: "KIND_SUBSCRIBE", id, address: filter, group });
    });
    inbox.id = id;
    return inbox;
  }

  // Serve a cluster. `handlers` by pattern: request, push, broadcast and survey get (body, header, cancelled), tunnel a Tunnel.
  async join(address, handlers, concurrency = 16) {
    this.handlers = handlers;
    const patterns = Object.keys(handlers).reduce((bits, pattern) => bits | PATTERN[pattern], 0);
    const header = { kind: "KIND_JOIN", address, patterns, concurrency };
    const joined = this.call(header, null, "KIND_DONE");
    await joined;
    return joined.id;
  }

  leave(joinId) {
    return new Promise((resolve, reject) => {
      this.calls.set(joinId, { frame: () => (this.calls.delete(joinId), resolve()), fail: reject });
      this.send({ kind: "KIND_LEAVE", id: joinId });
    });
  }

  async tunnel(address, body = "", timeout = 5000) {
    const tunnel = new Tunnel(this, this.nextId());
    this.calls.set(tunnel.id, tunnel);
    this.send({ kind: "KIND_TUNNEL", id: tunnel.id, address, remaining_ms: timeout }, Buffer.from(body));
    await tunnel.accepted;
    tunnel.grant(WINDOW);
    return tunnel;
  }

  // A call the daemon opened: it carries an even id and is for one of our handlers.
  async deliver(header, body) {
    const id = header.id;
    const pattern = header.kind.replace("KIND_", "").toLowerCase();
    if (!(pattern in PATTERN)) return; // a frame of a call that is over: messages cross on the way
    if (pattern === "tunnel") {
      const tunnel = new Tunnel(this, id);
      this.calls.set(id, tunnel);
      tunnel.grant(WINDOW); // accepts it
      return this.handlers.tunnel(tunnel, body).catch((error) => tunnel.broken || tunnel.abort(String(error)));
    }
    const cancelled = new Promise((resolve) => this.calls.set(id, { frame: resolve, fail: resolve }));
    try {
      const answer = await this.handlers[pattern](body, header, cancelled);
      if (pattern === "push") this.send({ kind: "KIND_DONE", id });
      else if (pattern !== "broadcast") this.send({ kind: "KIND_REPLY", id }, Buffer.from(answer));
    } catch (error) {
      const code = error instanceof Reject ? "CODE_REJECTED" : error.cancelled ? "CODE_CANCELLED" : "CODE_HANDLER_FAILED";
      const said = { code, executed: "EXECUTED_YES", reason: error.reason || "", detail: error.message };
      if (pattern !== "broadcast") this.send({ kind: "KIND_ERROR", id, ...said }, error.body);
    } finally {
      this.calls.delete(id);
    }
  }

  // Ask the read-only Control service.
  control(method, request = {}) {
    const client = new this.proto.Control(this.target, grpc.credentials.createInsecure());
    return new Promise((resolve, reject) => {
      client[method](request, metadataFor(this.token), (error, answer) => {
        client.close();
        error ? reject(error) : resolve(answer);
      });
    });
  }

  // Say goodbye, close this side, and wait for the stream's status.
  async close() {
    this.send({ kind: "KIND_GOODBYE" });
    this.stream.end();
    const status = await this.ended;
    this.client.close();
    return status;
  }
}

module.exports = { Mesh, CallError, Reject };
