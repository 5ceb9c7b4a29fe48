/* exec with what each program must keep of its environment. -errno, if it returns. */
#ifndef APPSWITCH_EXEC_H
#define APPSWITCH_EXEC_H

long do_execve(const char *path, char *const argv[], char *const envp[]);
long do_execveat(int directory, const char *path, char *const argv[], char *const envp[], int flags);

#endif
