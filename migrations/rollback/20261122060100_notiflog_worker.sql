-- Take back what the worker's role was given. The role itself stays: it belongs to the whole server, and
-- the logins that are its members would lose it for good. Where nobody needs it: drop role notiflog_worker.

set local lock_timeout = '5s';
-- Nobody's function or operator may be called in the place of PostgreSQL's.
set local search_path = pg_catalog, pg_temp;

do $$ begin perform pg_advisory_xact_lock(7957707062625726311); end $$;

do $$
declare
  policy record;
  ledger text;
begin
  for policy in
    select policyname, tablename from pg_policies
     where schemaname = 'public'
       and (tablename, policyname) in (
         ('follow_up_notification_log', 'notiflog_worker_insert'),
         ('follow_up_notification_log', 'notiflog_worker_select'),
         ('device_tokens', 'notiflog_worker_select'),
         ('device_tokens', 'notiflog_worker_delete'))
  loop
    execute format('drop policy %I on public.%I', policy.policyname, policy.tablename);
  end loop;

  if exists (select from pg_roles where rolname = 'notiflog_worker') then
    if to_regclass('public.follow_up_notification_log') is not null then
      revoke all on public.follow_up_notification_log from notiflog_worker;
    end if;
    if to_regclass('public.device_tokens') is not null then
      revoke select, delete on public.device_tokens from notiflog_worker;
    end if;
    revoke usage on schema public from notiflog_worker;
  end if;

  -- Forgotten by both tools, so that either can apply it again.
  foreach ledger in array array['notiflog.schema_migrations', 'supabase_migrations.schema_migrations'] loop
    if to_regclass(ledger) is not null then
      execute format('delete from %s where version = %L', ledger, '20261122060100');
    end if;
  end loop;
end $$;
