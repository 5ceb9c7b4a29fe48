create table if not exists entries (id serial primary key, name text not null, said text not null);
