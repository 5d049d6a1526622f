/**
 * Report from Deno or Node what became of your push prompts: make send results of what FCM and APNs answer to
 * `fetch`, and enqueue outcomes for notiflog's workers.
 *
 * No dependency: the client of Redis is yours, ioredis or node-redis (`npm:ioredis`, `npm:redis`). The draining
 * worker reads these jobs beside those of Python producers; a stock worker needs `--serializer json`.
 */

import type { Event, SendResult } from "./event.ts";

export type { Event, SendResult };

/** The job, by name. */
const JOB = "worker.jobs.record_outcomes";
/** Events a job: FCM's largest batch, and what one bulk statement records at its best. */
const EVENTS_PER_JOB = 500;
/** Characters of JSON a job, far below what the worker refuses. */
const LARGEST_JOB = 4 << 20;
/** Seconds that Redis keeps a failed job: time to correct and requeue it, then its device tokens go. */
const FAILURE_TTL = 14 * 24 * 3600;
/** How often RQ runs a job again whose worker died. */
const RETRIES = 3;

/** A client of ioredis, as far as it is needed. */
export interface IoRedis {
  multi(commands: string[][]): { exec(): Promise<[error: Error | null, result: unknown][] | null> };
}

/** A client of node-redis, as far as it is needed. */
export interface NodeRedis {
  hSet: unknown;
  multi(): { addCommand(command: string[]): unknown; exec(): Promise<unknown> };
}

export interface Options {
  /** The queue of `rq worker notiflog`. */
  queue?: string;
  /** RQ's prefix of all keys, its RQ_KEY_PREFIX. */
  prefix?: string;
}

/**
 * Enqueue events in one transaction of Redis: all of them or, on an error, none. Returns the jobs' ids.
 *
 * Enqueueing again is harmless, whether or not the first time reached Redis: an event whose key is recorded
 * counts as success. The worker checks the events; it records the good ones and names the others in its failed
 * job. Throws what the client throws, and a RangeError for an event of more than 4 MiB.
 */
export async function enqueueOutcomes(
  redis: IoRedis | NodeRedis,
  events: Iterable<Event>,
  { queue = "notiflog", prefix = "rq" }: Options = {},
): Promise<string[]> {
  const key = `${prefix}:queue:${queue}`;
  const now = new Date().toISOString().replace("Z", "000Z"); // RQ writes microseconds
  // In lower case: ioredis takes them for the names of its methods.
  const commands: string[][] = [["sadd", `${prefix}:queues`, key]];
  const ids: string[] = [];
  for (const chunk of chunks(events)) {
    const id = crypto.randomUUID();
    const fields = {
      status: "queued",
      origin: queue,
      description: `outcomes: ${chunk.length}`, // RQ's own would quote the events, device tokens among them
      created_at: now,
      enqueued_at: now,
      timeout: 180,
      result_ttl: 0, // the record is in PostgreSQL
      failure_ttl: FAILURE_TTL,
      retries_left: RETRIES,
      data: `["${JOB}",null,[[${chunk.join(",")}]],{}]`,
    };
    commands.push(["hset", `${prefix}:job:${id}`, ...Object.entries(fields).flat().map(String)]);
    commands.push(["rpush", key, id]);
    ids.push(id);
  }
  if (ids.length) await transact(redis, commands);
  return ids;
}

/** Split events into lists of at most EVENTS_PER_JOB, as JSON of at most LARGEST_JOB characters together. */
function* chunks(events: Iterable<Event>): Generator<string[]> {
  let chunk: string[] = [];
  let size = 0;
  for (const event of events) {
    const json = JSON.stringify(event);
    if (json.length > LARGEST_JOB) throw new RangeError("an event is larger than 4 MiB of JSON: shorten its bodies");
    if (chunk.length && (chunk.length === EVENTS_PER_JOB || size + json.length > LARGEST_JOB)) {
      yield chunk;
      [chunk, size] = [[], 0];
    }
    chunk.push(json);
    size += json.length;
  }
  if (chunk.length) yield chunk;
}

async function transact(redis: IoRedis | NodeRedis, commands: string[][]): Promise<void> {
  if ("hSet" in redis) {
    const multi = redis.multi();
    for (const command of commands) multi.addCommand(command);
    await multi.exec();
    return;
  }
  const replies = await redis.multi(commands).exec();
  const failed = replies?.find(([error]) => error);
  if (failed?.[0]) throw failed[0];
}

/** What a provider answered to `fetch`, or whatever was thrown instead. */
export type Answer = Response | Error | unknown;

/** The send results of one prompt's pushes through FCM, to each token its own answer in the same order. */
export function fcmResults(tokens: readonly string[], answers: readonly Answer[]): Promise<SendResult[]> {
  return results("fcm", tokens, answers);
}

/** The same for APNs. */
export function apnsResults(tokens: readonly string[], answers: readonly Answer[]): Promise<SendResult[]> {
  return results("apns", tokens, answers);
}

/**
 * The send result of one push through FCM. What was thrown instead of an answer (a time limit, a lost
 * connection) makes a result without one: the push may have gone out.
 */
export function fcmResult(token: string, answer: Answer): Promise<SendResult> {
  return result("fcm", token, answer);
}

/** The same for APNs. */
export function apnsResult(token: string, answer: Answer): Promise<SendResult> {
  return result("apns", token, answer);
}

type Channel = "apns" | "fcm";

function results(channel: Channel, tokens: readonly string[], answers: readonly Answer[]): Promise<SendResult[]> {
  if (tokens.length !== answers.length) {
    throw new RangeError(`${tokens.length} tokens, but ${answers.length} answers`);
  }
  return Promise.all(tokens.map((token, index) => result(channel, token, settled(answers[index]))));
}

async function result(channel: Channel, token: string, answer: Answer): Promise<SendResult> {
  const none = { token, http_status: null, body: null, delivery_channel: channel };
  if (!(answer instanceof Response)) return none;
  try {
    return { ...none, http_status: answer.status, body: await answer.text() };
  } catch {
    return none; // half an answer: an empty body would mean something else, even a token's death
  }
}

/** What `Promise.allSettled` wraps an answer in. */
function settled(answer: Answer): Answer {
  const { status, value } = Object(answer) as { status?: unknown; value?: unknown };
  return status === "fulfilled" ? value : status === "rejected" ? undefined : answer;
}

/**
 * The key of a prompt, as the worker makes it of `date_window`: what to reserve, and what the log holds. Hex
 * SHA-256 of `{peer_mentor_id}:{scenario_rule_id}:{date_window}`, ids in lower case.
 */
export async function idempotencyKey(peerMentorId: string, scenarioRuleId: string, dateWindow: string): Promise<string> {
  const text = `${peerMentorId.toLowerCase()}:${scenarioRuleId.toLowerCase()}:${dateWindow}`;
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
