// What the tests have the module do, in Node and in Deno: `driver.ts <what> [...]`; reads input.json, says JSON.

import { readFileSync, writeSync } from "node:fs";
import process from "node:process";
import { Redis } from "ioredis";
import { createClient } from "redis";
import { apnsResult, apnsResults, enqueueOutcomes, fcmResult, fcmResults, idempotencyKey } from "./notiflog.ts";

const [what, ...words] = process.argv.slice(2);
const input = JSON.parse(readFileSync("input.json", "utf8"));

/** An answer as `fetch` gives it, made of [status, body]; a text: the error that was thrown instead. */
function answer(made: [number, string | null] | string): Response | Error {
  if (typeof made === "string") return new DOMException("no time left", made);
  const [status, body] = made;
  if (body !== "broken") return new Response(body, { status });
  const half = new ReadableStream({ pull: (controller) => controller.error(new TypeError("terminated")) });
  return new Response(half, { status });
}

async function enqueue([client, socket, ...more]: string[]): Promise<string[]> {
  const options = more.length ? JSON.parse(more[0]) : {};
  if (client === "ioredis") {
    const redis = new Redis(socket);
    return await enqueueOutcomes(redis, input, options).finally(() => redis.disconnect());
  }
  const redis = createClient({ socket: { path: socket, tls: false } });
  await redis.connect();
  return await enqueueOutcomes(redis, input, options).finally(() => redis.destroy());
}

const deeds: Record<string, () => Promise<unknown>> = {
  enqueue: () => enqueue(words),
  results: async () => {
    const [one, all] = words[0] === "fcm" ? [fcmResult, fcmResults] : [apnsResult, apnsResults];
    const tokens = input.map((_: unknown, index: number) => `token-${index}`);
    const settled = await Promise.allSettled(
      input.map(async (made: [number, string] | string) => {
        const it = answer(made);
        if (it instanceof Error) throw it;
        return it;
      }),
    );
    const single = await Promise.all(tokens.map((token: string, index: number) => one(token, answer(input[index]))));
    return [await all(tokens, settled), single, await all(tokens, input.map(answer))];
  },
  mismatch: () => fcmResults(["one", "two"], []),
  keys: () => Promise.all(input.map((words: [string, string, string]) => idempotencyKey(...words))),
};

try {
  writeSync(1, JSON.stringify(await deeds[what]()));
} catch (error) {
  writeSync(2, String(error));
  process.exitCode = 1;
}
