-- Who of the API may do what with the log, the reservations, the ledger, their schema and the functions, by any way:
-- granted, as everybody, or as a member of another role. What everybody may is said once.
--
-- Meant is: service_role reads and adds rows of the log, and calls the functions; anon and authenticated do with the
-- log what a policy is there for while row level security is on. Besides, on the log, nobody but its owner has what
-- row level security does not govern. Whoever comes through Supabase's API acts as one of the three roles.

with api as (
  select name::text as role, oid from (values ('public', null::oid)) as everybody (name, oid)
  union all
  select rolname::text, oid from pg_roles where rolname in ('anon', 'authenticated', 'service_role')
),
thing as (
  select class.oid, relname::text as relation, nspname || '.' || relname as name, relrowsecurity, relacl, relowner
    from pg_class as class join pg_namespace as schema on schema.oid = relnamespace
   where (nspname, relname) in (('public', 'follow_up_notification_log'), ('notiflog', 'reservations'),
                                ('notiflog', 'schema_migrations'))
),
privilege (name, command) as (
  values ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w'), ('DELETE', 'd'), ('TRUNCATE', null),
         ('REFERENCES', null), ('TRIGGER', null)
  union all
  select 'MAINTAIN', null where current_setting('server_version_num')::int >= 170000
),
able as (
  select 'on ' || thing.name as thing, 1 as place, relation, relrowsecurity, thing.oid, api.role, api.oid as role_id,
         privilege.name as privilege, privilege.command
    from thing cross join api cross join privilege
   cross join lateral (values (api.role), ('public')) as whose (role)
   cross join lateral (
     select case when privilege.name in ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                 then has_any_column_privilege(whose.role, thing.oid, privilege.name)
                 else has_table_privilege(whose.role, thing.oid, privilege.name) end as may
   ) as answer
   group by thing.name, relation, relrowsecurity, thing.oid, api.role, api.oid, privilege.name, privilege.command
  having bool_or(may) filter (where whose.role = api.role)
     and (api.role = 'public' or not bool_or(may) filter (where whose.role = 'public'))
  union all
  select 'schema notiflog', 2, null, null, null, api.role, api.oid, word, null
    from api cross join (values ('usage', 'use'), ('create', 'create in')) as right_to (privilege, word)
    join pg_namespace as schema on nspname = 'notiflog'
   where has_schema_privilege(api.role, schema.oid, privilege)
     and (api.role = 'public' or not has_schema_privilege('public', schema.oid, privilege))
  union all
  select 'function public.' || proname, 3, null, null, null, api.role, api.oid, 'call', null
    from pg_proc cross join api
   where pronamespace = (select oid from pg_namespace where nspname = 'public')
     and proname in ('reserve_follow_up_notifications', 'release_follow_up_notifications')
     and prosecdef and api.role <> 'service_role'
     and has_function_privilege(api.role, pg_proc.oid, 'execute')
     and (api.role = 'public' or not has_function_privilege('public', pg_proc.oid, 'execute'))
),
wrong as (
  select thing, place, role, privilege
    from able
   where relation is distinct from 'follow_up_notification_log'
      or case
           when command is null then true
           when role = 'service_role' then privilege not in ('SELECT', 'INSERT')
           else not relrowsecurity
                or not exists (
                  select from pg_policy cross join unnest(polroles) as target
                   where polrelid = able.oid and polpermissive and polcmd in ('*', able.command::"char")
                     and (target = '0' or role = 'public' and target in (select oid from api where oid is not null)
                          or role <> 'public' and pg_has_role(role_id, target, 'usage')))
         end
  union all
  select 'on ' || thing.name, 1, rolname, privilege_type
    from thing cross join aclexplode(relacl) as acl join pg_roles on pg_roles.oid = acl.grantee
   where relation = 'follow_up_notification_log' and acl.grantee <> relowner
     and rolname not in ('anon', 'authenticated', 'service_role')
     and privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
)
select role, thing, string_agg(lower(privilege), ', ' order by privilege) as privileges
  from wrong
 group by thing, place, role
 order by place, thing, role
