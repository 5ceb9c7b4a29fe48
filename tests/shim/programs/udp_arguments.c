/* Bad arguments, and the same calls by syscall(2). */
#include "udp.h"

static char *const NOWHERE = (char *)8;

CASE(bad_descriptors) {
    struct address to = at("127.0.0.1", 5601);
    struct msghdr message = {0};
    char byte;
    int file = OK(open("/dev/null", O_RDWR));
    FAILS(send(-1, "x", 1, 0), EBADF);
    FAILS(sendto(-1, "x", 1, 0, &to.any, to.size), EBADF);
    FAILS(sendmsg(-1, &message, 0), EBADF);
    FAILS(recv(-1, &byte, 1, 0), EBADF);
    FAILS(recvfrom(-1, &byte, 1, 0, &to.any, &to.size), EBADF);
    FAILS(recvmsg(-1, &message, 0), EBADF);
    FAILS(sendto(file, "x", 1, 0, &to.any, to.size), ENOTSOCK);
    FAILS(recvfrom(file, &byte, 1, 0, &to.any, &to.size), ENOTSOCK);
    FAILS(sendmsg(file, &message, 0), ENOTSOCK);
    FAILS(recvmsg(file, &message, 0), ENOTSOCK);
    FAILS(connect(file, &to.any, to.size), ENOTSOCK);
    FAILS(bind(file, &to.any, to.size), ENOTSOCK);
}

CASE(bad_destinations) {
    int fd = udp("127.0.0.1"), six = udp("::1"), server = bound("::", 0);
    struct address to = at("127.0.0.1", port_of(server)), to6 = at("::1", port_of(server)), un = {.size = sizeof un.un};
    un.un.sun_family = AF_UNIX;
    FAILS(send(fd, "x", 1, 0), EDESTADDRREQ);
    FAILS(write(fd, "x", 1), EDESTADDRREQ);
    FAILS(sendto(fd, "x", 1, 0, 0, 0), EDESTADDRREQ);
    FAILS(send(six, "x", 1, 0), EDESTADDRREQ);
    FAILS(sendto(fd, "x", 1, 0, &to.any, 8), EINVAL);
    FAILS(sendto(fd, "x", 1, 0, &to.any, 2), EINVAL);
    TELL(sendto(six, "x", 1, 0, &to6.any, 20));
    FAILS(sendto(fd, "x", 1, 0, &to6.any, to6.size), EAFNOSUPPORT);
    FAILS(sendto(fd, "x", 1, 0, &un.any, un.size), EAFNOSUPPORT);
    TELL(sendto(six, "x", 1, 0, &un.any, un.size));
    FAILS(sendto(fd, "x", 1, 0, &to.any, 1000), EINVAL);
    FAILS(sendto(fd, "x", 1, 0, &to.any, -1), EINVAL);
    to.any.sa_family = AF_UNSPEC; /* old programs: taken for AF_INET */
    TELL(sendto(fd, "unspecified", 11, 0, &to.any, to.size));
    take(server, "unspecified");
    to.any.sa_family = AF_INET;
    TELL(sendto(six, "v4 of a v6 socket", 17, 0, &to.any, to.size));
    take(server, "v4 of a v6 socket");
    nothing_in(server);
    to.in.sin_port = 0;
    FAILS(sendto(fd, "x", 1, 0, &to.any, to.size), EINVAL);
}

CASE(a_null_name_with_a_size) {
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    SAME(sendto(client, "fine", 4, 0, 0, 16), 4);
    take(server, "fine");
    struct iovec part = {"fine", 4};
    struct msghdr message = {.msg_namelen = 16, .msg_iov = &part, .msg_iovlen = 1};
    SAME(sendmsg(client, &message, 0), 4);
    take(server, "fine");
    struct address to = name_of(server);
    message = (struct msghdr){.msg_name = &to.any, .msg_iov = &part, .msg_iovlen = 1};
    SAME(sendmsg(client, &message, 0), 4); /* a name of no bytes */
    take(server, "fine");
    FAILS(sendmsg(udp("127.0.0.1"), &message, 0), EDESTADDRREQ);
}

/* These pointers are the kernel's to judge. */
CASE(bad_pointers) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server), from = {.size = sizeof from.storage};
    struct iovec part = {NOWHERE, 4};
    struct msghdr message = {.msg_name = &to.any, .msg_namelen = to.size, .msg_iov = &part, .msg_iovlen = 1};
    char byte;
    FAILS(sendto(client, NOWHERE, 4, 0, &to.any, to.size), EFAULT);
    FAILS(sendmsg(client, &message, 0), EFAULT);
    FAILS(syscall(SYS_sendmsg, client, 0, 0), EFAULT);
    FAILS(syscall(SYS_recvmsg, client, 0, MSG_DONTWAIT), EFAULT);
    FAILS(bind(client, 0, sizeof(struct sockaddr_in)), EFAULT);
    FAILS(connect(client, 0, sizeof(struct sockaddr_in)), EFAULT);
    put(client, "x", &to);
    FAILS(recvfrom(server, NOWHERE, 4, 0, &from.any, &from.size), EFAULT);
    put(client, "x", &to);
    TELL(recvfrom(server, &byte, 1, 0, &from.any, 0));
    while (recv(server, &byte, 1, MSG_DONTWAIT) == 1) continue;
    message.msg_iovlen = 5000;
    FAILS(sendmsg(client, &message, 0), EMSGSIZE);
    FAILS(getsockname(server, 0, &from.size), EFAULT);
    FAILS(getsockname(server, &from.any, 0), EFAULT);
    from.size = (socklen_t)-1;
    FAILS(getsockname(server, &from.any, &from.size), EINVAL);
    chat(client, server, &to);
}

CASE(a_little_of_the_name) {
    int server = bound("127.0.0.1", 5602), client = toward("127.0.0.1", 5602);
    struct address name = {.size = 4}, peer = {.size = 0};
    OK(getsockname(server, &name.any, &name.size));
    SAME(name.size, sizeof name.in);
    SAME(port_in(&name), 5602);
    SAME(name.in.sin_addr.s_addr, 0);
    OK(getpeername(client, &peer.any, &peer.size));
    SAME(peer.size, sizeof peer.in);
    SAME(peer.any.sa_family, 0);
}

CASE(bad_flags) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    char byte;
    TELL(sendto(client, "x", 1, 0x10000000, &to.any, to.size));
    TELL(recv(server, &byte, 1, MSG_OOB | MSG_DONTWAIT));
    TELL(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
    TELL(socket(AF_INET, SOCK_DGRAM | 0x100000, 0));
    TELL(socket(AF_INET, SOCK_DGRAM, IPPROTO_UDP));
    TELL(socket(AF_INET6, SOCK_DGRAM, IPPROTO_UDP));
    TELL(setsockopt(client, IPPROTO_UDP, 9999, &to, 4));
    TELL(setsockopt(client, SOL_SOCKET, SO_RCVBUF, &to, 1));
    TELL(getsockopt(client, SOL_SOCKET, SO_TYPE, 0, 0));
}

/* Other kinds of datagram sockets are left alone. */
CASE(not_ours) {
    int pair[2], other = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    char byte;
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    SAME(send(pair[0], "x", 1, 0), 1);
    SAME(recv(pair[1], &byte, 1, 0), 1);
    struct address un = {.size = sizeof(sa_family_t) + 10}, from = {.size = sizeof from.storage};
    un.un.sun_family = AF_UNIX;
    snprintf(un.un.sun_path + 1, 20, "udp%06d", getpid() % 1000000);
    OK(bind(other, &un.any, un.size));
    SAME(sendto(pair[0], "y", 1, MSG_DONTWAIT, 0, 0), 1);
    int third = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    SAME(sendto(third, "z", 1, 0, &un.any, un.size), 1);
    SAME(recvfrom(other, &byte, 1, 0, &from.any, &from.size), 1);
    SAME(byte, 'z');
    SAME(from.size, 0);
    int netlink = OK(socket(AF_NETLINK, SOCK_DGRAM, 0));
    struct sockaddr_storage name;
    socklen_t size = sizeof name;
    OK(getsockname(netlink, (struct sockaddr *)&name, &size));
    SAME(name.ss_family, AF_NETLINK);
}

CASE(by_syscall) {
    struct address any = at("0.0.0.0", 0), name = {.size = sizeof name.storage}, peer = name, from = name;
    int server = OK(syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0)),
        client = OK(syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0));
    int value = 0;
    socklen_t size = sizeof value;
    char got[32] = "";
    OK(syscall(SYS_bind, server, &any.any, any.size));
    OK(syscall(SYS_getsockname, server, &name.any, &name.size));
    TEXT(ip_of(&name), "0.0.0.0");
    struct address to = at(VIP, port_in(&name));
    SAME(syscall(SYS_sendto, client, "sendto", 6, 0, &to.any, to.size), 6);
    SAME(syscall(SYS_recvfrom, server, got, 32, 0, &from.any, &from.size), 6);
    TEXT(ip_of(&from), VIP);
    OK(syscall(SYS_getsockname, client, &name.any, &name.size));
    SAME(port_in(&from), port_in(&name));
    FAILS(syscall(SYS_getpeername, client, &peer.any, &peer.size), ENOTCONN);
    struct iovec part = {"sendmsg", 7}, into = {got, 32};
    struct msghdr message = {.msg_name = &from.any, .msg_namelen = from.size, .msg_iov = &part, .msg_iovlen = 1};
    SAME(syscall(SYS_sendmsg, server, &message, 0), 7);
    message =
        (struct msghdr){.msg_name = &peer.any, .msg_namelen = sizeof peer.storage, .msg_iov = &into, .msg_iovlen = 1};
    SAME(syscall(SYS_recvmsg, client, &message, 0), 7);
    TEXT(show(&peer), show(&to));
    OK(syscall(SYS_connect, client, &to.any, to.size));
    peer.size = sizeof peer.storage;
    OK(syscall(SYS_getpeername, client, &peer.any, &peer.size));
    TEXT(show(&peer), show(&to));
    SAME(syscall(SYS_sendto, client, "send", 4, 0, 0, 0), 4);
    SAME(syscall(SYS_write, client, "write", 5), 5);
    SAME(syscall(SYS_recvfrom, server, got, 32, 0, 0, 0), 4);
    SAME(syscall(SYS_read, server, got, 32), 5);
    struct mmsghdr out[2] = {{.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}},
                             {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}}};
    out[1].msg_hdr.msg_name = &to.any;
    out[1].msg_hdr.msg_namelen = to.size;
    SAME(syscall(SYS_sendmmsg, client, out, 2, 0), 2);
    struct mmsghdr in[2] = {{.msg_hdr = {.msg_iov = &into, .msg_iovlen = 1}},
                            {.msg_hdr = {.msg_iov = &into, .msg_iovlen = 1}}};
    in[1].msg_hdr.msg_name = &from.any;
    in[1].msg_hdr.msg_namelen = sizeof from.storage;
    SAME(syscall(SYS_recvmmsg, server, in, 2, 0, 0), 2);
    TEXT(ip_of(&from), VIP);
    SAME(port_in(&from), port_of(client));
    OK(syscall(SYS_getsockopt, client, SOL_SOCKET, SO_TYPE, &value, &size));
    SAME(value, SOCK_DGRAM);
    OK(syscall(SYS_shutdown, client, SHUT_RDWR));
    OK(syscall(SYS_close, client));
    FAILS(syscall(SYS_bind, server, &any.any, any.size), EINVAL);
}
