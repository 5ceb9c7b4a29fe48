/* syscall(2), as libuv and others use it: the same answers as from the functions. */
#include "test.h"

CASE(a_whole_connection) {
    struct address any = at("127.0.0.1", 0), name = {.size = sizeof name.storage}, peer = name, got = name;
    int listener = OK(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)), on = 1, value = 0;
    socklen_t size = sizeof value;
    OK(syscall(SYS_setsockopt, listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    OK(syscall(SYS_bind, listener, &any.any, any.size));
    OK(syscall(SYS_listen, listener, 5));
    OK(syscall(SYS_getsockname, listener, &name.any, &name.size));
    TEXT(ip_of(&name), "127.0.0.1");
    CHECK(port_in(&name) != 0);
    for (int i = 0; i < 4; i++) {
        int client = OK(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
        OK(syscall(SYS_connect, client, &name.any, name.size));
        int server = OK(i % 2 ? syscall(SYS_accept4, listener, &got.any, &got.size, SOCK_CLOEXEC)
                              : syscall(SYS_accept, listener, &got.any, &got.size));
        SAME(OK(fcntl(server, F_GETFD)), i % 2 ? FD_CLOEXEC : 0);
        OK(syscall(SYS_getpeername, server, &peer.any, &peer.size));
        TEXT(show(&peer), show(&got));
        OK(syscall(SYS_getpeername, client, &peer.any, &peer.size));
        TEXT(show(&peer), show(&name));
        OK(syscall(SYS_setsockopt, client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
        OK(syscall(SYS_getsockopt, client, IPPROTO_TCP, TCP_NODELAY, &value, &size));
        SAME(value, 1);
        talk(client, server);
        SAME(syscall(SYS_sendto, client, "hello", 5, 0, 0, 0), 5);
        char bytes[5];
        SAME(syscall(SYS_recvfrom, server, bytes, 5, MSG_WAITALL, 0, 0), 5);
        OK(syscall(SYS_close, client));
        OK(syscall(SYS_close, server));
    }
}

CASE(sendto_with_an_address_and_recvfrom_with_room_for_one) {
    struct pair pair = connected("127.0.0.1");
    struct address to = peer_of(pair.client), from = {.size = sizeof from.storage};
    char bytes[5];
    SAME(syscall(SYS_sendto, pair.client, "hello", 5, 0, &to.any, to.size), 5);
    SAME(syscall(SYS_recvfrom, pair.server, bytes, 5, MSG_WAITALL, &from.any, &from.size), 5);
    SAME(from.size, 0);
}

CASE(sendmsg_with_an_address) {
    struct pair pair = connected("127.0.0.1");
    struct address to = peer_of(pair.client);
    struct iovec part = {"hello", 5};
    struct msghdr message = {.msg_name = &to.any, .msg_namelen = to.size, .msg_iov = &part, .msg_iovlen = 1};
    SAME(syscall(SYS_sendmsg, pair.client, &message, 0), 5);
    char bytes[5];
    part = (struct iovec){bytes, 5};
    message.msg_namelen = to.size;
    SAME(syscall(SYS_recvmsg, pair.server, &message, MSG_WAITALL), 5);
    SAME(message.msg_namelen, 0);
}

CASE(shutdown_and_the_end) {
    struct pair pair = connected("127.0.0.1");
    OK(syscall(SYS_shutdown, pair.client, SHUT_WR));
    close(pair.server);
    FAILS(syscall(SYS_sendto, pair.client, "x", 1, MSG_NOSIGNAL, 0, 0), EPIPE);
}

CASE(epoll_before_connect) {
    int epoll = OK(syscall(SYS_epoll_create1, 0)), listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    struct epoll_event event = {.events = EPOLLOUT, .data.u64 = 42}, got = {0};
    struct address to = at("127.0.0.1", port_of(listener));
    OK(syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, client, &event));
    OK(syscall(SYS_connect, client, &to.any, to.size));
    SAME(epoll_wait(epoll, &got, 1, 5000), 1);
    SAME(got.events, EPOLLOUT);
    SAME(got.data.u64, 42);
    OK(syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_DEL, client, 0));
}

CASE(others_pass) {
    SAME(syscall(SYS_getpid), getpid());
    FAILS(syscall(SYS_close, -1), EBADF);
    FAILS(syscall(100000), ENOSYS);
    FAILS(syscall(SYS_connect, -1, 0, 0), EBADF);
    FAILS(syscall(SYS_accept, -1, 0, 0), EBADF);
    FAILS(syscall(SYS_openat, AT_FDCWD, "/nothing/there", O_RDONLY, 0), ENOENT);
    int fd = OK(syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDONLY, 0));
    SAME(syscall(SYS_lseek, fd, 0, SEEK_SET), 0);
    void *page = (void *)syscall(SYS_mmap, 0, 4096, 3, 0x22, -1, 0); /* six arguments */
    CHECK(page != (void *)-1);
    *(int *)page = 7;
    SAME(syscall(SYS_munmap, page, 4096), 0);
}
