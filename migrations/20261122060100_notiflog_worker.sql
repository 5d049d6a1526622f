-- The worker's own role: it may add rows to the log, see which keys are there, and delete device tokens.
-- It reads nothing of users, chapters or scenario_rules: foreign keys are checked by their tables' owners.
--
-- It cannot log in. Whoever runs the worker does so as a member:
--   create role notiflog_login login password '...' in role notiflog_worker;
--
-- The policies have no effect until row level security is switched on for their table; that day the worker
-- goes on working. It needs two for each table: `on conflict` and `returning` read what they insert, and a
-- delete finds no row that a select may not see - without an error.

set local lock_timeout = '5s';
-- Nobody's function or operator may be called in the place of PostgreSQL's.
set local search_path = pg_catalog, pg_temp;

do $$ begin perform pg_advisory_xact_lock(7957707062625726311); end $$;

-- Roles belong to the whole server: another database of it may have made this one, maybe at this moment.
do $$
begin
  if not exists (select from pg_roles where rolname = 'notiflog_worker') then
    create role notiflog_worker nologin;
  end if;
exception
  when duplicate_object or unique_violation then null;
  when insufficient_privilege then
    raise insufficient_privilege using
      message = format('role %I may not create roles, and role notiflog_worker does not exist', current_user),
      hint = 'Let an administrator run `create role notiflog_worker nologin`, then run this again.';
end $$;

grant usage on schema public to notiflog_worker;
grant insert, select (idempotency_key, status) on public.follow_up_notification_log to notiflog_worker;

do $$
declare
  policy record;
begin
  for policy in
    select * from (values
      ('follow_up_notification_log', 'insert', 'with check (true)'),
      ('follow_up_notification_log', 'select', 'using (true)'),
      ('device_tokens', 'select', 'using (true)'),
      ('device_tokens', 'delete', 'using (true)')
    ) as wanted (relation, command, condition)
  loop
    -- The token table is the app's: it may come later, have another name (NOTIFLOG_TOKEN_TABLE) or another
    -- owner. Here it is done for the usual case; else its owner does the same, and the worker says so.
    if policy.relation = 'device_tokens' then
      continue when not exists (
        select from pg_class
         where oid = to_regclass('public.device_tokens') and relkind in ('r', 'p')
           and pg_has_role(relowner, 'usage'));
      grant select, delete on public.device_tokens to notiflog_worker;
    end if;
    if not exists (
      select from pg_policies
       where schemaname = 'public' and tablename = policy.relation
         and policyname = 'notiflog_worker_' || policy.command)
    then
      execute format('create policy notiflog_worker_%1$s on public.%2$I for %1$s to notiflog_worker %3$s',
                     policy.command, policy.relation, policy.condition);
    end if;
  end loop;
end $$;
