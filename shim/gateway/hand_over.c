#define _GNU_SOURCE
#include "hand_over.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "deliver.h"
#include "wire.h"

_Static_assert(sizeof(struct as_client_name) == sizeof((struct as_handed *)0)->name, "the size of a client's name");

static void put_end(const struct sockaddr_storage *from, uint8_t ip[16], uint16_t *port) {
    if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        memcpy(ip, &v6->sin6_addr, 16);
        *port = ntohs(v6->sin6_port);
    } else {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        memset(ip, 0, 10);
        memset(ip + 10, 0xff, 2);
        memcpy(ip + 12, &v4->sin_addr, 4);
        *port = ntohs(v4->sin_port);
    }
}

static struct as_client_name name_of(const struct sockaddr_storage *peer, const struct sockaddr_storage *own,
                                     uint32_t salt, int server_family) {
    struct as_client_name name = {.tag = {'a', 's', 'c'}, .salt = salt, .medium = AS_TCP_SERVER};
    put_end(peer, name.source_ip, &name.source_port);
    put_end(own, name.dest_ip, &name.dest_port);
    name.client_family = peer->ss_family == AF_INET6 ? 6 : 4;
    name.server_family = (uint8_t)server_family;
    return name;
}

/* The socket, or -errno. */
static int accept_next(int listening, struct sockaddr_storage *peer, struct sockaddr_storage *own) {
    for (;;) {
        socklen_t size = sizeof *peer;
        int fd = accept4(listening, (struct sockaddr *)peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == ECONNABORTED || errno == EINTR)) continue;
        size = sizeof *own;
        if (fd < 0 || !getsockname(fd, (struct sockaddr *)own, &size)) return fd < 0 ? -errno : fd;
        close(fd);
    }
}

int as_hand_over(int listening, uint32_t salt, const struct as_turn *turns, int count, struct as_handed *handed) {
    int done = 0;
    for (; done < count; done++) {
        struct sockaddr_storage peer, own;
        int fd = accept_next(listening, &peer, &own);
        if (fd < 0) return done || fd == -EAGAIN ? done : fd;
        struct as_client_name name = name_of(&peer, &own, salt, turns[done].family);
        struct as_handed *each = &handed[done];
        socklen_t size = sizeof each->cookie;
        getsockopt(fd, SOL_SOCKET, SO_COOKIE, &each->cookie, &size);
        memcpy(each->name, &name, sizeof name);
        each->fd = fd;
        if (deliver(fd, &name, turns[done].handle)) {
            close(fd);
            each->fd = -1;
        }
    }
    return done;
}
