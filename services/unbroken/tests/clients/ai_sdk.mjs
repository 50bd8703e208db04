// Vercel's AI SDK against the mesh: its address is the argument.
import assert from "node:assert/strict";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, streamText, tool } from "ai";
import { z } from "zod";

const mesh = createOpenAICompatible({ name: "unbroken", baseURL: `${process.argv[2]}/v1`, apiKey: "none", includeUsage: true });
const prompt = (more = "") => `[[script id=v tokens=20 gap_us=500 ttft_us=0${more}]]`;
const oracle = (first, last) => Array.from({ length: last - first }, (_, token) => `v.${first + token} `).join("");
const model = mesh("scripted");
const tools = { say: tool({ description: "Says it.", inputSchema: z.object({ text: z.string() }) }) };

const whole = await generateText({ model, prompt: prompt(), maxRetries: 0 });
assert.deepEqual([whole.text, whole.finishReason, whole.usage.outputTokens], [oracle(0, 20), "stop", 20]);

const stream = streamText({ model, prompt: prompt(" reasoning=2"), maxRetries: 0 });
let streamed = "";
for await (const part of stream.textStream) streamed += part;
assert.equal(streamed, oracle(2, 20));
assert.equal(await stream.reasoningText, oracle(0, 2));
assert.equal((await stream.usage).outputTokens, 20);

const called = await generateText({ model, prompt: prompt(" tool=say"), tools, maxRetries: 0 });
assert.deepEqual([called.toolCalls[0].toolName, called.toolCalls[0].input], ["say", { text: oracle(1, 19) }]);
const { toolCalls } = streamText({ model, prompt: prompt(" tool=say"), tools, maxRetries: 0 });
assert.equal((await toolCalls)[0].input.text, oracle(1, 19));

assert.equal((await embedMany({ model: mesh.textEmbeddingModel?.("scripted") ?? mesh.embeddingModel("scripted"), values: ["a", "b"] })).embeddings.length, 2);
await assert.rejects(generateText({ model: mesh("nobody"), prompt: "x", maxRetries: 0 }), (error) => error.statusCode === 404);
console.log("ok");
