/* Short ways to UDP sockets, beside those of test.h.
 *
 *     bound("127.0.0.1", 0)                   a socket that is bound there
 *     put(fd, "text", &to)                    sendto; `to` may be 0 on a connected socket
 *     from = take(fd, "text")                 recvfrom: these bytes are the next datagram; who sent it
 *     nothing_in(fd)                          no datagram waits
 */
#ifndef UDP_H
#define UDP_H

#include <netinet/udp.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "test.h"

__attribute__((unused)) static int udp(const char *ip) {
    return OK(socket(strchr(ip, ':') ? AF_INET6 : AF_INET, SOCK_DGRAM, 0));
}

__attribute__((unused)) static int bound(const char *ip, int port) {
    int fd = udp(ip);
    OK(BIND(fd, ip, port));
    return fd;
}

/* A socket that is connected there. */
__attribute__((unused)) static int toward(const char *ip, int port) {
    int fd = udp(ip);
    OK(CONNECT(fd, ip, port));
    return fd;
}

__attribute__((unused)) static void put(int fd, const char *text, const struct address *to) {
    size_t size = strlen(text);
    SAME(sendto(fd, text, size, 0, to ? &to->any : 0, to ? to->size : 0), size);
}

__attribute__((unused)) static struct address take(int fd, const char *text) {
    struct address from = {.size = sizeof from.storage};
    char got[256] = "";
    int size = OK(recvfrom(fd, got, sizeof got - 1, 0, &from.any, &from.size));
    TEXT(got, text);
    SAME(size, strlen(text));
    return from;
}

__attribute__((unused)) static void nothing_in(int fd) {
    char got[256] = "";
    ssize_t size = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    if (size >= 0) fail("\"%s\" came, where nothing should", got);
    SAME(errno, EAGAIN);
}

/* There and back: what the one sends comes to the other under the one's name, and the other way round. */
__attribute__((unused)) static void chat(int client, int server, const struct address *to) {
    put(client, "question", to);
    struct address from = take(server, "question");
    put(server, "answer", &from);
    struct address back = take(client, "answer");
    TEXT(show(&back), show(to));
}

/* The error that waits on a socket, as SO_ERROR says it; 0 when none came in time. */
__attribute__((unused)) static int error_in(int fd) {
    if (!(events_of(fd, 0, 5000) & POLLERR)) return 0;
    return option(fd, SOL_SOCKET, SO_ERROR);
}

/* A port that was bound a moment ago, and where nobody is now. */
__attribute__((unused)) static int port_of_nobody(const char *ip) {
    int fd = bound(ip, 0), port = port_of(fd);
    close(fd);
    return port;
}

#endif
