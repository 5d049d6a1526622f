-- Take back the reservations with their functions, the indexes, and what the readers' role was given. The role
-- itself stays, like the worker's. Where nobody needs it: drop role notiflog_reader.

set local search_path = pg_catalog, pg_temp;
set local lock_timeout = '5s';

do $$ begin perform pg_catalog.pg_advisory_xact_lock(7957707062625726311); end $$;

drop function if exists public.reserve_follow_up_notifications(text[], interval);
drop function if exists public.release_follow_up_notifications(text[]);
drop table if exists notiflog.reservations;
drop index if exists public.follow_up_notification_log_chapter_id_delivered_at_idx;
drop index if exists public.follow_up_notification_log_peer_mentor_id_scenario_rule_id_idx;

do $$
declare
  role name;
  ledger text;
begin
  if pg_catalog.to_regclass('public.follow_up_notification_log') is not null then
    drop policy if exists notiflog_reader_select on public.follow_up_notification_log;
  end if;

  foreach role in array array['notiflog_reader', 'notiflog_worker'] loop
    if exists (select from pg_catalog.pg_roles where rolname = role)
       and pg_catalog.to_regnamespace('notiflog') is not null then
      execute pg_catalog.format('revoke usage on schema notiflog from %I', role);
    end if;
  end loop;
  if exists (select from pg_catalog.pg_roles where rolname = 'notiflog_reader') then
    if pg_catalog.to_regclass('public.follow_up_notification_log') is not null then
      revoke select on public.follow_up_notification_log from notiflog_reader;
    end if;
    revoke usage on schema public from notiflog_reader;
  end if;

  -- Forgotten by both tools, so that either can apply it again.
  foreach ledger in array array['notiflog.schema_migrations', 'supabase_migrations.schema_migrations'] loop
    if pg_catalog.to_regclass(ledger) is not null then
      execute pg_catalog.format('delete from %s where version = %L', ledger, '20261126060000');
    end if;
  end loop;

  -- Made by this migration where only the Supabase CLI migrates.
  if exists (select from pg_catalog.pg_namespace where nspname = 'notiflog')
     and not exists (select from pg_catalog.pg_class where relnamespace = pg_catalog.to_regnamespace('notiflog')) then
    drop schema notiflog;
  end if;
end $$;
