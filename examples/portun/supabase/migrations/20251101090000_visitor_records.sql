BEGIN;

CREATE TABLE visitor_records (
  record_uid text PRIMARY KEY,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

COMMIT;
