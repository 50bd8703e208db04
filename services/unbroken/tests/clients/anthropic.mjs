// The official Anthropic SDK for JavaScript against the mesh: its address is the argument.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const prompt = (more = "") => `[[script id=n tokens=20 gap_us=500 ttft_us=0${more}]]`;
const oracle = (first, last) => Array.from({ length: last - first }, (_, token) => `n.${first + token} `).join("");
const ask = (more, rest) => ({ model: "scripted", max_tokens: 100, messages: [{ role: "user", content: prompt(more) }], ...rest });
const tools = [{ name: "say", input_schema: { type: "object", properties: { text: { type: "string" } } } }];

const whole = await client.messages.create(ask(" reasoning=2"));
assert.deepEqual(whole.content.map((block) => block.thinking ?? block.text), [oracle(0, 2), oracle(2, 20)]);

let streamed = "";
const stream = client.messages.stream(ask()).on("text", (text) => { streamed += text; });
const final = await stream.finalMessage();
assert.deepEqual([streamed, final.stop_reason, final.usage.output_tokens], [oracle(0, 20), "end_turn", 20]);

const called = await client.messages.stream(ask(" tool=say", { tools })).finalMessage();
assert.deepEqual([called.content[0].type, called.content[0].input], ["tool_use", { text: oracle(1, 19) }]);

const counted = await client.messages.countTokens({ model: "scripted", messages: [{ role: "user", content: "one two three" }] });
assert.equal(counted.input_tokens, 3);

await assert.rejects(client.messages.create(ask("", { model: "nobody" })), (error) => error instanceof Anthropic.NotFoundError);
console.log("ok");
