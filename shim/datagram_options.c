/* Both are UDP sockets, so an option is read from the one and, where it differs, set on the other. */
#define _GNU_SOURCE
#include "datagram_options.h"

#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <time.h>

#include "datagrams.h"
#include "sys.h"

/* linux/in6.h, linux/udp.h, asm/socket.h: not in every libc's headers */
enum {
    DONTFRAG = 62,
    MULTICAST_ALL_6 = 29,
    SEGMENT = 103,
    GRO = 104,
    NO_CHECK6_TX = 101,
    NO_CHECK6_RX = 102,
    TIMESTAMPNS_NEW = 64,
    TIMESTAMP_NEW = 63
};

static const struct {
    short level, name;
} options[] = {
    {SOL_SOCKET, SO_BROADCAST},
    {SOL_SOCKET, SO_PRIORITY},
    {SOL_SOCKET, SO_TIMESTAMP},
    {SOL_SOCKET, SO_TIMESTAMPNS},
    {SOL_SOCKET, TIMESTAMP_NEW},
    {SOL_SOCKET, TIMESTAMPNS_NEW},
    {SOL_SOCKET, SO_RXQ_OVFL},
    {SOL_SOCKET, SO_NO_CHECK},
    {SOL_SOCKET, SO_KEEPALIVE},
    {SOL_SOCKET, SO_BUSY_POLL},
    {SOL_SOCKET, SO_PEEK_OFF},
    {SOL_SOCKET, SO_REUSEPORT},
    {IPPROTO_IP, IP_PKTINFO},
    {IPPROTO_IP, IP_RECVTTL},
    {IPPROTO_IP, IP_RECVTOS},
    {IPPROTO_IP, IP_RECVERR},
    {IPPROTO_IP, IP_RECVOPTS},
    {IPPROTO_IP, IP_RETOPTS},
    {IPPROTO_IP, IP_RECVORIGDSTADDR},
    {IPPROTO_IP, IP_TOS},
    {IPPROTO_IP, IP_TTL},
    {IPPROTO_IP, IP_MTU_DISCOVER},
    {IPPROTO_IP, IP_MULTICAST_TTL},
    {IPPROTO_IP, IP_MULTICAST_LOOP},
    {IPPROTO_IP, IP_MULTICAST_ALL},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT},
    {IPPROTO_IPV6, IPV6_RECVTCLASS},
    {IPPROTO_IPV6, IPV6_RECVERR},
    {IPPROTO_IPV6, IPV6_RECVORIGDSTADDR},
    {IPPROTO_IPV6, IPV6_TCLASS},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP},
    {IPPROTO_IPV6, MULTICAST_ALL_6},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER},
    {IPPROTO_IPV6, DONTFRAG},
    {IPPROTO_UDP, UDP_CORK},
    {IPPROTO_UDP, NO_CHECK6_TX},
    {IPPROTO_UDP, NO_CHECK6_RX},
    {IPPROTO_UDP, SEGMENT},
    {IPPROTO_UDP, GRO},
};

static const short durations[] = {SO_RCVTIMEO, SO_SNDTIMEO};
static const short buffers[] = {SO_RCVBUF, SO_SNDBUF};

static void set_int(int fd, int level, int name, int value) {
    sys5(SYS_setsockopt, fd, level, name, &value, sizeof value);
}

void carry_datagram_options(int fd, int target) {
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        int value = int_option(fd, options[i].level, options[i].name);
        if (value != int_option(target, options[i].level, options[i].name))
            set_int(target, options[i].level, options[i].name, value);
    }
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        struct timeval duration = {0, 0};
        socklen_t size = sizeof duration;
        if (sys5(SYS_getsockopt, fd, SOL_SOCKET, durations[i], &duration, &size) >= 0 &&
            (duration.tv_sec || duration.tv_usec))
            sys5(SYS_setsockopt, target, SOL_SOCKET, durations[i], &duration, size);
    }
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        int bytes = int_option(fd, SOL_SOCKET, buffers[i]);
        if (bytes != int_option(target, SOL_SOCKET, buffers[i]))
            set_int(target, SOL_SOCKET, buffers[i], bytes / 2); /* the kernel doubles it (socket(7)) */
    }
    if (int_option(fd, SOL_SOCKET, SO_REUSEADDR) && !reuse_is_ours(fd)) keep_reusable(target);
}
