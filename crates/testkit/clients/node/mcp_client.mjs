// The official MCP clients for Node against AgentRunner's own MCP server: of the protocol with sessions, and of the one
// without. Takes which, and how to reach it:
//   2025|2026 http URL KEY        streamable HTTP
//   2025|2026 stdio PROGRAM ARGS  a program on standard input and output
// The server has the agents greeter, dreamer, asker and failing of crates/agentrunner/tests/it/mcp.rs.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The libraries live in the folder of scripts/test-deps, which is the working folder.
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const load = async (name) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/${name}`)));
const [age, kind, where, ...rest] = process.argv.slice(2);
const sdk = age === "2025"
  ? [await load("sdk/client/index.js"), await load("sdk/client/streamableHttp.js"), await load("sdk/client/stdio.js")]
  : [await load("client"), await load("client/stdio")];
const { Client, StreamableHTTPClientTransport, StdioClientTransport } = Object.assign({}, ...sdk);

const transport = kind === "http"
  ? new StreamableHTTPClientTransport(new URL(where), {
    requestInit: { headers: { Authorization: `Bearer ${rest[0]}` } },
  })
  : new StdioClientTransport({ command: where, args: rest, cwd: process.env.PROJECT, env: process.env });
// What was sent is on its way before the connection is closed.
const sent = [];
const send = transport.send.bind(transport);
transport.send = (...message) => {
  const sending = send(...message);
  sent.push(sending);
  return sending;
};
const options = age === "2025" ? {} : { versionNegotiation: { mode: { pin: "2026-07-28" } } };
const client = new Client({ name: "test", version: "1" }, options);
await client.connect(transport);

let passed = 0;
async function check(what, work) {
  try {
    await work();
    passed += 1;
  } catch (error) {
    console.log(`${what}: ${error.stack}`);
  }
}
const call = (name, args, options) => {
  const params = { name, arguments: args };
  return age === "2025" ? client.callTool(params, undefined, options) : client.callTool(params, options);
};
const text = (result) => result.content.map((block) => block.text).join("");

await check("it says who it is", async () => {
  assert.equal(client.getServerVersion().name, "agentrunner");
  assert.match(client.getInstructions(), /message/);
});
await check("agents are tools", async () => {
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name), ["asker", "dreamer", "failing", "greeter"]);
  const greeter = tools[3];
  assert.equal(greeter.description, "Says hello.");
  assert.deepEqual(greeter.inputSchema.required, ["message"]);
});
await check("a call is answered", async () => {
  const result = await call("greeter", { message: "hi", conversation_id: "monday" });
  assert.ok(!result.isError, text(result));
  assert.equal(text(result), "Hello there.");
  assert.equal(result.structuredContent.status, "completed");
  assert.match(result.structuredContent.execution_id, /^[0-9a-f-]{36}$/);
});
await check("a failure is told in words", async () => {
  const result = await call("failing", { message: "hi" });
  assert.equal(result.isError, true);
  assert.match(text(result), /did not answer: failed/);
  assert.match(text(result), /agentrunner tasks show/);
});
await check("wrong arguments are told in words", async () => {
  for (const args of [{}, { message: " " }, { message: "hi", more: 1 }, { message: "hi", conversation_id: "" }]) {
    const result = await call("greeter", args);
    assert.equal(result.isError, true, JSON.stringify(args));
    assert.ok(text(result).length > 15);
  }
});
await check("an unknown agent is an error of the protocol", async () => {
  await assert.rejects(call("nobody", { message: "hi" }), /there is no agent \\?"nobody\\?"/);
});
await check("a question to a person is passed on", async () => {
  const result = await call("asker", { message: "hi" });
  assert.ok(!result.isError);
  assert.match(text(result), /Which colour\?/);
  assert.match(text(result), /agentrunner inbox answer/);
  assert.equal(result.structuredContent.status, "waiting_for_input");
});
await check("progress is told, and a call is cancelled", async () => {
  const stop = new AbortController();
  const told = [];
  const heard = (progress) => {
    told.push(progress.message);
    if (told.length === 2) stop.abort("enough");
  };
  const options = { signal: stop.signal, onprogress: heard };
  await assert.rejects(call("dreamer", { message: "hi" }, options));
  assert.ok(told.includes("calls current_time"), told.join());
});
await Promise.allSettled(sent);
await client.close();
console.log(`${passed} passed, ${8 - passed} failed`);
process.exit(passed === 8 ? 0 : 1);
