-- What schedulers need: to reserve a prompt before they send it, so that of two runs only one sends, to learn
-- which prompts were reserved and never reported, and to read the log fast and with few privileges.
--
-- A key is free when it is not in the log and nobody holds it. Recorded keys are told apart by the log itself,
-- so recording costs nothing more; the cron's job deletes what is recorded or has been given up.

-- Nothing of the app's schemas can stand in for a function or an operator of PostgreSQL's here.
set local search_path = pg_catalog, pg_temp;
set local lock_timeout = '5s';

do $$ begin perform pg_catalog.pg_advisory_xact_lock(7957707062625726311); end $$;

-- The indexes. A chapter's history, newest first; it also covers the foreign key.
create index if not exists follow_up_notification_log_chapter_id_delivered_at_idx
  on public.follow_up_notification_log (chapter_id, delivered_at desc);
-- A rule's last delivery to a mentor, answered out of the index alone.
create index if not exists follow_up_notification_log_peer_mentor_id_scenario_rule_id_idx
  on public.follow_up_notification_log (peer_mentor_id, scenario_rule_id, delivered_at desc)
  where status = 'delivered';

-- The reservations

do $$
begin
  if pg_catalog.to_regnamespace('notiflog') is null then  -- "if not exists" wants the privilege all the same
    create schema notiflog;
  end if;
end $$;

-- The functions below run as their owner: nobody else may own what they write to, or its triggers would, too.
do $$
declare
  thing text;
  stranger text;
begin
  select owned.name, role.rolname into thing, stranger
    from (
      select 'schema notiflog', nspowner from pg_catalog.pg_namespace where nspname = 'notiflog'
      union all
      select 'table notiflog.reservations', relowner from pg_catalog.pg_class
       where oid = pg_catalog.to_regclass('notiflog.reservations')
    ) as owned (name, owner)
    join pg_catalog.pg_roles as role on role.oid = owned.owner
   where not role.rolsuper
     and role.rolname <> current_user
     and role.oid <> (select datdba from pg_catalog.pg_database where datname = pg_catalog.current_database())
     and (not pg_catalog.pg_has_role(role.oid, 'usage')
          or (select rolsuper from pg_catalog.pg_roles where rolname = current_user))
   limit 1;
  if stranger is not null then
    raise insufficient_privilege using
      message = pg_catalog.format('%s belongs to role %I, whose triggers would run with the rights of %I',
                                  thing, stranger, current_user),
      hint = 'Migrate as that role if it made this for notiflog; else give it to the owner of the database.';
  end if;
end $$;

create table if not exists notiflog.reservations (
  idempotency_key text
    constraint reservations_pkey primary key
    constraint reservations_idempotency_key_check check (pg_catalog.length(idempotency_key) between 1 and 255),
  reserved_at timestamptz not null,
  held_until timestamptz not null,
  holds integer not null default 1
);

comment on table notiflog.reservations is
  'Prompts that a scheduler reserved before sending. Not in the log long after: it died before it reported.';
comment on column notiflog.reservations.reserved_at is
  'When the prompt was first reserved.';
comment on column notiflog.reservations.held_until is
  'Until then nobody else may reserve it.';
comment on column notiflog.reservations.holds is
  'How often it was reserved: above 1, an earlier hold ran out without an outcome, and its push may have gone out.';

alter table notiflog.reservations enable row level security;

-- Both functions run as their owner, so that a scheduler needs nothing but the right to call them. Should row
-- level security ever hide rows from the owner, they fail rather than take a recorded key for a free one.

create or replace function public.reserve_follow_up_notifications(
  keys text[], hold interval default '15 minutes'
) returns setof text
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set row_security = off
set client_min_messages = warning -- who is to hear it hears of keys that are reserved again
as $function$
declare
  granted text[];
  again text[];
begin
  -- Under a stricter level the log would be read as it was when the transaction began.
  if pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'keys can be reserved in a read committed transaction only'
      using errcode = 'feature_not_supported', hint = 'Use `begin isolation level read committed`; database or role may have another default.';
  end if;
  if hold is null or hold <= interval '0' or hold > interval '30 days' then
    raise exception 'hold must be longer than nothing, and at most 30 days'
      using errcode = 'invalid_parameter_value', hint = 'Pass an interval like ''15 minutes''.';
  end if;
  if exists (select from pg_catalog.unnest(keys) as wanted (key)
              where key is null or pg_catalog.length(key) not between 1 and 255) then
    raise exception 'keys must have 1 to 255 characters each'
      using errcode = 'invalid_parameter_value', hint = 'Pass the idempotency keys of the prompts.';
  end if;

  -- In the order of the keys, so that two callers never wait for each other.
  with reserved as (
    insert into notiflog.reservations as reservation (idempotency_key, reserved_at, held_until)
    select key, pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp() + hold
      from (
        select distinct key
          from pg_catalog.unnest(keys) as wanted (key)
         where not exists (
           select from public.follow_up_notification_log as log where log.idempotency_key = wanted.key)
         order by key
      ) as wanted
        on conflict (idempotency_key) do update
       set held_until = pg_catalog.clock_timestamp() + hold, holds = reservation.holds + 1
     where reservation.held_until <= pg_catalog.clock_timestamp()
    returning reservation.idempotency_key as key, reservation.holds
  )
  select pg_catalog.array_agg(key), pg_catalog.array_agg(key) filter (where holds > 1)
    into granted, again
    from reserved;

  -- Asked again: what was recorded while the statement above waited, and is tidied away, looked free to it.
  return query
    select key from pg_catalog.unnest(granted) as reserved (key)
     where not exists (
       select from public.follow_up_notification_log as log where log.idempotency_key = reserved.key);

  if again is not null then
    raise warning 'prompts reserved again: %; an earlier hold ran out without an outcome, so their pushes may have gone out',
      pg_catalog.cardinality(again)
      using errcode = '01N01', detail = (
        select pg_catalog.string_agg(
                 pg_catalog."left"(pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(key, 'UTF8')), 'hex'), 12),
                 ' ')
          from pg_catalog.unnest(again[:100]) as reserved (key));
  end if;
end $function$;

comment on function public.reserve_follow_up_notifications(text[], interval) is
  'Reserve prompts before sending them; returns the keys that the caller may send now, and nobody else until the hold runs out.';

create or replace function public.release_follow_up_notifications(keys text[]) returns setof text
language sql security definer
set search_path = pg_catalog, pg_temp
set row_security = off
as $function$
  with held as materialized (
    select reservation.idempotency_key
      from notiflog.reservations as reservation
     where reservation.idempotency_key = any (keys)
     order by reservation.idempotency_key
       for update
  )
  -- Two callers may think that a key reserved again is theirs: it stays held, or the later one's would be lost.
  delete from notiflog.reservations as reservation
   using held
   where reservation.idempotency_key = held.idempotency_key
     and (reservation.holds = 1 or reservation.held_until <= pg_catalog.clock_timestamp())
  returning reservation.idempotency_key
$function$;

comment on function public.release_follow_up_notifications(text[]) is
  'Give back reserved prompts that were not sent; returns the keys that are free now.';

-- The readers' role: it may read the log and the reservations, and call nothing. Like the worker's it cannot
-- log in, belongs to the whole server, and has policies that wait for row level security.

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'notiflog_reader') then
    create role notiflog_reader nologin;
  end if;
exception
  when duplicate_object or unique_violation then null;
  when insufficient_privilege then
    raise insufficient_privilege using
      message = pg_catalog.format(
        'role %I may not create roles, and role notiflog_reader does not exist', current_user),
      hint = 'Let an administrator run `create role notiflog_reader nologin`, then run this again.';
end $$;

grant usage on schema public to notiflog_reader;
grant usage on schema notiflog to notiflog_reader, notiflog_worker;
grant select on public.follow_up_notification_log, notiflog.reservations to notiflog_reader;
-- The worker runs the cron's job. "for update" wants the privilege to update.
grant select, update, delete on notiflog.reservations to notiflog_worker;

do $$
declare
  policy record;
  role name;
begin
  for policy in
    select * from (values
      ('public', 'follow_up_notification_log', 'notiflog_reader', 'select'),
      ('notiflog', 'reservations', 'notiflog_reader', 'select'),
      ('notiflog', 'reservations', 'notiflog_worker', 'select'),
      ('notiflog', 'reservations', 'notiflog_worker', 'update'),
      ('notiflog', 'reservations', 'notiflog_worker', 'delete')
    ) as wanted (schema, relation, grantee, command)
  loop
    if not exists (
      select from pg_catalog.pg_policies
       where schemaname = policy.schema and tablename = policy.relation
         and policyname = policy.grantee || '_' || policy.command)
    then
      execute pg_catalog.format(
        'create policy %I on %I.%I for %s to %I using (true)',
        policy.grantee || '_' || policy.command, policy.schema, policy.relation, policy.command, policy.grantee);
    end if;
  end loop;

  -- A new function is everybody's, and in older Supabase projects the API's roles' by name as well. The schema is
  -- nobody's of them until somebody shows it through the API.
  foreach role in array array['public', 'anon', 'authenticated', 'service_role'] loop
    continue when role <> 'public' and not exists (select from pg_catalog.pg_roles where rolname = role);
    execute pg_catalog.format('revoke all on schema notiflog from %s cascade', role);
    -- The ledger is there where `python -m worker.migrate` has run; whoever writes it decides what that applies.
    if pg_catalog.to_regclass('notiflog.schema_migrations') is not null then
      execute pg_catalog.format('revoke all on notiflog.schema_migrations from %s cascade', role);
    end if;
    execute pg_catalog.format('revoke all on notiflog.reservations from %s cascade', role);
    execute pg_catalog.format(
      'revoke all on function public.reserve_follow_up_notifications(text[], interval), '
      'public.release_follow_up_notifications(text[]) from %s cascade', role);
    if role = 'service_role' then
      grant execute on function public.reserve_follow_up_notifications(text[], interval),
        public.release_follow_up_notifications(text[]) to service_role;
    end if;
  end loop;
end $$;
