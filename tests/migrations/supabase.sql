-- A PostgreSQL server made with superuser supabase_admin, dressed as a Supabase project: the roles that matter
-- to a migration, and what they are given by default on every new table and function (here as in projects made
-- before the Data API had a switch; see DATA_API_SWITCH in conftest.py for the others). Roles belong to the server,
-- default privileges to the database: safe to run in several databases of one server.

do $$
begin
  if not exists (select from pg_roles where rolname = 'anon') then
    -- Migrations run as postgres, which is no superuser.
    create role postgres login createdb createrole replication bypassrls;
    -- The API logs in as authenticator and turns into one of the three others.
    create role authenticator login noinherit;
    create role anon nologin;
    create role authenticated nologin;
    create role service_role nologin bypassrls;
    grant anon, authenticated, service_role to authenticator;
    grant anon, authenticated, service_role to postgres with admin option;
    grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres;
    alter role postgres set search_path to "$user", public, extensions;
    alter role anon set statement_timeout = '3s';
    alter role authenticated set statement_timeout = '8s';
    alter role authenticator set statement_timeout = '8s';
  end if;
end $$;

create schema extensions;
grant usage on schema extensions to postgres, anon, authenticated, service_role;
grant usage on schema public to anon, authenticated, service_role;

alter default privileges for role postgres in schema public
  grant all on tables to anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on functions to anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on functions to postgres, anon, authenticated, service_role;
