"""Who holds locks, in words."""

import psycopg

from . import postgres

# Whoever locks a row holds a lock on its table, too. No query text: it may quote rows. Of other roles'
# sessions a role may see no more than the number, unless it is a member of pg_read_all_stats.
_HOLDERS = """
select pid, coalesce(nullif(application_name, ''), 'unnamed'), coalesce(state, 'unknown state'),
       coalesce(extract(epoch from clock_timestamp() - xact_start)::int::text, '?')
  from (select distinct pid from pg_locks join pg_class on pg_class.oid = relation
         where relname = %b and granted and mode <> 'AccessShareLock' and pid <> pg_backend_pid()
           and database = (select oid from pg_database where datname = current_database())) as holder
  join pg_stat_activity using (pid)
 order by xact_start, pid
 limit 3
"""


def lock_holders(connection: psycopg.Connection, table: str) -> list[str]:
    """The longest transactions that lock a table or rows of it, each as a phrase. Raises psycopg.Error."""
    with postgres.transaction(connection, sealed=True):
        return [
            f"process {pid} ({name}, {state}, {seconds} s into its transaction)"
            for pid, name, state, seconds in connection.execute(_HOLDERS, [table])
        ]
