// The official Node libraries against the stand-in: a second pair of eyes on streams and tool calls.
// Takes the stand-in's URL.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The libraries live in the folder of scripts/test-deps, which is the working folder.
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const { default: OpenAI } = await load("openai");
const { default: Anthropic } = await load("@anthropic-ai/sdk");
const { Ollama } = await load("ollama");

const url = process.argv[2];
const greeting = "Grüße, 世界! 🚀 All is well.";
const inputs = [{ city: "Paris", note: 'a "quoted" wörd' }, { city: "Oslo" }];
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const user = (content) => [{ role: "user", content }];
const fn = { name: "get_weather", description: "Tells the weather.", parameters: schema };
const isOf = (kind, status) => (error) => error instanceof kind && error.status === status;

async function openai() {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-test", maxRetries: 0 });
  const common = { model: "gpt-4o-mini", tools: [{ type: "function", function: fn }] };
  const ask = (text) => client.chat.completions.create({ ...common, messages: user(text) });
  const stream = (text) => client.chat.completions.stream({
    ...common, messages: user(text), stream_options: { include_usage: true },
  });

  assert.equal((await ask("greet")).choices[0].message.content, greeting);
  const said = await stream("greet in single bytes").finalChatCompletion();
  assert.equal(said.choices[0].message.content, greeting);
  assert.equal(said.usage.total_tokens, 21);
  const called = await stream("weather in two cities").finalChatCompletion();
  assert.equal(called.choices[0].finish_reason, "tool_calls");
  const calls = called.choices[0].message.tool_calls;
  assert.deepEqual(calls.map((call) => JSON.parse(call.function.arguments)), inputs);
  await assert.rejects(ask("busy"), isOf(OpenAI.RateLimitError, 429));
  await assert.rejects(ask("wrong key"), isOf(OpenAI.AuthenticationError, 401));
  await assert.rejects(stream("breaks in mid-stream").finalChatCompletion(), /overloaded/);
  await assert.rejects(stream("cut in mid-stream").finalChatCompletion());
}

async function anthropic() {
  const client = new Anthropic({ baseURL: url, apiKey: "sk-ant-test", maxRetries: 0 });
  const tools = [{ name: fn.name, description: fn.description, input_schema: schema }];
  const common = { model: "claude-sonnet-5", max_tokens: 100, tools };
  const ask = (text) => client.messages.create({ ...common, messages: user(text) });
  const stream = (text) => client.messages.stream({ ...common, messages: user(text) });

  assert.equal((await ask("greet")).content[0].text, greeting);
  const said = await stream("greet in single bytes").finalMessage();
  assert.equal(said.content[0].text, greeting);
  assert.equal(said.usage.output_tokens, 7);
  const called = await stream("weather in two cities").finalMessage();
  assert.equal(called.stop_reason, "tool_use");
  const calls = called.content.filter((block) => block.type === "tool_use");
  assert.deepEqual(calls.map((call) => call.input), inputs);
  await assert.rejects(ask("busy"), isOf(Anthropic.RateLimitError, 429));
  await assert.rejects(ask("wrong key"), isOf(Anthropic.AuthenticationError, 401));
  await assert.rejects(ask("overloaded"), (error) => error.status === 529);
  await assert.rejects(stream("breaks in mid-stream").finalMessage(), /overloaded_error/);
  await assert.rejects(stream("cut in mid-stream").finalMessage());
}

async function ollama() {
  const client = new Ollama({ host: url });
  const common = { model: "llama3.2:latest", tools: [{ type: "function", function: fn }] };
  const ask = (text) => client.chat({ ...common, messages: user(text) });
  const stream = async (text) => {
    const parts = [];
    for await (const part of await client.chat({ ...common, messages: user(text), stream: true })) {
      parts.push(part);
    }
    return parts;
  };

  assert.equal((await ask("greet")).message.content, greeting);
  const said = await stream("greet in single bytes");
  assert.equal(said.map((part) => part.message.content).join(""), greeting);
  assert.equal(said.at(-1).eval_count, 7);
  const called = await stream("weather in two cities");
  const calls = called.flatMap((part) => part.message.tool_calls ?? []);
  assert.deepEqual(calls.map((call) => call.function.arguments), inputs);
  await assert.rejects(ask("busy"), (error) => error.status_code === 429);
  await assert.rejects(stream("breaks in mid-stream"), /busy/);
  await assert.rejects(stream("cut in mid-stream"));
}

await openai();
await anthropic();
await ollama();
console.log("3 passed, 0 failed");
