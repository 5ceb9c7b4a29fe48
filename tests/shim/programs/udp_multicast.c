/* Multicast over loopback, as a program has it with itself (mDNS responders, cluster software in tests). */
#include <net/if.h>

#include "udp.h"

#define GROUP "239.7.7.7"
#define GROUP6 "ff02::7777"

static int member(int port) {
    int fd = udp("0.0.0.0");
    struct ip_mreqn join = {.imr_ifindex = (int)if_nametoindex("lo")};
    inet_pton(AF_INET, GROUP, &join.imr_multiaddr);
    OK(set(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(fd, "0.0.0.0", port));
    OK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join));
    return fd;
}

CASE(a_group) {
    int one = member(5701), other = member(5701), sender = udp("127.0.0.1");
    struct ip_mreqn out = {.imr_ifindex = (int)if_nametoindex("lo")};
    OK(setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &out, sizeof out));
    struct address to = at(GROUP, 5701);
    put(sender, "to all", &to);
    struct address from = take(one, "to all");
    take(other, "to all");
    SAME(port_in(&from), port_of(sender));
    put(one, "to you", &from); /* an answer to the one who asked */
    take(sender, "to you");
    inet_pton(AF_INET, GROUP, &out.imr_multiaddr);
    OK(setsockopt(one, IPPROTO_IP, IP_DROP_MEMBERSHIP, &out, sizeof out));
    FAILS(setsockopt(one, IPPROTO_IP, IP_DROP_MEMBERSHIP, &out, sizeof out), EADDRNOTAVAIL);
}

CASE(a_group_of_v6) {
    int one = udp("::"), sender = udp("::1");
    unsigned lo = if_nametoindex("lo");
    struct ipv6_mreq join = {.ipv6mr_interface = lo};
    inet_pton(AF_INET6, GROUP6, &join.ipv6mr_multiaddr);
    OK(BIND(one, "::", 5702));
    OK(setsockopt(one, IPPROTO_IPV6, IPV6_JOIN_GROUP, &join, sizeof join));
    OK(setsockopt(sender, IPPROTO_IPV6, IPV6_MULTICAST_IF, &lo, sizeof lo));
    FAILS(setsockopt(one, IPPROTO_IPV6, IPV6_JOIN_GROUP, &join, sizeof join), EADDRINUSE);
    OK(setsockopt(one, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &join, sizeof join));
}

CASE(a_socket_bound_to_the_group) {
    int fd = udp(GROUP), sender = udp("127.0.0.1");
    struct ip_mreqn join = {.imr_ifindex = (int)if_nametoindex("lo")};
    inet_pton(AF_INET, GROUP, &join.imr_multiaddr);
    OK(BIND(fd, GROUP, 5703));
    struct address name = name_of(fd), to = at(GROUP, 5703), loopback = at("127.0.0.1", 5703);
    TEXT(show(&name), GROUP ":5703");
    OK(setsockopt(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &join, sizeof join));
    OK(setsockopt(sender, IPPROTO_IP, IP_MULTICAST_IF, &join, sizeof join));
    put(sender, "not to the group", &loopback);
    put(sender, "to the group", &to);
    take(fd, "to the group");
    nothing_in(fd);
}

CASE(a_broadcast_needs_a_permission) {
    int fd = udp("127.0.0.1");
    struct address to = at("127.255.255.255", 5704);
    FAILS(sendto(fd, "x", 1, 0, &to.any, to.size), EACCES);
    OK(set(fd, SOL_SOCKET, SO_BROADCAST, 1));
    TELL(sendto(fd, "x", 1, 0, &to.any, to.size));
}
