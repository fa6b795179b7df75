"""What a running server says of its settings, its logins and its roles, in one question. Changes nothing."""

from __future__ import annotations

from typing import Any, Dict

from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    Cluster,
    ServerError,
    another_version,
)

STATE = """
SELECT json_build_object(
  'data', current_setting('data_directory'),
  'checksums', current_setting('data_checksums') = 'on',
  'settings', (SELECT json_object_agg(name, json_build_object('value', current_setting(name, true), 'source', source,
      'from', sourcefile, 'pending', pending_restart)) FROM pg_settings),
  'file', (SELECT coalesce(json_object_agg(name, json_build_object('setting', setting)), '{}')
    FROM pg_file_settings WHERE name IS NOT NULL AND sourcefile LIKE '%/conf.d/shipshape.conf'),
  'hba', (SELECT json_agg(json_build_object('line', line_number, 'type', type, 'users', user_name,
      'address', coalesce(address, ''), 'method', auth_method, 'error', error) ORDER BY line_number)
    FROM pg_hba_file_rules),
  'roles', (SELECT json_object_agg(rolname, json_build_object('superuser', rolsuper, 'bypassrls', rolbypassrls,
      'scram', rolpassword IS NULL OR rolpassword LIKE 'SCRAM-SHA-256$%')) FROM pg_authid),
  'replica', pg_is_in_recovery(),
  'receives', EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'),
  'senders', (SELECT coalesce(json_object_agg(application_name,
      CASE WHEN pg_is_in_recovery() THEN 0 ELSE pg_current_wal_lsn() - replay_lsn END), '{}')
    FROM pg_stat_replication WHERE state = 'streaming'))
"""


def state(version: str) -> Dict[str, Any]:
    """The answer, or why there is none."""
    refusal = another_version(version)
    if refusal:
        return dict(error=refusal)
    cluster = Cluster(version)
    if not cluster.installed:
        return dict(error=f"PostgreSQL {version} is not installed")
    try:
        found: Dict[str, Any] = cluster.query("RESET ALL;" + STATE)  # a session of ours has settings of its own
    except ServerError as error:
        return dict(error=str(error))
    found.update(error="", path=f"{cluster.configuration}/conf.d/shipshape.conf")
    return found
