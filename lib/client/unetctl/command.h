/*
 * What unetctl's commands share: their entry points, their exit codes and how they complain. A
 * command gets the arguments behind its name and returns a code of sysexits.h; every failure prints
 * exactly one sentence to stderr.
 */
#ifndef COMMAND_H
#define COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COMMAND_ERROR_MAX 4096

int command_batch(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_predict(int argc, char **argv);
int command_watch(int argc, char **argv);
int command_stream(int argc, char **argv);
int command_status(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_devices(int argc, char **argv);
int command_check(int argc, char **argv);
int command_calibrate(int argc, char **argv);
int command_dockerize(int argc, char **argv);
int command_key(int argc, char **argv);
int command_client(int argc, char **argv);
int command_new_model(int argc, char **argv);

/* "unetctl: SENTENCE" on stderr; returns code. */
int command_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What getopt_long said no to ('?', or ':' where a value is missing), by its name; returns
 * EX_USAGE. Option strings begin with a colon for that. */
int command_bad_option(int option);

/* The code for a negative errno of a library call: -ENOENT 66, -EACCES 77, -EBADMSG 65, ... */
int command_exit_code(int rc);

/* The arguments of a command that takes one file and --json or --help. NULL with *code when the
 * command is over (help was printed, or the arguments are wrong); else the file's path. noun: what
 * the file is called in complaints. */
const char *command_one_file(int argc, char **argv, const char *noun, const char *help, bool *json,
                             int *code);

/* A whole number from low to high. False: text is none. */
bool command_parse_number(const char *text, int64_t low, int64_t high, int64_t *out);

/* Does path end in suffix (".npy"), in any case? */
bool command_has_suffix(const char *path, const char *suffix);

/* The directory that this program lies in. False: size is too small for it. */
bool command_directory(char *out, size_t size);

/* Is path a directory, or does it end as models do (.safetensors, .pth, .pt, .ckpt, .so)? */
bool command_looks_like_model(const char *path);

#endif
