/* exec and posix_spawn: a program that gives its child a clean environment would lose the preload, so what is missing
 * is put back (settings.h). Everything is on the stack: a vfork child writes to nothing else.
 *
 * execve(2) and its kin are raw calls; execvp searches PATH as exec(3) says. posix_spawn is libc's own: found by a weak
 * dlsym, which each libc that has posix_spawn has, too.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>

#include "exec.h"
#include "hand_on.h"
#include "hooks.h"
#include "landing/landing.h"
#include "memory.h"
#include "settings.h"
#include "sys.h"

extern char **environ __attribute__((weak));
extern void *dlsym(void *handle, const char *name) __attribute__((weak));

enum { PATH_SIZE = 4096 };

#define WITH_KEPT_ENVIRONMENT(given, name)    \
    char name##_preload[AS_PRELOAD_SIZE];     \
    char *name[kept_environment_size(given)]; \
    kept_environment(given, name, name##_preload)

static char *const *current_environment(void) {
    return &environ ? environ : 0;
}

/* Runs `program` by the tracer: a path, or as `name_descriptor` says. */
#define WITH_TRACER(program, given, name)  \
    char *name[argument_count(given) + 4]; \
    traced_arguments(program, given, name)

static size_t argument_count(char *const argv[]) {
    size_t count = 0;
    while (argv && argv[count]) count++;
    return count;
}

/* A program has at least one argument: its name. */
static void traced_arguments(const char *program, char *const argv[], char *out[]) {
    size_t count = argument_count(argv);
    out[0] = (char *)get_settings()->tracer;
    out[1] = (char *)program;
    out[2] = "";
    for (size_t i = 0; i < count; i++) out[i + 2] = argv[i];
    out[count ? count + 2 : 3] = 0;
}

static char *name_descriptor(const char *kind, int fd, char name[32]) {
    size_t size = as_strlen(kind);
    memcpy(name, kind, size);
    write_number(name + size, (unsigned)fd);
    return name;
}

/* In a chroot the tracer isn't there by its path. */
static void try_by_tracer(const char *program, char *const argv[], char *const kept[]) {
    char name[32];
    WITH_TRACER(program, argv, traced);
    sys3(SYS_execve, traced[0], traced, kept);
    int home = open_tracer_home();
    if (home < 0) return;
    traced[0] = name_descriptor(AS_TRACER_HOME, home, name);
    sys5(SYS_execveat, home, "appswitch-tracer", traced, kept, 0);
    sys1(SYS_close, home);
}

static void try_descriptor_by_tracer(int fd, char *const argv[], char *const kept[]) {
    char name[32];
    if (fd < 0) return;
    try_by_tracer(name_descriptor(AS_TRACED_FD, fd, name), argv, kept);
    sys1(SYS_close, fd);
}

long do_execve(const char *path, char *const argv[], char *const envp[]) {
    if (envp && !can_read(envp, sizeof *envp)) return sys3(SYS_execve, path, argv, envp);
    WITH_KEPT_ENVIRONMENT(envp, kept);
    if (!needs_tracer(path)) return sys3(SYS_execve, path, argv, kept);
    int fd = open_for_tracer(AT_FDCWD, path, 0);
    if (fd < 0)
        try_by_tracer(path, argv, kept);
    else
        try_descriptor_by_tracer(fd, argv, kept);
    return sys3(SYS_execve, path, argv, kept);
}

long do_execveat(int directory, const char *path, char *const argv[], char *const envp[], int flags) {
    int is_path = !flags && (directory == AT_FDCWD || (path && *path == '/'));
    if (is_path) return do_execve(path, argv, envp);
    if (envp && !can_read(envp, sizeof *envp)) return sys5(SYS_execveat, directory, path, argv, envp, flags);
    WITH_KEPT_ENVIRONMENT(envp, kept);
    try_descriptor_by_tracer(open_for_tracer(directory, path, flags), argv, kept);
    return sys5(SYS_execveat, directory, path, argv, kept, flags);
}

static const char *search_path(void) {
    char *const *env = current_environment();
    for (; env && *env; env++)
        if (starts_with(*env, "PATH=")) return *env + 5;
    return "/bin:/usr/bin";
}

static int has_slash(const char *file) {
    for (; *file; file++)
        if (*file == '/') return 1;
    return 0;
}

/* A file without #! is a script of the shell's (exec(3)). */
static long exec_or_script(const char *path, char *const argv[], char *const envp[]) {
    long error = do_execve(path, argv, envp);
    if (error != -ENOEXEC) return error;
    size_t count = argument_count(argv);
    char *script[count + 3];
    script[0] = "/bin/sh";
    script[1] = (char *)path;
    for (size_t i = 1; i <= count; i++) script[i + 1] = argv[i];
    if (count == 0) script[2] = 0;
    return do_execve("/bin/sh", script, envp);
}

/* One of the paths that `file` may mean, as PATH has them: at *start; it is left at the next, or 0 after the last. */
static int next_path(const char **start, const char *file, char path[PATH_SIZE]) {
    const char *end = *start;
    size_t file_size = as_strlen(file) + 1;
    while (*end && *end != ':') end++;
    size_t size = (size_t)(end - *start);
    int fits = size + 1 + file_size <= PATH_SIZE;
    if (fits) {
        memcpy(path, *start, size);
        if (size) path[size++] = '/';
        memcpy(path + size, file, file_size);
    }
    *start = *end ? end + 1 : 0;
    return fits;
}

static long do_execvpe(const char *file, char *const argv[], char *const envp[]) {
    char path[PATH_SIZE];
    long error = -ENOENT;
    if (!*file) return -ENOENT;
    if (as_strlen(file) > 255 /* NAME_MAX */ && !has_slash(file)) return -ENAMETOOLONG;
    if (has_slash(file)) return exec_or_script(file, argv, envp);
    for (const char *start = search_path(); start;) {
        if (!next_path(&start, file, path)) continue;
        long tried = exec_or_script(path, argv, envp);
        if (tried == -EACCES)
            error = tried; /* told only when no other directory has it */
        else if (tried != -ENOENT && tried != -ENOTDIR && tried != -ESTALE && tried != -ENODEV)
            return tried;
    }
    return error;
}

HOOK int execve(const char *path, char *const argv[], char *const envp[]) {
    return (int)result(do_execve(path, argv, envp));
}

HOOK int execv(const char *path, char *const argv[]) {
    return (int)result(do_execve(path, argv, current_environment()));
}

HOOK int execvp(const char *file, char *const argv[]) {
    return (int)result(do_execvpe(file, argv, current_environment()));
}

HOOK int execvpe(const char *file, char *const argv[], char *const envp[]) {
    return (int)result(do_execvpe(file, argv, envp));
}

HOOK int execveat(int directory, const char *path, char *const argv[], char *const envp[], int flags) {
    return (int)result(do_execveat(directory, path, argv, envp, flags));
}

HOOK int fexecve(int fd, char *const argv[], char *const envp[]) {
    return (int)result(do_execveat(fd, "", argv, envp, AT_EMPTY_PATH));
}

static size_t count_arguments(va_list list) {
    size_t count = 1;
    while (va_arg(list, char *)) count++;
    return count;
}

/* The arguments of an execl kin as argv; `list` is left after the NULL that ends them. */
#define COLLECT_ARGUMENTS(first, list, argv) \
    va_start(list, first);                   \
    char *argv[count_arguments(list) + 1];   \
    va_end(list);                            \
    va_start(list, first);                   \
    argv[0] = (char *)first;                 \
    for (size_t i = 1; (argv[i] = va_arg(list, char *)); i++)

HOOK int execl(const char *path, const char *arg, ...) {
    va_list list;
    COLLECT_ARGUMENTS(arg, list, argv);
    va_end(list);
    return (int)result(do_execve(path, argv, current_environment()));
}

HOOK int execlp(const char *file, const char *arg, ...) {
    va_list list;
    COLLECT_ARGUMENTS(arg, list, argv);
    va_end(list);
    return (int)result(do_execvpe(file, argv, current_environment()));
}

HOOK int execle(const char *path, const char *arg, ...) {
    va_list list;
    COLLECT_ARGUMENTS(arg, list, argv);
    char *const *envp = va_arg(list, char *const *);
    va_end(list);
    return (int)result(do_execve(path, argv, envp));
}

typedef int spawn_function(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
                           char *const[], char *const[]);

static int spawn_by(const char *name, pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                    const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
    spawn_function *real = dlsym ? (spawn_function *)dlsym((void *)-1L /* RTLD_NEXT */, name) : 0;
    if (!real) return ENOSYS;
    WITH_KEPT_ENVIRONMENT(envp, kept);
    if (needs_tracer(file) && is_tracer_there()) { /* else libc's exec, which is trapped, hands it on */
        WITH_TRACER(file, argv, traced);
        return real(pid, traced[0], actions, attributes, traced, kept);
    }
    return real(pid, file, actions, attributes, argv, kept);
}

HOOK int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                     const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
    return spawn_by("posix_spawn", pid, path, actions, attributes, argv, envp);
}

HOOK int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                      const posix_spawnattr_t *attributes, char *const argv[], char *const envp[]) {
    char path[PATH_SIZE];
    for (const char *start = has_slash(file) ? 0 : search_path(); start;)
        if (next_path(&start, file, path) && needs_tracer(path))
            return spawn_by("posix_spawn", pid, path, actions, attributes, argv, envp);
    return spawn_by("posix_spawnp", pid, file, actions, attributes, argv, envp);
}
