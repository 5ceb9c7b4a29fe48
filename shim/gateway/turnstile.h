/* How many clients of outside a gateway lets in at a time (edge/turnstile.py); cffi reads this.
 *
 * How it works. Two limits are of the gateway as a whole, how many connections are open and how many come in a second.
 * One is of each source, an IPv4 address or an IPv6 /64: a table counts what each has open. How many are open the
 * kernel says, from time to time; what was let in since then is taken to be open still. So a count may be too high for
 * a while, never too low. tests/edge/turnstile.py says the same in Python, in few lines, and is what this is tested by.
 *
 * An address has 16 bytes, those of IPv4 as ::ffff:0:0/96. now: seconds, of CLOCK_MONOTONIC. Any thread may call.
 */
#ifndef APPSWITCH_GATEWAY_TURNSTILE_H
#define APPSWITCH_GATEWAY_TURNSTILE_H

#include <stdint.h>

struct as_turnstile;

/* connections, per_source, rate (a second): 0: there is no such limit; count_every: seconds. NULL: no memory. */
struct as_turnstile *as_turnstile_new(int64_t connections, int64_t per_source, double rate, double count_every);
void as_turnstile_free(struct as_turnstile *turnstile);

/* Whether no more are let in before some have ended. */
int as_is_full(struct as_turnstile *turnstile);

/* Seconds until the next one may come, as far as the rate is concerned; 0: it is let in by this call. */
double as_pause(struct as_turnstile *turnstile, double now);

/* Nobody was there to be let in by it. */
void as_give_back(struct as_turnstile *turnstile);

/* It is open now. */
void as_let_in(struct as_turnstile *turnstile, const uint8_t *ip);

/* Whether one of that client, which is open, has to go, as far as is known. */
int as_has_too_many(struct as_turnstile *turnstile, const uint8_t *ip);

/* It isn't open any more. */
void as_turn_away(struct as_turnstile *turnstile, const uint8_t *ip);

/* Seconds until the kernel may be asked again. */
double as_may_count_in(struct as_turnstile *turnstile, double now);

/* It is asked now; `as_counted` tells what it says: the other ends of all connections that are open, 16 bytes each. */
void as_count(struct as_turnstile *turnstile, double now);
void as_counted(struct as_turnstile *turnstile, const uint8_t *ips, int count);

#endif
