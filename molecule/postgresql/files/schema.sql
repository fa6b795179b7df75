BEGIN;
CREATE EXTENSION IF NOT EXISTS pgcrypto;
CREATE TABLE stock (
    id serial PRIMARY KEY,
    part text NOT NULL UNIQUE
);
CREATE TABLE users (
    id serial PRIMARY KEY,
    name text NOT NULL UNIQUE,
    password text NOT NULL
);
INSERT INTO stock (part) VALUES ('fuse'), ('relay');
INSERT INTO users (name, password) VALUES ('admin', crypt('first of all', gen_salt('bf')));
COMMIT;
