// The official OpenAI SDK for JavaScript against the mesh: its address is the argument.
import assert from "node:assert/strict";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.argv[2]}/v1`, apiKey: "none", maxRetries: 0 });
const prompt = (more = "") => `[[script id=n tokens=20 gap_us=500 ttft_us=0${more}]]`;
const text = Array.from({ length: 20 }, (_, token) => `n.${token} `).join("");
const ask = (more, rest) => ({ model: "scripted", messages: [{ role: "user", content: prompt(more) }], ...rest });
const tools = [{ type: "function", function: { name: "say", parameters: { type: "object", properties: { text: { type: "string" } } } } }];

const whole = await client.chat.completions.create(ask());
assert.deepEqual([whole.choices[0].message.content, whole.usage.completion_tokens], [text, 20]);

const stream = client.chat.completions.stream(ask("", { stream_options: { include_usage: true } }));
let streamed = "";
for await (const chunk of stream) streamed += chunk.choices[0]?.delta.content ?? "";
assert.equal(streamed, text);
assert.equal((await stream.finalChatCompletion()).choices[0].finish_reason, "stop");

const called = await client.chat.completions.stream(ask(" tool=say", { tools })).finalChatCompletion();
const [call] = called.choices[0].message.tool_calls;
assert.equal(called.choices[0].finish_reason, "tool_calls");
assert.match(JSON.parse(call.function.arguments).text, /^n\.1 /);

const legacy = await client.completions.create({ model: "scripted", prompt: prompt(), max_tokens: 20 });
assert.equal(legacy.choices[0].text, text);
assert.ok((await client.models.list()).data.some((model) => model.id === "scripted"));
assert.equal((await client.embeddings.create({ model: "scripted", input: ["a", "b"] })).data.length, 2);

await assert.rejects(client.chat.completions.create(ask("", { model: "nobody" })), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
console.log("ok");
