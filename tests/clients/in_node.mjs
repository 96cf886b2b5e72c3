// Node's clients at work: `in_node.mjs CHAT EMBEDDINGS` tries each and prints one JSON line a trial.
// It runs where install.sh put them and knows nothing of edgesdk. The arguments are the addresses of two servers, with /v1.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { AIMessage, HumanMessage, SystemMessage } from '@langchain/core/messages';
import { ChatOpenAI, OpenAIEmbeddings } from '@langchain/openai';
import { embedMany, generateText, jsonSchema, streamText, tool } from 'ai';
import OpenAI from 'openai';

const [chat, embeddings] = process.argv.slice(2);
const model = 'gpt-4o-mini';
const turns = 20;
const asked = [{ role: 'system', content: 'Be brief.' }, { role: 'user', content: 'Say hi.' }];
const schema = { type: 'object', properties: { name: { type: 'string' } }, required: ['name'], additionalProperties: false };
const plainTool = { type: 'function', function: { name: 'f', parameters: schema } };
const here = dirname(fileURLToPath(import.meta.url));
const { dependencies } = JSON.parse(readFileSync(join(here, 'package.json'), 'utf8'));

async function tried(client, name, work) {
  let said, fine = true;
  try {
    said = await work();
  } catch (failure) {
    [said, fine] = [`${failure?.name}: ${failure?.message}`, false];
  }
  const text = typeof said === 'string' ? said : JSON.stringify(said) ?? '';
  console.log(JSON.stringify({ client: `${client} ${dependencies[client]} (Node)`, case: name, fine, said: text.slice(0, 300) }));
}

async function openai() {
  const client = new OpenAI({ baseURL: chat, apiKey: 'none', maxRetries: 0 });
  const create = (options) => client.chat.completions.create({ model, messages: asked, max_tokens: 4, ...options });
  await tried('openai', 'chat', async () => (await create({})).choices[0].message);
  await tried('openai', 'stream', async () => {
    const pieces = [];
    for await (const chunk of await create({ stream: true, stream_options: { include_usage: true } })) pieces.push(chunk);
    const helped = client.chat.completions.stream({ model, messages: asked, max_tokens: 4 });
    return [pieces.at(-1).usage.total_tokens, (await helped.finalChatCompletion()).choices.length];
  });
  await tried('openai', '20 turns', async () => {
    const messages = [...asked];
    for (let turn = 0; turn < turns; turn++) {
      messages.push((await create({ messages, tools: null })).choices[0].message, { role: 'user', content: `${turn}?` });
    }
    return messages.length;
  });
  await tried('openai', 'max_tokens 32000', async () => (await create({ max_tokens: 32000, stop: ['e'] })).id);
  await tried('openai', 'n, logprobs', async () => (await create({ n: 2, logprobs: true })).choices[1].logprobs.content[0]);
  await tried('openai', 'completions', async () =>
    (await client.completions.create({ model, prompt: 'Once', max_tokens: 4 })).choices[0].text);
  await tried('openai', 'responses', async () => {
    const first = await client.responses.create({ model, input: 'Say hi.', max_output_tokens: 4 });
    const input = [{ role: 'user', content: 'Say hi.' }, ...first.output, { role: 'user', content: 'More.' }];
    return (await client.responses.create({ model, input, max_output_tokens: 4 })).output_text;
  });
  await tried('openai', 'embeddings', async () => {
    const other = new OpenAI({ baseURL: embeddings, apiKey: 'none' });
    return (await other.embeddings.create({ model, input: ['w5', 'w9'] })).data[1].embedding.length;
  });
  await tried('openai', 'structured', async () =>
    create({ response_format: { type: 'json_schema', json_schema: { name: 'n', schema, strict: true } } }));
  await tried('openai', 'tools offered', async () => create({ tools: [plainTool] }));
}

async function langchain() {
  const name = '@langchain/openai';
  const of = (options) =>
    new ChatOpenAI({ model, apiKey: 'none', maxRetries: 0, maxTokens: 4, configuration: { baseURL: chat }, ...options });
  await tried(name, 'chat', async () => (await of({ topP: 0.9, frequencyPenalty: 0.5 }).invoke('hi')).content);
  await tried(name, 'stream', async () => {
    const pieces = [];
    for await (const chunk of await of({}).stream('hi')) pieces.push(chunk.content);
    return pieces;
  });
  await tried(name, '20 turns', async () => {
    const messages = [new SystemMessage('Be brief.'), new HumanMessage({ content: 'hi', name: 'bob' }), new AIMessage('yo')];
    for (let turn = 0; turn < turns; turn++) {
      messages.push(new HumanMessage(`${turn}?`));
      messages.push(await of({}).invoke(messages));
    }
    return messages.length;
  });
  await tried(name, 'max_tokens 32000', async () => (await of({ maxTokens: 32000, stop: ['e'] }).invoke('hi')).content);
  await tried(name, 'n, logprobs', async () =>
    (await of({ logprobs: true, topLogprobs: 2 }).invoke('hi')).response_metadata.logprobs.content[0]);
  await tried(name, 'responses', async () => (await of({ useResponsesApi: true }).invoke('hi')).content);
  await tried(name, 'embeddings', async () => {
    const vectors = new OpenAIEmbeddings({ model, apiKey: 'none', configuration: { baseURL: embeddings } });
    return (await vectors.embedDocuments(['w5', 'w9']))[1].length;
  });
  await tried(name, 'structured', async () => of({}).withStructuredOutput(schema).invoke('hi'));
  await tried(name, 'tools offered', async () => of({}).bindTools([plainTool]).invoke('hi'));
}

async function vercel(name, language, vectors) {
  const plain = { model: language, maxRetries: 0, maxOutputTokens: 4 };
  await tried(name, 'chat', async () => (await generateText({ ...plain, system: 'Be brief.', prompt: 'hi' })).finishReason);
  await tried(name, 'stream', async () => {
    const found = streamText({ ...plain, prompt: 'hi', onError: ({ error }) => { throw error; } });
    let text = '';
    for await (const piece of found.textStream) text += piece;
    return [text, await found.usage];
  });
  await tried(name, '20 turns', async () => {
    const messages = [{ role: 'user', content: 'hi' }];
    for (let turn = 0; turn < turns; turn++) {
      const found = await generateText({ ...plain, messages });
      messages.push(...(found.responseMessages ?? found.response.messages), { role: 'user', content: `${turn}?` });
    }
    return messages.length;
  });
  await tried(name, 'max_tokens 32000', async () =>
    (await generateText({ ...plain, prompt: 'hi', maxOutputTokens: 32000, stopSequences: ['e'] })).finishReason);
  if (vectors) {
    await tried(name, 'embeddings', async () =>
      (await embedMany({ model: vectors, values: ['w5', 'w9'] })).embeddings[1].length);
  }
  await tried(name, 'tools offered', async () => {
    const tools = { f: tool({ description: 'f', inputSchema: jsonSchema(schema), execute: async () => 'x' }) };
    return (await generateText({ ...plain, prompt: 'hi', tools })).finishReason;
  });
}

await openai();
await langchain();
const compatible = createOpenAICompatible({ name: 'edgesdk', baseURL: chat, apiKey: 'none', includeUsage: true });
const embedding = createOpenAICompatible({ name: 'edgesdk', baseURL: embeddings, apiKey: 'none' });
await vercel('@ai-sdk/openai-compatible', compatible(model), embedding.textEmbeddingModel?.(model) ?? embedding.embeddingModel(model));
await vercel('@ai-sdk/openai', createOpenAI({ baseURL: chat, apiKey: 'none' })(model));
