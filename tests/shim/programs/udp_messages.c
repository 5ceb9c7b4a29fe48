/* sendmsg, recvmsg, sendmmsg and recvmmsg, and what goes beside the data: addresses, TOS, errors, segments. */
#include "udp.h"

/* A message of one part with room for a name and for what goes beside. */
struct letter {
    struct msghdr message;
    struct iovec part;
    struct address name;
    char data[4096];
    union {
        struct cmsghdr first;
        char control[512];
    };
};

static struct letter *fresh(struct letter *letter) {
    memset(letter, 0, sizeof *letter);
    letter->part = (struct iovec){letter->data, sizeof letter->data};
    letter->message.msg_name = &letter->name.any;
    letter->message.msg_namelen = sizeof letter->name.storage;
    letter->message.msg_iov = &letter->part;
    letter->message.msg_iovlen = 1;
    letter->message.msg_control = letter->control;
    letter->message.msg_controllen = sizeof letter->control;
    return letter;
}

/* One to send. */
static struct letter *with_text(struct letter *letter, const char *text, const struct address *to) {
    fresh(letter);
    letter->part.iov_len = strlen(text);
    memcpy(letter->data, text, strlen(text));
    letter->message.msg_controllen = 0;
    if (to) letter->name = *to;
    if (!to) letter->message.msg_name = 0;
    letter->message.msg_namelen = to ? to->size : 0;
    return letter;
}

static void beside(struct letter *letter, int level, int type, const void *value, size_t size) {
    struct cmsghdr *header = &letter->first;
    letter->message.msg_controllen = CMSG_SPACE(size);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), value, size);
}

/* The text that came; its name and what is beside it are in the letter. */
static const char *receive(int fd, struct letter *letter, int flags) {
    int size = OK(recvmsg(fd, &fresh(letter)->message, flags));
    letter->data[size] = 0;
    letter->name.size = letter->message.msg_namelen;
    return letter->data;
}

static void *find(struct letter *letter, int level, int type) {
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&letter->message); each; each = CMSG_NXTHDR(&letter->message, each))
        if (each->cmsg_level == level && each->cmsg_type == type) return CMSG_DATA(each);
    fail("nothing of level %d, type %d beside the data", level, type);
}

static int number_beside(struct letter *letter, int level, int type) {
    int value;
    memcpy(&value, find(letter, level, type), sizeof value);
    return value;
}

CASE(names_by_sendmsg_and_recvmsg) {
    const char *ips[] = {"127.0.0.1", VIP, "::1", VIP6};
    for (int i = 0; i < 4; i++) {
        struct letter letter;
        int server = bound(ips[i], 0), client = udp(ips[i]);
        struct address to = name_of(server);
        SAME(sendmsg(client, &with_text(&letter, "by sendmsg", &to)->message, 0), 10);
        TEXT(receive(server, &letter, 0), "by sendmsg");
        SAME(letter.message.msg_flags, 0);
        SAME(letter.message.msg_controllen, 0);
        TEXT(ip_of(&letter.name), ips[i]);
        SAME(port_in(&letter.name), port_of(client));
        SAME(letter.name.size, to.size);
        struct address from = letter.name;
        SAME(sendmsg(server, &with_text(&letter, "back", &from)->message, 0), 4);
        TEXT(receive(client, &letter, 0), "back");
        TEXT(show(&letter.name), show(&to));
    }
}

CASE(connected_sendmsg) {
    struct letter letter;
    int server = bound("127.0.0.1", 0), other = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    struct address own = name_of(client), elsewhere = name_of(other), to = name_of(server);
    SAME(sendmsg(client, &with_text(&letter, "home", 0)->message, 0), 4);
    TEXT(receive(server, &letter, 0), "home");
    TEXT(show(&letter.name), show(&own));
    SAME(sendmsg(client, &with_text(&letter, "named", &to)->message, 0), 5);
    TEXT(receive(server, &letter, 0), "named");
    SAME(sendmsg(client, &with_text(&letter, "aside", &elsewhere)->message, 0), 5);
    TEXT(receive(other, &letter, 0), "aside");
    TEXT(show(&letter.name), show(&own));
}

CASE(many_parts) {
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    char data[100], got[100] = "";
    struct iovec parts[100];
    for (int i = 0; i < 100; i++) {
        data[i] = (char)('a' + i % 26);
        parts[i] = (struct iovec){data + i, i % 3 ? 1 : 0};
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 100};
    SAME(sendmsg(client, &message, 0), 66);
    for (int i = 0; i < 100; i++) parts[i] = (struct iovec){got + i, 1};
    message = (struct msghdr){.msg_iov = parts, .msg_iovlen = 100};
    SAME(recvmsg(server, &message, 0), 66);
    SAME(strlen(got), 66);
    SAME(got[0], 'b');
    message.msg_iovlen = 0; /* no part: a datagram of nothing */
    SAME(sendmsg(client, &message, 0), 0);
    SAME(recvmsg(server, &message, 0), 0);
    SAME(message.msg_flags, 0);
}

CASE(little_room_for_the_name) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server), from = {.size = 4};
    char byte;
    put(client, "x", &to);
    SAME(recvfrom(server, &byte, 1, 0, &from.any, &from.size), 1);
    SAME(from.size, sizeof from.in); /* what it would have taken */
    SAME(port_in(&from), port_of(client));
    SAME(from.in.sin_addr.s_addr, 0);
    struct letter letter;
    put(client, "x", &to);
    fresh(&letter)->message.msg_namelen = 0;
    SAME(recvmsg(server, &letter.message, 0), 1);
    SAME(letter.message.msg_namelen, sizeof from.in);
    SAME(letter.name.any.sa_family, 0);
}

enum { MANY = 10 };

CASE(many_at_once) {
    const char *ips[] = {VIP, "::1"};
    for (int i = 0; i < 2; i++) {
        struct letter sent[MANY], got[MANY];
        struct mmsghdr out[MANY] = {0}, in[MANY] = {0};
        int servers[2] = {bound(ips[i], 0), bound(ips[i], 0)}, client = udp(ips[i]);
        for (int k = 0; k < MANY; k++) {
            char text[16];
            struct address to = name_of(servers[k % 2]);
            snprintf(text, sizeof text, "number %d", k);
            out[k].msg_hdr = with_text(&sent[k], text, &to)->message;
            in[k].msg_hdr = fresh(&got[k])->message;
        }
        SAME(sendmmsg(client, out, MANY, 0), MANY);
        for (int k = 0; k < MANY; k++) SAME(out[k].msg_len, 8);
        for (int s = 0; s < 2; s++) {
            SAME(recvmmsg(servers[s], in, MANY, MSG_WAITFORONE, 0), MANY / 2);
            for (int k = 0; k < MANY / 2; k++) {
                char text[16];
                snprintf(text, sizeof text, "number %d", 2 * k + s);
                SAME(in[k].msg_len, 8);
                TEXT(got[k].data, text);
                SAME(port_in(&got[k].name), port_of(client));
                TEXT(ip_of(&got[k].name), ips[i]);
                in[k].msg_hdr = fresh(&got[k])->message;
            }
            FAILS(recvmmsg(servers[s], in, MANY, MSG_DONTWAIT, 0), EAGAIN);
        }
    }
}

CASE(many_at_once_of_a_connected_one) {
    struct letter sent[MANY], got[MANY];
    struct mmsghdr out[MANY] = {0}, in[MANY] = {0};
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    for (int k = 0; k < MANY; k++) {
        out[k].msg_hdr = with_text(&sent[k], "datagram", 0)->message;
        in[k].msg_hdr = fresh(&got[k])->message;
    }
    SAME(sendmmsg(client, out, MANY, 0), MANY);
    struct timespec patience = {.tv_sec = 5};
    SAME(recvmmsg(server, in, MANY, 0, &patience), MANY);
    for (int k = 0; k < MANY; k++) TEXT(got[k].data, "datagram");
    SAME(sendmmsg(client, out, 0, 0), 0);
    FAILS(sendmmsg(-1, out, 1, 0), EBADF);
    FAILS(recvmmsg(-1, in, 1, 0, 0), EBADF);
}

/* A server on the any address learns which one was asked, and answers from it. */
CASE(pktinfo) {
    const char *asked[] = {"127.0.0.1", VIP, "127.0.0.1"};
    int server = bound("0.0.0.0", 5402);
    OK(set(server, IPPROTO_IP, IP_PKTINFO, 1));
    for (int i = 0; i < 3; i++) {
        struct letter letter;
        int client = toward(asked[i], 5402);
        put(client, "which?", 0);
        TEXT(receive(server, &letter, 0), "which?");
        struct in_pktinfo info;
        memcpy(&info, find(&letter, IPPROTO_IP, IP_PKTINFO), sizeof info);
        char ip[INET_ADDRSTRLEN];
        TEXT(inet_ntop(AF_INET, &info.ipi_addr, ip, sizeof ip), asked[i]);
        TEXT(inet_ntop(AF_INET, &info.ipi_spec_dst, ip, sizeof ip), asked[i]);
        CHECK(info.ipi_ifindex != 0);
        struct address to = letter.name;
        with_text(&letter, "this one", &to);
        info = (struct in_pktinfo){.ipi_spec_dst = info.ipi_addr};
        beside(&letter, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
        SAME(sendmsg(server, &letter.message, 0), 8);
        take(client, "this one");
    }
}

CASE(pktinfo_of_v6) {
    const char *asked[] = {"::1", VIP6};
    int server = bound("::", 5403);
    OK(set(server, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
    for (int i = 0; i < 2; i++) {
        struct letter letter;
        int client = toward(asked[i], 5403);
        put(client, "which?", 0);
        TEXT(receive(server, &letter, 0), "which?");
        struct in6_pktinfo info;
        memcpy(&info, find(&letter, IPPROTO_IPV6, IPV6_PKTINFO), sizeof info);
        char ip[INET6_ADDRSTRLEN];
        TEXT(inet_ntop(AF_INET6, &info.ipi6_addr, ip, sizeof ip), asked[i]);
        struct address to = letter.name;
        with_text(&letter, "this one", &to);
        info.ipi6_ifindex = 0;
        beside(&letter, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
        SAME(sendmsg(server, &letter.message, 0), 8);
        take(client, "this one");
    }
}

/* A dual-stack server sees a v4 client's question by its mapped address. */
CASE(pktinfo_of_a_mapped_client) {
    struct letter letter;
    int server = bound("::", 5404), client = toward(VIP, 5404);
    OK(set(server, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1));
    put(client, "which?", 0);
    TEXT(receive(server, &letter, 0), "which?");
    struct in6_pktinfo info;
    memcpy(&info, find(&letter, IPPROTO_IPV6, IPV6_PKTINFO), sizeof info);
    char ip[INET6_ADDRSTRLEN];
    TEXT(inet_ntop(AF_INET6, &info.ipi6_addr, ip, sizeof ip), "::ffff:" VIP);
    struct address to = letter.name;
    put(server, "this one", &to);
    take(client, "this one");
}

CASE(a_source_of_ones_own_choice) {
    struct letter letter;
    int server = bound("0.0.0.0", 0), client = bound("0.0.0.0", 0);
    struct address to = at("127.0.0.1", port_of(server)), source = at(VIP, 0);
    struct in_pktinfo info = {.ipi_spec_dst = source.in.sin_addr};
    with_text(&letter, "from my IP", &to);
    beside(&letter, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
    SAME(sendmsg(client, &letter.message, 0), 10);
    struct address from = take(server, "from my IP");
    TEXT(ip_of(&from), VIP);
    SAME(port_in(&from), port_of(client));
}

CASE(ttl_and_tos) {
    struct letter letter;
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server)), value;
    OK(set(server, IPPROTO_IP, IP_RECVTTL, 1));
    OK(set(server, IPPROTO_IP, IP_RECVTOS, 1));
    put(client, "as it is", 0);
    receive(server, &letter, 0);
    say("ttl %d", number_beside(&letter, IPPROTO_IP, IP_TTL));
    SAME(*(unsigned char *)find(&letter, IPPROTO_IP, IP_TOS), 0);
    OK(set(client, IPPROTO_IP, IP_TTL, 7));
    OK(set(client, IPPROTO_IP, IP_TOS, 0x10));
    put(client, "set", 0);
    receive(server, &letter, 0);
    SAME(number_beside(&letter, IPPROTO_IP, IP_TTL), 7);
    SAME(*(unsigned char *)find(&letter, IPPROTO_IP, IP_TOS), 0x10);
    value = 0x02; /* ECN, as QUIC sends it with each datagram */
    with_text(&letter, "for one", 0);
    beside(&letter, IPPROTO_IP, IP_TOS, &value, sizeof value);
    SAME(sendmsg(client, &letter.message, 0), 7);
    receive(server, &letter, 0);
    SAME(*(unsigned char *)find(&letter, IPPROTO_IP, IP_TOS), 2);
    value = 5;
    with_text(&letter, "for one", 0);
    beside(&letter, IPPROTO_IP, IP_TTL, &value, sizeof value);
    SAME(sendmsg(client, &letter.message, 0), 7);
    receive(server, &letter, 0);
    SAME(number_beside(&letter, IPPROTO_IP, IP_TTL), 5);
}

CASE(hop_limit_and_traffic_class) {
    struct letter letter;
    int server = bound("::1", 0), client = toward("::1", port_of(server)), value = 2;
    OK(set(server, IPPROTO_IPV6, IPV6_RECVTCLASS, 1));
    OK(set(server, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1));
    OK(set(client, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9));
    with_text(&letter, "ECN", 0);
    beside(&letter, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof value);
    SAME(sendmsg(client, &letter.message, 0), 3);
    receive(server, &letter, 0);
    SAME(number_beside(&letter, IPPROTO_IPV6, IPV6_TCLASS), 2);
    SAME(number_beside(&letter, IPPROTO_IPV6, IPV6_HOPLIMIT), 9);
}

CASE(a_time_stamp) {
    struct letter letter;
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    OK(set(server, SOL_SOCKET, SO_TIMESTAMP, 1));
    put(client, "when?", 0);
    receive(server, &letter, 0);
    struct timeval when;
    memcpy(&when, find(&letter, SOL_SOCKET, SCM_TIMESTAMP), sizeof when);
    CHECK(when.tv_sec > 1500000000);
}

CASE(no_room_beside) {
    struct letter letter;
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    OK(set(server, IPPROTO_IP, IP_PKTINFO, 1));
    put(client, "which?", 0);
    fresh(&letter)->message.msg_controllen = 4;
    SAME(recvmsg(server, &letter.message, 0), 6);
    SAME(letter.message.msg_flags, MSG_CTRUNC);
    put(client, "which?", 0);
    fresh(&letter)->message.msg_control = 0;
    letter.message.msg_controllen = 0;
    SAME(recvmsg(server, &letter.message, 0), 6);
    SAME(letter.message.msg_flags, MSG_CTRUNC);
}

CASE(nonsense_beside) {
    struct letter letter;
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1"), value = 1;
    struct address to = name_of(server);
    with_text(&letter, "x", &to);
    beside(&letter, IPPROTO_IP, 9999, &value, sizeof value);
    FAILS(sendmsg(client, &letter.message, 0), EINVAL);
    with_text(&letter, "x", &to);
    beside(&letter, IPPROTO_IP, IP_PKTINFO, &value, sizeof value); /* too short */
    FAILS(sendmsg(client, &letter.message, 0), EINVAL);
    with_text(&letter, "x", &to);
    beside(&letter, IPPROTO_IP, IP_TTL, &value, sizeof value);
    letter.first.cmsg_len = 1;
    FAILS(sendmsg(client, &letter.message, 0), EINVAL);
    with_text(&letter, "fine", &to);
    beside(&letter, 12345, 6, &value, sizeof value); /* other levels are no one's business */
    SAME(sendmsg(client, &letter.message, 0), 4);
    take(server, "fine");
}

struct extended_error { /* struct sock_extended_err of linux/errqueue.h, which musl's compiler doesn't find */
    uint32_t ee_errno;
    uint8_t ee_origin, ee_type, ee_code, ee_pad;
    uint32_t ee_info, ee_data;
};

enum { FROM_ICMP = 2, FROM_ICMP6 = 3 };

/* With IP_RECVERR an unconnected socket hears of errors, too, and of which datagram they speak. */
CASE(the_error_queue) {
    const char *ips[] = {"127.0.0.1", VIP, "::1"};
    for (int i = 0; i < 3; i++) {
        struct letter letter;
        int six = strchr(ips[i], ':') != 0, fd = udp(ips[i]);
        struct address nobody = at(ips[i], port_of_nobody(ips[i]));
        OK(set(fd, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR, 1));
        put(fd, "lost", &nobody);
        CHECK(events_of(fd, POLLIN, 5000) & POLLERR);
        FAILS(recv(fd, letter.data, 1, MSG_DONTWAIT), ECONNREFUSED);
        TEXT(receive(fd, &letter, MSG_ERRQUEUE), "lost");
        SAME(letter.message.msg_flags & MSG_ERRQUEUE, MSG_ERRQUEUE);
        TEXT(show(&letter.name), show(&nobody));
        struct extended_error error;
        memcpy(&error, find(&letter, six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVERR : IP_RECVERR), sizeof error);
        SAME(error.ee_errno, ECONNREFUSED);
        SAME(error.ee_origin, six ? FROM_ICMP6 : FROM_ICMP);
        SAME(error.ee_type, six ? 1 : 3); /* unreachable: */
        SAME(error.ee_code, six ? 4 : 3); /* its port */
        FAILS(recvmsg(fd, &fresh(&letter)->message, MSG_ERRQUEUE), EAGAIN);
        FAILS(recv(fd, letter.data, 1, MSG_DONTWAIT), EAGAIN);
    }
}

CASE(the_error_queue_of_a_connected_one) {
    struct letter letter;
    int fd = udp("127.0.0.1");
    OK(set(fd, IPPROTO_IP, IP_RECVERR, 1));
    OK(CONNECT(fd, "127.0.0.1", port_of_nobody("127.0.0.1")));
    put(fd, "lost", 0);
    CHECK(events_of(fd, POLLIN, 5000) & POLLERR);
    FAILS(send(fd, "x", 1, 0), ECONNREFUSED);
    TEXT(receive(fd, &letter, MSG_ERRQUEUE), "lost");
}

CASE(no_error_in_the_queue) {
    struct letter letter;
    FAILS(recvmsg(bound("127.0.0.1", 0), &fresh(&letter)->message, MSG_ERRQUEUE), EAGAIN);
}

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#define UDP_GRO 104
#endif

/* One call, many datagrams. */
CASE(segments) {
    struct letter letter;
    int server = bound(VIP, 0), client = toward(VIP, port_of(server));
    char data[2500], got[4096];
    for (int i = 0; i < 2500; i++) data[i] = (char)(i % 127);
    OK(set(client, IPPROTO_UDP, UDP_SEGMENT, 1000));
    SAME(send(client, data, 2500, 0), 2500);
    SAME(recv(server, got, sizeof got, 0), 1000);
    SAME(memcmp(got, data, 1000), 0);
    SAME(recv(server, got, sizeof got, 0), 1000);
    SAME(recv(server, got, sizeof got, 0), 500);
    SAME(memcmp(got, data + 2000, 500), 0);
    OK(set(client, IPPROTO_UDP, UDP_SEGMENT, 0));
    uint16_t size = 5;
    with_text(&letter, "alphabetagamm", 0);
    beside(&letter, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
    SAME(sendmsg(client, &letter.message, 0), 13);
    take(server, "alpha");
    take(server, "betag");
    take(server, "amm");
    nothing_in(server);
}

CASE(segments_of_an_unconnected_one) {
    struct letter letter;
    int server = bound(VIP, 0), client = udp(VIP);
    struct address to = name_of(server);
    uint16_t size = 5;
    with_text(&letter, "alphabetagamm", &to);
    beside(&letter, IPPROTO_UDP, UDP_SEGMENT, &size, sizeof size);
    SAME(sendmsg(client, &letter.message, 0), 13);
    take(server, "alpha");
    take(server, "betag");
    struct address from = take(server, "amm");
    SAME(port_in(&from), port_of(client));
}

/* Many datagrams, one call: with their size beside, or one at a time. */
CASE(segments_received_together) {
    int server = bound(VIP, 0), client = toward(VIP, port_of(server));
    char data[2500], got[2500];
    for (int i = 0; i < 2500; i++) data[i] = (char)(i % 127);
    OK(set(server, IPPROTO_UDP, UDP_GRO, 1));
    OK(set(client, IPPROTO_UDP, UDP_SEGMENT, 1000));
    SAME(send(client, data, 2500, 0), 2500);
    for (int filled = 0; filled < 2500;) {
        struct letter letter;
        receive(server, &letter, 0);
        struct cmsghdr *header = CMSG_FIRSTHDR(&letter.message);
        if (header) SAME(number_beside(&letter, IPPROTO_UDP, UDP_GRO), 1000);
        int size = 0, rest = 2500 - filled;
        while (size < rest && letter.data[size] == data[filled + size]) size++;
        CHECK(size == 1000 || size == rest);
        memcpy(got + filled, letter.data, (size_t)size);
        filled += size;
    }
    SAME(memcmp(got, data, 2500), 0);
}
