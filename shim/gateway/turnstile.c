#define _GNU_SOURCE
#include "turnstile.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ROUNDING 1e-6 /* of a connection: who has waited as told is let in */

enum { FIRST_SIZE = 64 };

/* Whoever has one IPv6 address has all of its network (RFC 4291, 2.5.1). */
struct key {
    uint64_t network, host;
};

struct source {
    struct key key;
    int used;
    int64_t open, since; /* since: let in after the kernel was asked last */
};

struct as_turnstile {
    pthread_mutex_t lock;
    int64_t connections, per_source, total, since; /* since: of all sources */
    double rate, most_tokens, tokens, filled_at, count_every, counted_at;
    struct source *table; /* of `size`, a power of two; open addressing */
    size_t size, used;
    uint64_t secret; /* clients choose their addresses, so they mustn't know where these come to lie */
};

struct as_turnstile *as_turnstile_new(int64_t connections, int64_t per_source, double rate, double count_every) {
    struct as_turnstile *made = calloc(1, sizeof *made);
    if (!made) return NULL;
    pthread_mutex_init(&made->lock, NULL);
    made->connections = connections;
    made->per_source = per_source;
    made->rate = rate;
    made->tokens = made->most_tokens = rate > 1 ? rate : 1; /* what comes at once after a quiet time */
    made->count_every = count_every;
    made->filled_at = made->counted_at = -INFINITY;
    if (getrandom(&made->secret, sizeof made->secret, GRND_NONBLOCK) < 0) made->secret = (uintptr_t)made;
    return made;
}

void as_turnstile_free(struct as_turnstile *turnstile) {
    free(turnstile->table);
    free(turnstile);
}

static struct key key_of(const uint8_t *ip) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    struct key key;
    memcpy(&key, ip, sizeof key);
    if (memcmp(ip, mapped, sizeof mapped)) key.host = 0;
    return key;
}

static size_t hash(const struct as_turnstile *turnstile, struct key key) {
    uint64_t mixed = (key.network ^ turnstile->secret) * 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ mixed >> 29 ^ key.host) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 32 ^ turnstile->secret) * 0x94d049bb133111ebu;
    return mixed ^ mixed >> 31;
}

/* Where it is, or would be; NULL: there is no table. */
static struct source *look(const struct as_turnstile *turnstile, struct key key) {
    for (size_t at = hash(turnstile, key); turnstile->size; at++) {
        struct source *each = &turnstile->table[at & (turnstile->size - 1)];
        if (!each->used || (each->key.network == key.network && each->key.host == key.host)) return each;
    }
    return NULL;
}

/* Into a table of that size, those that count. 0: no memory; then everything is as before. */
static int move_to(struct as_turnstile *turnstile, size_t size) {
    struct source *old = turnstile->table, *fresh = calloc(size, sizeof *fresh);
    size_t old_size = turnstile->size;
    if (!fresh) return 0;
    turnstile->table = fresh;
    turnstile->size = size;
    turnstile->used = 0;
    for (size_t i = 0; i < old_size; i++) {
        if (!old[i].used || (!old[i].open && !old[i].since)) continue;
        *look(turnstile, old[i].key) = old[i];
        turnstile->used++;
    }
    free(old);
    return 1;
}

/* NULL: no memory; who can't be counted is let in. */
static struct source *find(struct as_turnstile *turnstile, const uint8_t *ip) {
    struct key key = key_of(ip);
    struct source *found = look(turnstile, key);
    if (found && found->used) return found;
    if (4 * turnstile->used >= 3 * turnstile->size) { /* it grows, unless many count no more */
        if (turnstile->size && !move_to(turnstile, turnstile->size)) return NULL;
        size_t size = turnstile->size ? 2 * turnstile->size : FIRST_SIZE;
        if (2 * turnstile->used >= turnstile->size && !move_to(turnstile, size)) return NULL;
        found = look(turnstile, key);
    }
    *found = (struct source){.key = key, .used = 1};
    turnstile->used++;
    return found;
}

int as_is_full(struct as_turnstile *turnstile) {
    pthread_mutex_lock(&turnstile->lock);
    int full = turnstile->connections && turnstile->total >= turnstile->connections;
    pthread_mutex_unlock(&turnstile->lock);
    return full;
}

double as_pause(struct as_turnstile *turnstile, double now) {
    if (!turnstile->rate) return 0;
    pthread_mutex_lock(&turnstile->lock);
    double pause = 0;
    double tokens = turnstile->tokens + (now - turnstile->filled_at) * turnstile->rate;
    turnstile->tokens = tokens < turnstile->most_tokens ? tokens : turnstile->most_tokens;
    turnstile->filled_at = now;
    if (turnstile->tokens < 1 - ROUNDING)
        pause = (1 - turnstile->tokens) / turnstile->rate;
    else
        turnstile->tokens -= 1;
    pthread_mutex_unlock(&turnstile->lock);
    return pause;
}

void as_give_back(struct as_turnstile *turnstile) {
    if (!turnstile->rate) return;
    pthread_mutex_lock(&turnstile->lock);
    turnstile->tokens += 1;
    pthread_mutex_unlock(&turnstile->lock);
}

void as_let_in(struct as_turnstile *turnstile, const uint8_t *ip) {
    if (!turnstile->connections && !turnstile->per_source) return;
    pthread_mutex_lock(&turnstile->lock);
    struct source *source = turnstile->per_source ? find(turnstile, ip) : NULL;
    if (source) source->since++;
    turnstile->since++;
    turnstile->total++;
    pthread_mutex_unlock(&turnstile->lock);
}

int as_has_too_many(struct as_turnstile *turnstile, const uint8_t *ip) {
    if (!turnstile->per_source) return 0;
    pthread_mutex_lock(&turnstile->lock);
    struct source *source = look(turnstile, key_of(ip));
    int too_many = source && source->used && source->open + source->since > turnstile->per_source;
    pthread_mutex_unlock(&turnstile->lock);
    return too_many;
}

void as_turn_away(struct as_turnstile *turnstile, const uint8_t *ip) {
    pthread_mutex_lock(&turnstile->lock);
    struct source *source = turnstile->per_source ? find(turnstile, ip) : NULL;
    if (source && source->since) {
        source->since--;
        turnstile->since--;
    } else if (source) {
        source->open--;
    }
    turnstile->total--;
    pthread_mutex_unlock(&turnstile->lock);
}

double as_may_count_in(struct as_turnstile *turnstile, double now) {
    pthread_mutex_lock(&turnstile->lock);
    double wait = turnstile->counted_at + turnstile->count_every - now;
    pthread_mutex_unlock(&turnstile->lock);
    return wait > 0 ? wait : 0;
}

void as_count(struct as_turnstile *turnstile, double now) {
    pthread_mutex_lock(&turnstile->lock);
    turnstile->counted_at = now;
    turnstile->since = 0;
    for (size_t i = 0; i < turnstile->size; i++) {
        struct source *each = &turnstile->table[i];
        each->open = each->open + each->since > 0 ? each->open + each->since : 0;
        each->since = 0;
    }
    pthread_mutex_unlock(&turnstile->lock);
}

void as_counted(struct as_turnstile *turnstile, const uint8_t *ips, int count) {
    pthread_mutex_lock(&turnstile->lock);
    size_t left = 0, size = FIRST_SIZE;
    for (size_t i = 0; i < turnstile->size; i++) {
        turnstile->table[i].open = 0;
        left += turnstile->table[i].since != 0;
    }
    while (size < 2 * left) size *= 2;
    move_to(turnstile, size); /* what had been a crowd takes no more room */
    for (int i = 0; turnstile->per_source && i < count; i++) {
        struct source *source = find(turnstile, ips + 16 * i);
        if (source) source->open++;
    }
    turnstile->total = count + turnstile->since;
    pthread_mutex_unlock(&turnstile->lock);
}
