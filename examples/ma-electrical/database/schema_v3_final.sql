CREATE TABLE users (
  id serial PRIMARY KEY,
  username text NOT NULL UNIQUE,
  full_name text NOT NULL,
  password text NOT NULL,
  role text NOT NULL DEFAULT 'technician',
  active boolean NOT NULL DEFAULT TRUE
);

CREATE TABLE work_orders (
  id serial PRIMARY KEY,
  customer text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- A photo is in the bucket, under object_key, or still on the disk of the old host, at path.
CREATE TABLE photos (
  id serial PRIMARY KEY,
  work_order_id integer NOT NULL REFERENCES work_orders (id) ON DELETE CASCADE,
  path text,
  object_key text,
  bytes bigint NOT NULL,
  CHECK (path IS NOT NULL OR object_key IS NOT NULL)
);
