// The openai package. Prints what came back as JSON.
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is 2 + 2?" }];
const search = { model: "fake", messages, tts: { strategy: "best_of_n", n: 4 } };

async function failure(fields) {
  try {
    await client.chat.completions.create({ model: "fake", messages, ...fields });
  } catch (error) {
    const { status, code, param, requestID } = error;
    return { kind: error.constructor.name, status, code, param, id: Boolean(requestID) };
  }
  throw new Error("nothing was refused");
}

const plain = await client.chat.completions.create(search);
const chunks = [];
for await (const chunk of await client.chat.completions.create({
  ...search,
  stream: true,
  stream_options: { include_usage: true },
})) {
  chunks.push(chunk);
}
const runner = client.chat.completions.stream({ model: "fake", messages });
const final = await runner.finalChatCompletion();
const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log(
  JSON.stringify({
    plain,
    chunks,
    helper: final.choices[0].message.content,
    models,
    unknown: await failure({ model: "nobody" }),
    wrong: await failure({ temperature: 3 }),
  }),
);
