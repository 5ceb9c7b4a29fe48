/* What isn't the app's own: other addresses, and the port where AppSwitch's DNS answers. */
#include "udp.h"

CASE(bind_to_an_address_of_nobody) {
    FAILS(BIND(udp("10.78.0.1"), "10.78.0.1", 5107), EADDRNOTAVAIL);
    FAILS(BIND(udp("10.78.0.1"), "10.78.0.1", 0), EADDRNOTAVAIL);
    FAILS(BIND(udp("fd00:dead::1"), "fd00:dead::1", 5107), EADDRNOTAVAIL);
    FAILS(BIND(udp("::1"), "::ffff:10.78.0.1", 5107), EADDRNOTAVAIL);
}

CASE(after_a_failure_a_good_one) {
    int fd = udp("127.0.0.1"), client = udp("127.0.0.1");
    FAILS(BIND(fd, "10.78.0.1", 5108), EADDRNOTAVAIL);
    OK(BIND(fd, "127.0.0.1", 5108));
    struct address to = name_of(fd);
    chat(client, fd, &to);
}

/* Where AppSwitch's own DNS answers, too. */
CASE(port_53) {
    int server = bound("0.0.0.0", 53), client = udp("127.0.0.1"), six = bound("::1", 53), client6 = udp("::1");
    struct address to = at(VIP, 53), loopback = at("127.0.0.1", 53), loopback6 = at("::1", 53);
    for (int i = 0; i < 3; i++) {
        chat(client, server, &to);
        chat(client, server, &loopback);
        chat(client6, six, &loopback6);
    }
    int connected = toward(VIP, 53);
    chat(connected, server, &to);
}

CASE(connect_and_send_to_an_address_of_nobody) {
    struct address to = at("10.78.0.1", 5204), to6 = at("fd00:dead::1", 5204);
    FAILS(connect(udp("10.78.0.1"), &to.any, to.size), ENETUNREACH);
    FAILS(sendto(udp("10.78.0.1"), "x", 1, 0, &to.any, to.size), ENETUNREACH);
    FAILS(connect(udp("::1"), &to6.any, to6.size), ENETUNREACH);
    FAILS(sendto(udp("::1"), "x", 1, 0, &to6.any, to6.size), ENETUNREACH);
    int fd = udp("127.0.0.1"), server = bound("127.0.0.1", 0);
    FAILS(connect(fd, &to.any, to.size), ENETUNREACH);
    to = name_of(server);
    chat(fd, server, &to); /* it is as good as new */
}

CASE(by_syscall) {
    struct address foreign = at("10.78.0.1", 5603);
    FAILS(syscall(SYS_bind, udp("10.78.0.1"), &foreign.any, foreign.size), EADDRNOTAVAIL);
    FAILS(syscall(SYS_connect, udp("10.78.0.1"), &foreign.any, foreign.size), ENETUNREACH);
    FAILS(syscall(SYS_sendto, udp("10.78.0.1"), "x", 1, 0, &foreign.any, foreign.size), ENETUNREACH);
}

/* The first that fails ends the row; what went before it is counted. */
CASE(one_of_many_fails) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server), nowhere = at("10.78.0.1", 5401);
    struct iovec part = {"good", 4};
    struct mmsghdr out[3] = {0};
    for (int i = 0; i < 3; i++) {
        struct address *each = i == 1 ? &nowhere : &to;
        out[i].msg_hdr =
            (struct msghdr){.msg_name = &each->any, .msg_namelen = each->size, .msg_iov = &part, .msg_iovlen = 1};
    }
    SAME(sendmmsg(client, out, 3, 0), 1);
    SAME(out[0].msg_len, 4);
    FAILS(sendmmsg(client, out + 1, 2, 0), ENETUNREACH);
    take(server, "good");
    nothing_in(server);
}

CASE(a_source_that_is_not_ones_own) {
    int server = bound("0.0.0.0", 0), client = bound("0.0.0.0", 0);
    struct address to = at("127.0.0.1", port_of(server)), foreign = at("10.78.0.1", 0);
    struct in_pktinfo info = {.ipi_spec_dst = foreign.in.sin_addr};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof info)];
    } beside = {.header = {.cmsg_level = IPPROTO_IP, .cmsg_type = IP_PKTINFO, .cmsg_len = CMSG_LEN(sizeof info)}};
    memcpy(CMSG_DATA(&beside.header), &info, sizeof info);
    struct iovec part = {"forged", 6};
    struct msghdr message = {.msg_name = &to.any,
                             .msg_namelen = to.size,
                             .msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &beside,
                             .msg_controllen = sizeof beside};
    TELL(sendmsg(client, &message, 0));
    nothing_in(server);
}
