/* How it works. A name has a place by its hash; the last of one place has it. The first look-up only leaves a mark
 * there, so a program that looks up once pays nothing (as in capability.c). A name that turns out to be no app's leaves
 * one, too, which says so until the epoch is over: a name that such an app comes to have is found by asking, as before.
 */
#include "name_cache.h"

#include "channel.h"
#include "epoch.h"
#include "latch.h"
#include "sys.h"

enum { PLACES = 64, NAME_SIZE = 64 /* longer ones are asked for each time */ };

struct place {
    int latch;
    char name[NAME_SIZE];
    uint64_t until; /* milliseconds; 0: there is no answer */
    struct as_answer answer;
};

static struct place places[PLACES];

/* Latches the place of `name`, and tells whether it is this name's; 0: somebody else has it, or the name is too long.
 */
static struct place *latch_place(const char *name, int *is_its) {
    size_t size = as_strlen(name);
    int pid = memory_pid();
    struct place *place = &places[hash_of(name, size) % PLACES];
    enum latched latched = size < NAME_SIZE && pid ? try_latch(&place->latch, pid) : NOT_LATCHED;
    if (latched == NOT_LATCHED) return 0;
    if (latched == LATCHED_BROKEN) memset(place->name, 0, sizeof place->name);
    *is_its = memcmp(place->name, name, size + 1) == 0;
    return place;
}

int recall_answer(const char *name, struct as_answer *answer) {
    int known;
    struct place *place = latch_place(name, &known);
    if (!place) return 0;
    known = known && place->until && still_true(place->answer.epoch) && milliseconds() < place->until;
    if (known) *answer = place->answer;
    unlatch(&place->latch);
    return known;
}

int is_worth_asking(const char *name) {
    int known;
    struct place *place = latch_place(name, &known);
    if (!place) return 0;
    int none = known && !place->until && still_true(place->answer.epoch);
    if (!known) {
        place->until = place->answer.epoch = 0; /* never the page's */
        memcpy(place->name, name, as_strlen(name) + 1);
    }
    unlatch(&place->latch);
    return known && !none;
}

void keep_answer(const char *name, const struct as_answer *answer) {
    int known;
    uint64_t until = answer->address[0] ? milliseconds() + answer->ttl * 1000ull : 0;
    struct place *place = latch_place(name, &known);
    if (!place) return;
    if (known) {
        place->answer = *answer;
        place->until = until;
    }
    unlatch(&place->latch);
}

int ask_answer(const char *name, int flags, struct as_answer *answer) {
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    size_t size = as_strlen(name);
    if (!size || size >= AS_TEXT_SIZE) return 0;
    new_request(&request, AS_RESOLVE);
    request.flags = (uint16_t)(flags | wanted_epoch());
    memcpy(request.text, name, size);
    request.text_size = (uint16_t)size;
    if (ask(&request, &reply, &passed) < 0) return 0;
    if (reply.text_size == sizeof *answer) memcpy(answer, reply.text, sizeof *answer);
    if (reply.text_size == sizeof *answer && answer->has_epoch && passed.count) map_epoch(passed.fd[0]);
    close_passed(&passed, 0);
    if (reply.text_size != sizeof *answer) return 0;
    answer->address[sizeof answer->address - 1] = 0;
    return 1;
}
