"""Takes votes from `redis` and keeps each voter's last one in `db`. It knows nothing of AppSwitch."""

from __future__ import annotations

import json

import psycopg2
import redis

TABLE = "create table if not exists votes (voter text primary key, vote text not null)"
KEEP = "insert into votes values (%s, %s) on conflict (voter) do update set vote = excluded.vote"

queue = redis.Redis("redis")
database = psycopg2.connect(host="db", user="guest", dbname="postgres")
database.autocommit = True
with database.cursor() as cursor:
    cursor.execute(TABLE)
    print("waiting for votes")
    while True:
        _, text = queue.blpop("votes")
        vote = json.loads(text)
        cursor.execute(KEEP, (vote["voter"], vote["vote"]))
        print(f"{vote['voter']} votes for {vote['vote']}")
