-- What our own roles need and the tables must have; each row is one thing that is not there. What the app gives them
-- on its own tables is its business: `privileges.py` says it.

with wanted_role (name) as (values ('notiflog_worker'), ('notiflog_reader')),
wanted_table (schema, name) as (
  values ('public', 'follow_up_notification_log'), ('notiflog', 'reservations')
),
found as (
  select wanted_table.*, class.oid, relrowsecurity
    from wanted_table
    left join pg_namespace on nspname = schema
    left join pg_class as class on relnamespace = pg_namespace.oid and relname = wanted_table.name
),
wanted_grant (grantee, schema, relation, privilege, attribute) as (
  values ('notiflog_worker', 'public', 'follow_up_notification_log', 'insert', null),
         ('notiflog_worker', 'public', 'follow_up_notification_log', 'select', 'idempotency_key'),
         ('notiflog_worker', 'public', 'follow_up_notification_log', 'select', 'status'),
         ('notiflog_reader', 'public', 'follow_up_notification_log', 'select', null),
         ('notiflog_worker', 'notiflog', 'reservations', 'select', null),
         ('notiflog_worker', 'notiflog', 'reservations', 'update', null),
         ('notiflog_worker', 'notiflog', 'reservations', 'delete', null),
         ('notiflog_reader', 'notiflog', 'reservations', 'select', null)
),
grantable as (
  select wanted_grant.*, pg_roles.oid as role_id, found.oid as table_id, pg_namespace.oid as schema_id, attnum
    from wanted_grant
    join pg_roles on rolname = grantee
    join pg_namespace on nspname = schema
    join found on (found.schema, found.name) = (wanted_grant.schema, relation) and found.oid is not null
    left join pg_attribute on attrelid = found.oid and attname = attribute
   where attribute is null or attnum is not null
),
wanted_policy (schema, relation, name) as (
  values ('public', 'follow_up_notification_log', 'notiflog_worker_insert'),
         ('public', 'follow_up_notification_log', 'notiflog_worker_select'),
         ('public', 'follow_up_notification_log', 'notiflog_reader_select'),
         ('notiflog', 'reservations', 'notiflog_reader_select'),
         ('notiflog', 'reservations', 'notiflog_worker_select'),
         ('notiflog', 'reservations', 'notiflog_worker_update'),
         ('notiflog', 'reservations', 'notiflog_worker_delete')
)
select thing from (
  select 1, 'table ' || schema || '.' || name from found where oid is null
  union all
  select 2, 'function public.' || name
    from unnest(array['reserve_follow_up_notifications', 'release_follow_up_notifications']) as name
   where not exists (
     select from pg_proc
      where proname = name and pronamespace = (select oid from pg_namespace where nspname = 'public'))
  union all
  select 3, 'row level security of notiflog.reservations'
    from found where schema = 'notiflog' and not relrowsecurity
  union all
  select 4, 'role ' || name from wanted_role where name not in (select rolname from pg_roles)
  union all
  select distinct 5, 'usage on schema ' || schema || ' for ' || grantee
    from grantable where not has_schema_privilege(role_id, schema_id, 'usage')
  union all
  select 6, concat(privilege, ' (' || attribute || ')', ' on ', schema, '.', relation, ' for ', grantee)
    from grantable
   where not case when attribute is null then has_table_privilege(role_id, table_id, privilege)
                  else has_column_privilege(role_id, table_id, attnum, privilege) end
  union all
  select 7, 'policy ' || wanted_policy.name || ' on ' || wanted_policy.schema || '.' || relation
    from wanted_policy join found on (found.schema, found.name) = (wanted_policy.schema, relation)
   where found.oid is not null
     and not exists (select from pg_policy where polrelid = found.oid and polname = wanted_policy.name)
) as missing (place, thing)
 order by place, thing
