CREATE TABLE blacklist (
  id uuid PRIMARY KEY DEFAULT uuid_generate_v4(),
  record_uid text REFERENCES visitor_records (record_uid) ON DELETE CASCADE,
  reason text NOT NULL,
  blacklisted_at timestamptz DEFAULT now()
);

CREATE INDEX idx_blacklist_record_uid ON blacklist (record_uid);
