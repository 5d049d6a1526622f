-- The app's side, in the smallest form that works: what notiflog's tables refer to, and the device tokens.
-- compose.yaml gives it to a new database; an app has tables of its own.

create table if not exists public.users (id uuid primary key);
create table if not exists public.chapters (id uuid primary key);
create table if not exists public.scenario_rules (id uuid primary key);
create table if not exists public.device_tokens (
  token text primary key,
  user_id uuid not null references public.users,
  updated_at timestamptz not null default now()
);
