/* What names of apps stand for, as long as it holds: until the time to live of the answer is over (RFC 1035 3.2.1), or
 * the epoch (epoch.h). That there is no such app only keeps it from being asked for again, after libc has
 * answered, until the epoch is over. */
#ifndef APPSWITCH_NAME_CACHE_H
#define APPSWITCH_NAME_CACHE_H

#include "wire.h"

/* True: `answer` holds. */
int recall_answer(const char *name, struct as_answer *answer);

/* Asks what `name` stands for; flags: AS_TOLD or 0. True: `answer` is what is said. */
int ask_answer(const char *name, int flags, struct as_answer *answer);

/* Keeps an answer to a name that has come up before. */
void keep_answer(const char *name, const struct as_answer *answer);

/* Whether it is a name that comes up again, and may be an app's that isn't kept. */
int is_worth_asking(const char *name);

#endif
