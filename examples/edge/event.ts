// Made of worker/event.schema.json by `python -m tests.typescript.types`: do not edit.

/** What became of one prompt to one peer mentor. */
export type Event = {
  peer_mentor_id: string;
  chapter_id: string;
  scenario_rule_id: string;
  delivery_channel: "apns" | "fcm";
  attempted_at: string;
  idempotency_key?: string | null;
  date_window?: string | null;
  results?: SendResult[] | null;
  skipped?: string | null;
  final?: boolean;
  version?: 1;
} & (
  | { idempotency_key: string; date_window?: null; }
  | { idempotency_key?: null; date_window: string; }
);

/** One provider's answer about one device token. */
export type SendResult = {
  token: string;
  http_status: number | null;
  body?: unknown;
  sent_at?: string | null;
  delivery_channel?: "apns" | "fcm" | null;
  target?: "fid" | "live_activity" | "token" | null;
};
