// The AI SDK with its provider for OpenAI-compatible servers. Prints what came back as JSON.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "tts",
  baseURL: process.argv[2],
  apiKey: "none",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const prompt = "What is 2 + 2?";
const options = { maxRetries: 0, providerOptions: { tts: { tts: { strategy: "best_of_n", n: 4 } } } };

const plain = await generateText({ model: provider("fake"), prompt, ...options });
const streaming = streamText({ model: provider("fake@best_of_n"), prompt, maxRetries: 0 });
let pieces = 0;
for await (const _ of streaming.textStream) pieces += 1;
const point = await generateText({
  model: provider("fake"),
  prompt,
  maxRetries: 0,
  output: Output.object({ schema: z.object({ x: z.number().int(), label: z.string() }) }),
});
const weather = tool({ description: "The weather.", inputSchema: z.object({ city: z.string() }) });
const called = await generateText({
  model: provider("fake"),
  prompt: "Use get_weather for Oslo.",
  tools: { get_weather: weather },
  maxRetries: 0,
});
let status;
try {
  await generateText({ model: provider("nobody"), prompt, maxRetries: 0 });
} catch (error) {
  status = error.statusCode;
}
console.log(
  JSON.stringify({
    text: plain.text,
    usage: plain.usage,
    finish: plain.finishReason,
    streamed: await streaming.text,
    thought: await streaming.reasoningText,
    streamUsage: await streaming.usage,
    pieces,
    point: point.output,
    calls: called.toolCalls.map((call) => call.toolName),
    status,
  }),
);
