#define _GNU_SOURCE
#include "comer.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

int accept_next(int listening, struct comer *comer) {
    for (;;) {
        socklen_t size = sizeof comer->peer;
        comer->fd = accept4(listening, (struct sockaddr *)&comer->peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (comer->fd < 0 && (errno == ECONNABORTED || errno == EINTR)) continue;
        if (comer->fd < 0) return -errno;
        size = sizeof comer->own;
        if (!getsockname(comer->fd, (struct sockaddr *)&comer->own, &size)) return 0;
        close(comer->fd);
    }
}

void put_ip(const struct sockaddr_storage *from, uint8_t ip[16]) {
    if (from->ss_family == AF_INET6) {
        memcpy(ip, &((const struct sockaddr_in6 *)from)->sin6_addr, 16);
    } else {
        memset(ip, 0, 10);
        memset(ip + 10, 0xff, 2);
        memcpy(ip + 12, &((const struct sockaddr_in *)from)->sin_addr, 4);
    }
}

/* sin6_port lies where sin_port does. */
uint16_t port_of(const struct sockaddr_storage *from) {
    return ntohs(((const struct sockaddr_in *)from)->sin_port);
}

struct as_client_name name_of(const struct comer *comer, uint32_t salt, int family) {
    struct as_client_name name = {.tag = {'a', 's', 'c'}, .salt = salt, .medium = AS_TCP_SERVER};
    put_ip(&comer->peer, name.source_ip);
    put_ip(&comer->own, name.dest_ip);
    name.source_port = port_of(&comer->peer);
    name.dest_port = port_of(&comer->own);
    name.client_family = comer->peer.ss_family == AF_INET6 ? 6 : 4;
    name.server_family = (uint8_t)family;
    return name;
}
