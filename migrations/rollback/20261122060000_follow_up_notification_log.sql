-- Drop the log with every row in it. What later migrations put on the table falls with it, so they are
-- forgotten too: applying again starts from here.

-- Dropping a table with foreign keys locks its parents against readers as well.
set local lock_timeout = '5s';
-- Nobody's function or operator may be called in the place of PostgreSQL's.
set local search_path = pg_catalog, pg_temp;

do $$ begin perform pg_advisory_xact_lock(7957707062625726311); end $$;

drop table if exists public.follow_up_notification_log;

-- Forgotten by both tools, so that either can apply it again.
do $$
declare
  ledger text;
begin
  foreach ledger in array array['notiflog.schema_migrations', 'supabase_migrations.schema_migrations'] loop
    if to_regclass(ledger) is not null then
      execute format('delete from %s where version in (%L, %L, %L)',
                     ledger, '20261122060000', '20261122060100', '20261126060000');
    end if;
  end loop;
end $$;
