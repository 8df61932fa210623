// Two apps in JavaScript on one daemon: `desk` serves, `caller` uses every pattern. One line of JSON per step.
//
//   node scenario.js PROTO_FOLDER TARGET SERVICE [TOKEN]

"use strict";

const crypto = require("crypto");
const { Mesh, Reject } = require("./iris.js");

const [protoFolder, target, service, token = ""] = process.argv.slice(2);

function say(step, facts) {
  process.stdout.write(JSON.stringify({ step, ...facts }) + "\n");
}

async function failure(promise) {
  try {
    await promise;
    return { code: "none: it succeeded" };
  } catch (error) {
    return { code: error.code, executed: error.executed, reason: error.reason || "", body: String(error.body || "") };
  }
}

const sha256 = (data) => crypto.createHash("sha256").update(data).digest("hex");

async function main() {
  const attach = (name) => Mesh.attach(protoFolder, target, { service, name, token });
  const desk = await attach("desk");
  const caller = await attach("caller");
  say("welcome", { max_body: caller.welcome.max_bytes, node: caller.welcome.node, version: caller.welcome.version });

  const heard = { push: [], broadcast: [], cancelled: 0 };
  let pushed, broadcasted;
  const onPush = new Promise((resolve) => (pushed = resolve));
  const onBroadcast = new Promise((resolve) => (broadcasted = resolve));
  let cancelSeen;
  const onCancel = new Promise((resolve) => (cancelSeen = resolve));
  const joinId = await desk.join("js.desk", {
    async request(body, header, cancelled) {
      if (header.method === "reject") throw new Reject("missing", "no such row");
      if (header.method === "fail") throw new TypeError("a bug in the handler");
      if (header.method === "hang") {
        cancelSeen((await cancelled).kind);
        throw Object.assign(new Error("stopped"), { cancelled: true });
      }
      if (header.method === "digest") return sha256(body);
      if (header.method === "echo") return body;
      return `${body.toString().toUpperCase()} ${header.headers.colour} ${header.content_type} ${header.remaining_ms > 0}`;
    },
    async push(body) {
      heard.push.push(body.toString());
      pushed();
    },
    async broadcast(body) {
      heard.broadcast.push(body.toString());
      broadcasted();
    },
    async survey(body) {
      return `answer to ${body}`;
    },
    async tunnel(tunnel, body) {
      if (body.toString() === "abort") throw new Error("not today");
      for (let message; (message = await tunnel.receive()); ) await tunnel.send(message);
      tunnel.finish();
    },
  });
  say("joined", { id: joinId });

  const reply = await caller.request("js.desk", "hello", { headers: { colour: "blue" }, content_type: "text/plain" });
  say("request", { body: reply.body.toString(), member: reply.header.member });
  say("no-member", await failure(caller.request("js.nobody", "x")));
  say("bad-name", await failure(caller.request("no such name", "x")));
  say("rejected", await failure(caller.request("js.desk", "x", { method: "reject" })));
  say("failed", await failure(caller.request("js.desk", "x", { method: "fail" })));
  say("deadline", { ...(await failure(caller.request("js.desk", "x", { method: "hang", timeout: 200 }))), told: await onCancel });

  const large = crypto.randomBytes(3_000_000);
  const echoed = await caller.request("js.desk", large, { method: "echo" });
  const digest = await caller.request("js.desk", large, { method: "digest" });
  say("parts", { same: large.equals(echoed.body), digest: digest.body.toString() === sha256(large) });

  const many = await Promise.all([...Array(200).keys()].map((n) => caller.request("js.desk", `n${n}`, { method: "echo" })));
  say("concurrent", { right: many.every(({ body }, n) => body.toString() === `n${n}`) });

  await caller.push("js.desk", "a job");
  await onPush;
  say("push", { heard: heard.push });
  const count = await caller.broadcast("js.desk", "to all");
  await onBroadcast;
  say("broadcast", { count, heard: heard.broadcast });
  const survey = await caller.survey("js.desk", "who is there?");
  say("survey", { answers: survey.answers.map(({ body }) => body), asked: survey.asked.length });

  const events = await desk.subscribe("js.orders.*");
  const grouped = await desk.subscribe("js.orders.*", { group: "js.desk" });
  for (let n = 0; n < 500; n++) caller.publish("js.orders.eu", `event ${n}`);
  caller.publishMany("js.orders.us", ["one", "", "three"]);
  caller.publish("js.other", "not for us");
  const lost = await caller.flush();
  const got = [];
  for (const inbox of [events, grouped]) {
    const list = [];
    while (list.length < 503) list.push(await inbox.next());
    got.push(list);
  }
  const inOrder = (list) => list.slice(0, 500).every(({ body }, n) => body.toString() === `event ${n}`);
  const batch = (list) => list.slice(500).map(({ topic, body }) => `${topic}=${body}`);
  say("events", { lost, ordered: got.map(inOrder), batch: got.map(batch), told: got.flat().reduce((n, e) => n + e.lost, 0) });

  const tunnel = await caller.tunnel("js.desk");
  const messages = [...Array(200).keys()].map((n) => crypto.randomBytes((n * 997) % 20_000));
  messages.push(crypto.randomBytes(200_000)); // several DATA frames
  const sending = (async () => {
    for (const message of messages) await tunnel.send(message);
    tunnel.finish();
  })();
  const back = [];
  for (let message; (message = await tunnel.receive()); ) back.push(message);
  await sending;
  say("tunnel", { same: back.length === messages.length && back.every((message, n) => message.equals(messages[n])) });
  const aborted = await caller.tunnel("js.desk", "abort");
  say("tunnel-aborted", await failure(aborted.receive()));
  say("tunnel-to-nobody", await failure(caller.tunnel("js.nobody")));

  const status = await caller.control("GetStatus");
  const clusters = (await caller.control("ListClusters", { service })).clusters;
  say("control", {
    services: status.services.map((row) => row.service),
    cluster: clusters.filter((row) => row.name === "js.desk").map((row) => row.members),
    refused: (await caller.control("ListNodes", { service: "js.nowhere" }).catch((error) => error)).code,
  });

  await desk.leave(joinId);
  say("left", await failure(caller.request("js.desk", "x")));

  const confused = await attach("confused");
  confused.send({ kind: "KIND_REQUEST", id: 2, address: "js.desk", remaining_ms: 1000 }); // ids of apps are odd
  const end = await confused.ended;
  say("rule-broken", { status: end.code, details: end.details });
  confused.client.close();

  say("closed", { codes: [(await caller.close()).code, (await desk.close()).code] });
}

main().catch((error) => {
  process.stderr.write(`${error.stack}\n`);
  process.exit(1);
});
