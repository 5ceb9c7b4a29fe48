/* exec HOW clean|foreign|none|same PATH ARG...: starts PATH by the function HOW with such an environment. */
#define OWN_MAIN
#include <pthread.h>
#include <spawn.h>

#include "test.h"

extern char **environ;

static char *clean[] = {"KEPT=1", "PATH=/usr/bin:/bin", 0};
static char *foreign[] = {"KEPT=1", 0, 0};
static char *none[] = {0};

static int finish(pid_t child) {
    int status;
    OK(waitpid(child, &status, 0));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static char **program, **its_environment;
static int listener;

static void *take(void *unused) {
    accept(listener, 0, 0); /* nobody comes */
    return unused;
}

static void *become(void *unused) {
    execve(program[0], program, its_environment);
    return unused;
}

/* The thread becomes the process's only one; the others have a call under way. */
static void exec_in_thread(char **args, char **env) {
    pthread_t thread;
    program = args;
    its_environment = env;
    listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 8; i++) SAME(pthread_create(&thread, 0, take, 0), 0);
    SAME(pthread_create(&thread, 0, become, 0), 0);
    SAME(pthread_join(thread, 0), 0);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const char *how = argv[1], *kind = argv[2], *path = argv[3];
    char **args = argv + 3, variable[300];
    snprintf(variable, sizeof variable, "LD_PRELOAD=%s", getenv("FOREIGN") ? getenv("FOREIGN") : "");
    foreign[1] = variable;
    char **env = !strcmp(kind, "clean")     ? clean
                 : !strcmp(kind, "foreign") ? foreign
                 : !strcmp(kind, "none")    ? none
                                            : environ;
    pid_t child = 0;
    fflush(stdout);
    if (!strcmp(how, "execve")) execve(path, args, env);
    if (!strcmp(how, "execve-null")) execve(path, args, 0);
    if (!strcmp(how, "execle")) execle(path, args[0], args[1], args[2], (char *)0, env);
    if (!strcmp(how, "execvpe")) execvpe(path, args, env);
    if (!strcmp(how, "execveat")) syscall(SYS_execveat, AT_FDCWD, path, args, env, 0);
    if (!strcmp(how, "execve-syscall")) syscall(SYS_execve, path, args, env);
    if (!strcmp(how, "thread")) exec_in_thread(args, env);
    if (!strcmp(how, "fexecve")) fexecve(OK(open(path, O_RDONLY | O_CLOEXEC)), args, env);
    if (!strcmp(how, "posix_spawn")) errno = posix_spawn(&child, path, 0, 0, args, env);
    if (!strcmp(how, "posix_spawnp")) errno = posix_spawnp(&child, path, 0, 0, args, env);
    if (!strcmp(how, "vfork")) {
        child = vfork();
        if (child == 0) {
            execve(path, args, env);
            _exit(99);
        }
    }
    if (child) return finish(child);
    environ = env;
    if (!strcmp(how, "execv")) execv(path, args);
    if (!strcmp(how, "execvp")) execvp(path, args);
    if (!strcmp(how, "execl")) execl(path, args[0], args[1], args[2], (char *)0);
    if (!strcmp(how, "execlp")) execlp(path, args[0], args[1], args[2], (char *)0);
    fail("%s: %s", how, strerror(errno));
}
