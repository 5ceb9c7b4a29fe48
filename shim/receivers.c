#define _GNU_SOURCE
#include "receivers.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "sys.h"

struct request {
    struct nlmsghdr header;
    struct inet_diag_req_v2 what;
};

static void write_address(uint32_t to[4], const uint8_t ip[16], int is_v4) {
    memcpy(to, is_v4 ? ip + 12 : ip, is_v4 ? 4 : 16);
}

static void write_request(struct request *request, const uint8_t ip[16], uint16_t port, const struct as_addr *dest) {
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    int is_v4 = memcmp(dest->ip, v4, sizeof v4) == 0;
    memset(request, 0, sizeof *request);
    request->header.nlmsg_len = sizeof *request;
    request->header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
    request->header.nlmsg_flags = NLM_F_REQUEST;
    request->what.sdiag_family = is_v4 ? AF_INET : AF_INET6;
    request->what.sdiag_protocol = IPPROTO_UDP;
    request->what.idiag_states = -1u;
    request->what.id.idiag_sport = __builtin_bswap16(port);
    request->what.id.idiag_dport = __builtin_bswap16(dest->port);
    write_address(request->what.id.idiag_src, ip, is_v4);
    write_address(request->what.id.idiag_dst, dest->ip, is_v4);
    memset(request->what.id.idiag_cookie, 0xff, sizeof request->what.id.idiag_cookie);
}

int has_receiver(const uint8_t ip[16], uint16_t port, const struct as_addr *dest) {
    struct request request;
    union {
        struct nlmsghdr header;
        char space[1024];
    } answer;
    long fd = sys3(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (fd < 0) return 0;
    write_request(&request, ip, port, dest);
    long size = sys6(SYS_sendto, fd, SYS_ARG_(&request), sizeof request, 0, 0, 0);
    if (size > 0) size = sys6(SYS_recvfrom, fd, SYS_ARG_(&answer), sizeof answer, MSG_DONTWAIT, 0, 0);
    sys1(SYS_close, fd);
    return size >= (long)sizeof answer.header && answer.header.nlmsg_type == SOCK_DIAG_BY_FAMILY;
}
