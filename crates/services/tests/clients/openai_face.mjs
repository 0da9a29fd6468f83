// The official OpenAI library for Node against an agent. Takes the orchestrator's URL.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The libraries live in the folder of scripts/test-deps, which is the working folder.
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "any", maxRetries: 0 });
const greeting = "Hello from the script.";
const messages = [{ role: "user", content: "hello" }];

const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.deepEqual(models, ["helper", "talker"]);
const answer = await client.chat.completions.create({ model: "helper", messages });
assert.equal(answer.choices[0].message.content, greeting);
const stream = client.chat.completions.stream({
  model: "helper", messages, stream_options: { include_usage: true },
});
const said = await stream.finalChatCompletion();
assert.equal(said.choices[0].message.content, greeting);
assert.equal(said.usage.total_tokens, 15);
await assert.rejects(
  client.chat.completions.create({ model: "helper", messages: [] }),
  (error) => error.status === 400 && error.param === "messages",
);

const first = await client.responses.create({ model: "helper", input: "hello" });
assert.equal(first.output_text, greeting);
assert.equal(first.usage.total_tokens, 15);
const second = await client.responses.create({
  model: "helper", input: "hello again", previous_response_id: first.id,
});
assert.equal(second.previous_response_id, first.id);
assert.equal((await client.responses.retrieve(second.id)).status, "completed");
let text = "";
const kinds = [];
for await (const event of await client.responses.create({ model: "helper", input: "hello", stream: true })) {
  kinds.push(event.type);
  if (event.type === "response.output_text.delta") text += event.delta;
}
assert.equal(text, greeting);
assert.equal(kinds.at(0), "response.created");
assert.equal(kinds.at(-1), "response.completed");
const whole = await client.responses.stream({ model: "helper", input: "hello" }).finalResponse();
assert.equal(whole.output_text, greeting);
await assert.rejects(
  client.responses.create({ model: "helper", input: [] }),
  (error) => error.status === 400 && error.param === "input",
);
console.log("passed");
