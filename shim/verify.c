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
    int pid = own_pid();
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
    int pid = own_pid();
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

/* Whether `ip` is one that a socket of `family` (4 or 6) shows in full: an IPv6 address cut to its last four bytes
 * would be somebody else's. */
static int is_shown_whole(int family, const uint8_t ip[16]) {
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    return family == 6 || memcmp(ip, mapped, sizeof mapped) == 0;
}

/* The rest of the name is shown to the server, too (getsockname, and which kind of sockaddr), so it must fit. Only the
 * trap handler delivers TCP sockets. */
static int fits_listener(const struct as_listener_name *listener, const struct as_client_name *name, int sibling) {
    return name->medium == AS_UNIX && name->server_family == listener->family && name->dest_port == listener->port &&
           is_shown_whole(listener->family, name->source_ip) && is_shown_whole(listener->family, name->dest_ip) &&
           (sibling || !is_loopback(name->dest_ip));
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
    if (!fits_listener(listener, name, client.sibling)) return 0;
    return memcmp(name->source_ip, client.ip, sizeof client.ip) == 0 ||
           memcmp(name->source_ip, client.alias, sizeof client.alias) == 0 ||
           (client.sibling && is_loopback(name->source_ip));
}
