-- The durable record of what became of each follow-up prompt: one row per prompt and window, written once.
--
-- Key convention: idempotency_key is the lower-case hexadecimal SHA-256 of
--   {peer_mentor_id}:{scenario_rule_id}:{date_window}
-- with both ids in canonical lower-case form and the window as the scheduler names it (2026-W47). Whoever
-- writes the same prompt again makes the same key, and the unique constraint keeps the first row.
--
-- No personal data but the mentor's id. Row level security is not defined here: until a later migration
-- defines it, nobody reaches this table through the API.
--
-- One transaction together with the ledger's row, so no begin, commit or concurrently. Safe to run again,
-- and safe beside another run: `python -m worker.migrate` and `supabase db push` may come in any order.

-- A foreign key locks its parent against writers: better fail soon than queue them all behind this.
set local lock_timeout = '5s';
-- Nobody's function or operator may be called in the place of PostgreSQL's.
set local search_path = pg_catalog, pg_temp;

-- One migration of this project at a time in a database; the number is "notiflog" in ASCII.
do $$ begin perform pg_advisory_xact_lock(7957707062625726311); end $$;

create table if not exists public.follow_up_notification_log (
  log_id uuid default gen_random_uuid()
    constraint follow_up_notification_log_pkey primary key,
  peer_mentor_id uuid not null
    constraint follow_up_notification_log_peer_mentor_id_fkey references public.users,
  chapter_id uuid not null
    constraint follow_up_notification_log_chapter_id_fkey references public.chapters,
  scenario_rule_id uuid not null
    constraint follow_up_notification_log_scenario_rule_id_fkey references public.scenario_rules on delete cascade,
  delivered_at timestamptz not null,
  delivery_channel text not null
    constraint follow_up_notification_log_delivery_channel_check check (delivery_channel in ('fcm', 'apns')),
  idempotency_key text not null
    constraint follow_up_notification_log_idempotency_key_key unique,
  status text not null
    constraint follow_up_notification_log_status_check check (status in ('delivered', 'failed', 'skipped')),
  created_at timestamptz default now()
);

create index if not exists follow_up_notification_log_peer_mentor_id_chapter_id_idx
  on public.follow_up_notification_log (peer_mentor_id, chapter_id);
create index if not exists follow_up_notification_log_scenario_rule_id_idx
  on public.follow_up_notification_log (scenario_rule_id);

-- "If not exists" also passes over a table that somebody made by hand: take it only if it is the same.
-- Columns that came later are fine as long as an insert need not know them.
do $$
declare
  difference text;
begin
  perform set_config('search_path', 'pg_catalog', true);  -- so that definitions name their schema
  select string_agg(
           case when found.definition is null then format('%s is missing, expected %s', name, wanted.definition)
                when wanted.definition is null then format('%s is not expected: %s', name, found.definition)
                else format('%s is %s, expected %s', name, found.definition, wanted.definition)
           end, '; ' order by name)
    into difference
    from (values
      ('column log_id', 'uuid not null default gen_random_uuid()'),
      ('column peer_mentor_id', 'uuid not null'),
      ('column chapter_id', 'uuid not null'),
      ('column scenario_rule_id', 'uuid not null'),
      ('column delivered_at', 'timestamp with time zone not null'),
      ('column delivery_channel', 'text not null'),
      ('column idempotency_key', 'text not null'),
      ('column status', 'text not null'),
      ('column created_at', 'timestamp with time zone default now()'),
      ('follow_up_notification_log_pkey', 'PRIMARY KEY (log_id)'),
      ('follow_up_notification_log_peer_mentor_id_fkey',
       'FOREIGN KEY (peer_mentor_id) REFERENCES public.users(%)'),
      ('follow_up_notification_log_chapter_id_fkey',
       'FOREIGN KEY (chapter_id) REFERENCES public.chapters(%)'),
      ('follow_up_notification_log_scenario_rule_id_fkey',
       'FOREIGN KEY (scenario_rule_id) REFERENCES public.scenario_rules(%) ON DELETE CASCADE'),
      ('follow_up_notification_log_delivery_channel_check',
       'CHECK ((delivery_channel = ANY (ARRAY[''fcm''::text, ''apns''::text])))'),
      ('follow_up_notification_log_idempotency_key_key', 'UNIQUE (idempotency_key)'),
      ('follow_up_notification_log_status_check',
       'CHECK ((status = ANY (ARRAY[''delivered''::text, ''failed''::text, ''skipped''::text])))'),
      ('follow_up_notification_log_peer_mentor_id_chapter_id_idx', '% USING btree (peer_mentor_id, chapter_id)'),
      ('follow_up_notification_log_scenario_rule_id_idx', '% USING btree (scenario_rule_id)')
    ) as wanted (name, definition)
    full join (
      select 'column ' || attname, concat(
               format_type(atttypid, atttypmod),
               case when attnotnull then ' not null' end,
               ' default ' || pg_get_expr(adbin, adrelid))
        from pg_attribute
        left join pg_attrdef on adrelid = attrelid and adnum = attnum
       where attrelid = 'public.follow_up_notification_log'::regclass and attnum > 0 and not attisdropped
      union all
      select conname, pg_get_constraintdef(oid)
        from pg_constraint where conrelid = 'public.follow_up_notification_log'::regclass
      union all
      select relname, pg_get_indexdef(oid)
        from pg_index join pg_class on oid = indexrelid
       where indrelid = 'public.follow_up_notification_log'::regclass and not indisunique
    ) as found (name, definition) using (name)
   where found.definition is null
      or found.definition not like wanted.definition
      or wanted.definition is null and name like 'column %'
         and found.definition like '% not null%' and found.definition not like '% default %';
  if difference is not null then
    raise exception 'public.follow_up_notification_log is already there and differs: %', difference
      using hint = 'Alter it to match, or rename it out of the way, then run this again.';
  end if;
end $$;

comment on table public.follow_up_notification_log is
  'What became of each follow-up prompt to a peer mentor: one row per prompt and window, first write wins.';
comment on column public.follow_up_notification_log.idempotency_key is
  'Lower-case hexadecimal SHA-256 of {peer_mentor_id}:{scenario_rule_id}:{date_window}, ids in canonical lower-case form.';
comment on column public.follow_up_notification_log.delivered_at is
  'When the send was attempted, as the sender reported it; created_at is when the row was written.';

-- No default public access. What a new table gives away depends on the age of the Supabase project (all to
-- everybody, or truncate to anon and nothing to service_role), and plain PostgreSQL has none of these roles.
-- So: take back whatever was given. Nobody but the owner may do more than read and write rows; service_role,
-- which passes by row level security, may read and add them; and whoever else comes through the API may do what
-- a policy is there for, once row level security is on, and nothing before. A project that switches it on for
-- every new table has no such policy: there the grants go, too.
do $$
declare
  given record;
begin
  for given in
    select distinct coalesce(quote_ident(rolname), 'public') as grantee, privilege_type as privilege
      from pg_class
     cross join (
       select relacl as acl from pg_class where oid = 'public.follow_up_notification_log'::regclass
       union all
       select attacl from pg_attribute where attrelid = 'public.follow_up_notification_log'::regclass
     ) as list
     cross join aclexplode(list.acl) as acl
      left join pg_roles on pg_roles.oid = acl.grantee
     where pg_class.oid = 'public.follow_up_notification_log'::regclass
       and acl.grantee <> relowner
       and case
             when privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') then true
             when rolname = 'service_role' then privilege_type not in ('SELECT', 'INSERT')
             when coalesce(rolname, 'public') in ('public', 'anon', 'authenticated') then
               not relrowsecurity
               or not exists (
                 select from pg_policy
                  cross join unnest(polroles) as target
                  where polrelid = pg_class.oid and polpermissive
                    and polcmd = any(array['*', case privilege_type when 'SELECT' then 'r' when 'INSERT' then 'a'
                                                                    when 'UPDATE' then 'w' else 'd' end]::"char"[])
                    -- What is granted to all may be used by whoever of the API has a policy.
                    and (target = '0' or acl.grantee = '0' and target in (
                           select oid from pg_roles where pg_roles.rolname in ('anon', 'authenticated'))
                         or acl.grantee <> '0' and pg_has_role(acl.grantee, target, 'usage')))
             else false
           end
  loop
    execute format('revoke %s on public.follow_up_notification_log from %s cascade', given.privilege, given.grantee);
  end loop;
  if exists (select from pg_roles where rolname = 'service_role') then
    grant select, insert on public.follow_up_notification_log to service_role;
  end if;
end $$;
