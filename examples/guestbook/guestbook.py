"""A guestbook: entries in PostgreSQL, visits counted in Redis, both on 127.0.0.1. It knows nothing of AppSwitch."""

from __future__ import annotations

import os

import flask
import psycopg2
import redis

app = flask.Flask(__name__)
cache = redis.Redis("127.0.0.1")

PAGE = """<!doctype html><title>Guestbook</title><h1>Guestbook</h1>
<form method=post><input name=name placeholder=Name required> <input name=said size=40 required> <button>Sign</button>
</form>
{% for name, said in entries %}<p><b>{{ name }}</b>: {{ said }}{% endfor %}
<p><small>Visit {{ visits }}, from {{ visitor }}; app {{ pid }} answers.</small>
"""


def ask(query: str, *values: str) -> list[tuple[str, ...]]:
    """The rows that the database answers with."""
    with psycopg2.connect(host="127.0.0.1", user="guest", dbname="postgres") as connection:
        with connection.cursor() as cursor:
            cursor.execute(query, values)
            rows: list[tuple[str, ...]] = cursor.fetchall()
    connection.close()
    return rows


@app.get("/")
def read() -> str:
    """The page."""
    return flask.render_template_string(
        PAGE,
        entries=ask("select name, said from entries order by id"),
        visits=cache.incr("visits"),
        visitor=flask.request.headers["X-Real-IP"],
        pid=os.getpid(),
    )


@app.post("/")
def sign() -> flask.Response:
    """A new entry."""
    form = flask.request.form
    ask("insert into entries (name, said) values (%s, %s) returning name", form["name"], form["said"])
    return flask.redirect("/", 303)
