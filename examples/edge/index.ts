/**
 * A scheduler as a Supabase Edge Function, started by cron: reserve what is due, send it, enqueue what became of
 * it. Started twice at once it sends nothing twice; dead at any line, what it leaves behind is `outstanding`.
 *
 * Of your own are the RPC `due_follow_up_prompts` and the access token of the Firebase service account.
 */

import { Redis } from "npm:ioredis@6";
import { enqueueOutcomes, type Event, fcmResults, idempotencyKey } from "./notiflog.ts";

/** A prompt that is due, with the device tokens of its mentor. */
interface Prompt {
  peer_mentor_id: string;
  chapter_id: string;
  scenario_rule_id: string;
  date_window: string;
  tokens: string[];
}

const env = (name: string): string => {
  const value = Deno.env.get(name);
  if (!value) throw new Error(`${name} is not set`);
  return value;
};

const redis = new Redis(env("REDIS_URL"));

/** Call a function of the database as service_role, through PostgREST. */
async function rpc<Answer>(name: string, body: object): Promise<Answer> {
  const key = env("SUPABASE_SERVICE_ROLE_KEY");
  const response = await fetch(`${env("SUPABASE_URL")}/rest/v1/rpc/${name}`, {
    method: "POST",
    headers: { apikey: key, authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${name}: HTTP ${response.status}`);
  return await response.json();
}

/** Push to one device. */
function push(token: string): Promise<Response> {
  return fetch(`${env("FCM_URL")}/messages:send`, { // https://fcm.googleapis.com/v1/projects/<project>
    method: "POST",
    headers: { authorization: `Bearer ${env("FCM_ACCESS_TOKEN")}`, "content-type": "application/json" },
    body: JSON.stringify({ message: { token, data: { prompt: "follow-up" } } }),
    signal: AbortSignal.timeout(10_000),
  });
}

async function send(prompt: Prompt): Promise<Event> {
  const { tokens, ...ids } = prompt;
  const attempted_at = new Date().toISOString(); // before the send: tokens registered later are alive
  const answers = await Promise.allSettled(tokens.map(push));
  return { ...ids, delivery_channel: "fcm", attempted_at, results: await fcmResults(tokens, answers) };
}

async function run(): Promise<{ due: number; sent: number }> {
  const due = await rpc<Prompt[]>("due_follow_up_prompts", {});
  const keys = await Promise.all(
    due.map((prompt) => idempotencyKey(prompt.peer_mentor_id, prompt.scenario_rule_id, prompt.date_window)),
  );
  const reserved = new Set(await rpc<string[]>("reserve_follow_up_notifications", { keys, hold: "15 minutes" }));
  const mine = due.filter((_, index) => reserved.has(keys[index]));
  // Some at a time: what is enqueued at once is lost at once.
  for (let start = 0; start < mine.length; start += 100) {
    await enqueueOutcomes(redis, await Promise.all(mine.slice(start, start + 100).map(send)));
  }
  return { due: due.length, sent: mine.length };
}

Deno.serve(async () => Response.json(await run()));
