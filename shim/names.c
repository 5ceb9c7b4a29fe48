#include "names.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/un.h>

#include "fresh.h"
#include "sys.h"

#define SIZE_OF_PATH_OFFSET ((socklen_t)sizeof(sa_family_t))

static const uint8_t v4_mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static uint16_t swap16(uint16_t value) {
    return __builtin_bswap16(value); /* both architectures of sys.h are little-endian */
}

int read_client_name(const struct sockaddr *name, socklen_t size, struct as_client_name *client) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)name;
    if (size != SIZE_OF_PATH_OFFSET + sizeof *client || un->sun_family != AF_UNIX) return 0;
    memcpy(client, un->sun_path, sizeof *client);
    return client->nul == 0 && memcmp(client->tag, "asc", 3) == 0;
}

/* Less 1; 0: none. A look into a table is a third of the time of comparing, and each accept reads eighty. */
static const uint8_t hex_digits[256] = {
    ['0'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ['a'] = 11, 12, 13, 14, 15, 16,
};

int read_listener_name(const struct sockaddr *name, socklen_t size, struct as_listener_name *listener) {
    const struct sockaddr_un *un = (const struct sockaddr_un *)name;
    enum { DIGITS = 2 * sizeof *listener };
    if (size <= SIZE_OF_PATH_OFFSET || un->sun_family != AF_UNIX || un->sun_path[0] != '/') return 0;
    if (size > sizeof *un) size = sizeof *un; /* of a path that fills it, a NUL beyond is counted (unix(7)) */
    size_t length = size - SIZE_OF_PATH_OFFSET;
    while (length && !un->sun_path[length - 1]) length--;
    if (length < DIGITS + 4) return 0;
    const char *last = un->sun_path + length - DIGITS - 4;
    if (memcmp(last, "/as.", 4) != 0) return 0;
    uint8_t *bytes = (uint8_t *)listener;
    for (size_t i = 0; i < sizeof *listener; i++) {
        uint8_t high = hex_digits[(uint8_t)last[4 + 2 * i]], low = hex_digits[(uint8_t)last[5 + 2 * i]];
        if (!high || !low) return 0;
        bytes[i] = (uint8_t)((high - 1) << 4 | (low - 1));
    }
    return 1;
}

void identify(int fd, struct identity *identity) {
    struct sockaddr_un name;
    socklen_t size = sizeof name;
    name.sun_family = AF_UNSPEC;
    ((struct sockaddr_in *)&name)->sin_port = 0;
    identity->role = PLAIN;
    identity->plain_family = identity->plain_port = 0;
    if (sys3(SYS_getsockname, fd, &name, &size) < 0) return;
    identity->plain_family = name.sun_family;
    identity->plain_port = ((struct sockaddr_in *)&name)->sin_port; /* sin6_port lies there, too */
    if (name.sun_family != AF_UNIX) return;
    if (size == SIZE_OF_PATH_OFFSET) {
        int family = fresh_family(fd);
        if (!family) return;
        memset(&identity->listener, 0, sizeof identity->listener);
        identity->listener.family = family == AF_INET6 ? 6 : 4;
        identity->role = FRESH;
        return;
    }
    if (read_client_name((struct sockaddr *)&name, size, &identity->client)) {
        identity->role = CLIENT;
    } else if (read_listener_name((struct sockaddr *)&name, size, &identity->listener)) {
        size = sizeof name;
        identity->role = LISTENER;
        if (sys3(SYS_getpeername, fd, &name, &size) >= 0 &&
            read_client_name((struct sockaddr *)&name, size, &identity->client))
            identity->role = ACCEPTED;
    }
}

int family_of(const struct identity *identity) {
    int family = identity->role == CLIENT ? identity->client.client_family : identity->listener.family;
    return family == 6 ? AF_INET6 : AF_INET;
}

int read_sockaddr(const struct sockaddr *addr, socklen_t size, struct as_addr *out) {
    memset(out, 0, sizeof *out);
    if (size > sizeof(struct sockaddr_storage)) return -EINVAL; /* move_addr_to_kernel in net/socket.c */
    if (addr->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
        if (size < SIN6_LEN_RFC2133) return -EINVAL;
        memcpy(out->ip, &in6->sin6_addr, 16);
        out->port = swap16(in6->sin6_port);
        out->family = 6;
        return 0;
    }
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    if (size < sizeof *in) return -EINVAL;
    memcpy(out->ip, v4_mapped, 12);
    memcpy(out->ip + 12, &in->sin_addr, 4);
    out->port = swap16(in->sin_port);
    out->family = 4;
    return 0;
}

void any_is_loopback(struct as_addr *addr) {
    static const uint8_t v4[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, v6[16] = {0};
    if (memcmp(addr->ip, v4, 16) == 0) {
        addr->ip[12] = 127;
        addr->ip[15] = 1;
    } else if (memcmp(addr->ip, v6, 16) == 0) {
        addr->ip[15] = 1;
    }
}

void write_sockaddr(int family, const uint8_t ip[16], uint16_t port, struct sockaddr *addr, socklen_t *size) {
    union {
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } full;
    socklen_t full_size = family == 6 ? sizeof full.in6 : sizeof full.in;
    memset(&full, 0, sizeof full);
    if (family == 6) {
        full.in6.sin6_family = AF_INET6;
        full.in6.sin6_port = swap16(port);
        memcpy(&full.in6.sin6_addr, ip, 16);
    } else {
        full.in.sin_family = AF_INET;
        full.in.sin_port = swap16(port);
        memcpy(&full.in.sin_addr, ip + 12, 4);
    }
    memcpy(addr, &full, *size < full_size ? *size : full_size);
    *size = full_size;
}
