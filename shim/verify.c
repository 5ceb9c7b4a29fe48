#include "verify.h"

#include <errno.h>
#include <sys/socket.h>

#include "channel.h"
#include "epoch.h"
#include "latch.h"
#include "names.h"
#include "sys.h"

enum { PLACES = 64 };

struct verdict {
    int latch;
    uint64_t netns, listener;
    struct as_client client;
};

static struct verdict verdicts[PLACES];

static struct verdict *place_of(uint64_t netns, uint64_t listener) {
    return &verdicts[(netns * 31 + listener) % PLACES];
}

static int recall(uint64_t netns, uint64_t listener, struct as_client *client) {
    struct verdict *verdict = place_of(netns, listener);
    int pid = memory_pid();
    enum latched latched = pid ? try_latch(&verdict->latch, pid) : NOT_LATCHED;
    if (latched == NOT_LATCHED) return 0;
    if (latched == LATCHED_BROKEN) verdict->netns = 0;
    int known = verdict->netns == netns && verdict->listener == listener && still_true(verdict->client.epoch);
    if (known) *client = verdict->client;
    unlatch(&verdict->latch);
    return known;
}

static void remember(uint64_t netns, uint64_t listener, const struct as_client *client) {
    struct verdict *verdict = place_of(netns, listener);
    int pid = memory_pid();
    if (!pid || try_latch(&verdict->latch, pid) == NOT_LATCHED) return;
    verdict->netns = netns;
    verdict->listener = listener;
    verdict->client = *client;
    unlatch(&verdict->latch);
}

/* 0; -EACCES: it is nobody who may be here; other errors: it can't be found out. */
static long ask_who(uint64_t netns, uint64_t listener, struct as_client *client) {
    struct as_request request;
    struct as_reply reply;
    struct passed passed;
    new_request(&request, AS_WHO);
    request.id = listener;
    request.netns = netns;
    request.flags = (uint16_t)wanted_epoch();
    long error = ask(&request, &reply, &passed);
    if (error) return error;
    if (reply.text_size != sizeof *client) return -EACCES;
    memcpy(client, reply.text, sizeof *client);
    if (client->has_epoch && passed.count) map_epoch(passed.fd[0]);
    close_passed(&passed, 0);
    remember(netns, listener, client);
    return 0;
}

static int is_loopback(const uint8_t ip[16]) {
    static const uint8_t v4[13] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127}, v6[16] = {[15] = 1};
    return memcmp(ip, v4, sizeof v4) == 0 || memcmp(ip, v6, sizeof v6) == 0;
}

static int same_ip(const uint8_t one[16], const uint8_t other[16]) {
    return memcmp(one, other, 16) == 0;
}

static int is_v4(const uint8_t ip[16]) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return memcmp(ip, mapped, sizeof mapped) == 0;
}

/* Whether `ip` is one that a socket of `family` (4 or 6) shows in full: an IPv6 address cut to its last four bytes
 * would be somebody else's. */
static int is_shown_whole(int family, const uint8_t ip[16]) {
    return family == 6 || is_v4(ip);
}

static int is_any(const uint8_t ip[16]) {
    static const uint8_t v4[16] = {[10] = 0xff, [11] = 0xff}, v6[16];
    return same_ip(ip, v4) || same_ip(ip, v6);
}

/* The rest of the name is shown to the server, too (getsockname, and which kind of sockaddr), so it must fit. Only the
 * trap handler delivers TCP sockets. */
static int fits_listener(const struct as_listener_name *listener, const struct as_client_name *name) {
    return name->medium == AS_UNIX && name->server_family == listener->family && name->dest_port == listener->port &&
           is_shown_whole(listener->family, name->source_ip) && is_shown_whole(listener->family, name->dest_ip) &&
           is_v4(name->source_ip) == is_v4(name->dest_ip) && !(listener->v6only && is_v4(name->dest_ip));
}

/* Whether the client may have dialled this address and got here (core/route.py: _serves). */
static int leads_here(const struct as_listener_name *listener, const struct as_client *client, const uint8_t dest[16]) {
    if (is_loopback(dest) && !client->sibling) return 0;
    if (is_any(listener->ip))
        return is_loopback(dest) || same_ip(dest, client->server_ip) ||
               (client->sibling && same_ip(dest, client->server_alias));
    return same_ip(dest, listener->ip) || (is_loopback(dest) && !is_loopback(listener->ip));
}

static int comes_from(const struct as_client *client, const uint8_t source[16]) {
    return same_ip(source, client->ip) || same_ip(source, client->alias) || (client->sibling && is_loopback(source));
}

long verify_client(int accepted, const struct as_listener_name *listener, const struct as_client_name *name) {
    uint64_t netns = netns_of(accepted);
    struct as_client client;
    if (!netns) return 0;
    if (!recall(netns, listener->id, &client)) {
        long error = ask_who(netns, listener->id, &client);
        if (error) return error == -EACCES ? 0 : error;
    }
    if (client.by_handler) return is_from_handler(accepted);
    return fits_listener(listener, name) && leads_here(listener, &client, name->dest_ip) &&
           comes_from(&client, name->source_ip);
}
