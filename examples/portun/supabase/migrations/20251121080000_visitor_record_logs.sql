-- A partition for each month is made by the droplet (`partitions` in the inventory), so that old months can go in one piece.
CREATE TABLE visitor_record_logs (
  id bigint GENERATED ALWAYS AS IDENTITY,
  record_uid text NOT NULL,
  action text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
