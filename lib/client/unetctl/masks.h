/*
 * What batch, watch and stream do alike: the options that say how tiles become masks, one tile's
 * file in and its mask's file out, and what is told about it.
 */
#ifndef MASKS_H
#define MASKS_H

#include "server.h"
#include "windows.h"

#include <getopt.h>

#define MASKS_PATH_MAX 4096
#define MASKS_JOBS_MAX 256

struct masks_options {
    struct server_options server;
    const char *output; /* directory of the masks */
    const char *format;
    int offset;
    unsigned window;
    unsigned jobs; /* 0: as the server has workers */
    bool codes, force, json;
};

enum {
    MASKS_URL = 256,
    MASKS_ENDPOINT,
    MASKS_MODEL,
    MASKS_FORMAT,
    MASKS_OFFSET,
    MASKS_WINDOW,
    MASKS_CODES,
    MASKS_FORCE,
    MASKS_JOBS,
    MASKS_TIMEOUT,
    MASKS_PATIENCE,
    MASKS_PRIORITY,
    MASKS_JSON,
    MASKS_OWN /* the first of a command's own options */
};

/* Rows for getopt_long's table. */
/* clang-format off */
#define MASKS_LONG_OPTIONS                                  \
    {"output", required_argument, NULL, 'o'},               \
    {"url", required_argument, NULL, MASKS_URL},            \
    {"endpoint", required_argument, NULL, MASKS_ENDPOINT},  \
    {"model", required_argument, NULL, MASKS_MODEL},        \
    {"format", required_argument, NULL, MASKS_FORMAT},      \
    {"offset", required_argument, NULL, MASKS_OFFSET},      \
    {"window", required_argument, NULL, MASKS_WINDOW},      \
    {"codes", no_argument, NULL, MASKS_CODES},              \
    {"jobs", required_argument, NULL, MASKS_JOBS},          \
    {"timeout", required_argument, NULL, MASKS_TIMEOUT},    \
    {"patience", required_argument, NULL, MASKS_PATIENCE}, \
    {"priority", required_argument, NULL, MASKS_PRIORITY},  \
    {"help", no_argument, NULL, 'h'}
/* clang-format on */

/* The same in a command's help. */
#define MASKS_HELP                                                                                 \
    "      --url URL       over HTTP: http://HOST:PORT[/ROUTE]\n"                                  \
    "      --endpoint ADR  over ZeroMQ: ipc://PATH; default: the one unetserve running here\n"     \
    "      --model NAME    which model, where several are served (ZeroMQ)\n"                       \
    "      --format F      tif (default), npy or png\n"                                            \
    "      --offset N      add N to every value first\n"                                           \
    "      --window N      cut scenes larger than N x N into overlapping windows (512; 0: "        \
    "never)\n"                                                                                     \
    "      --codes         write the classes' codes instead of 0, 1, 2... (npy, tif)\n"            \
    "      --jobs N        how many in flight (two for each of the server's workers, else 4)\n"    \
    "      --timeout MS    wait that long for an answer (30000)\n"                                 \
    "      --patience MS   wait that long in all where the server is too busy (60000)\n"           \
    "      --priority N    -9 to 9: how soon, of what waits there (0; over HTTP)\n"

struct masks_options masks_defaults(void);

/* Set by SIGINT and SIGTERM once they are caught: finish what is in flight and end. A second signal
 * ends the program at once. */
extern atomic_bool masks_stop;
void masks_catch_signals(void);

/* One of the options above. -1: go on; else the exit code, after a sentence or the help. */
int masks_take_option(struct masks_options *options, const char *help, int option);

/* After the last option. -1 or the exit code, likewise. */
int masks_check_options(const struct masks_options *options);

/* Make the output directory if need be, and look that it is not the input's. -1 or the exit code.
 * */
int masks_open_output(const char *output, const char *input);

/* Does it end as tiles do? */
bool masks_is_tile(const char *path);

/* Ask once what the classes are and how many jobs are worth having in flight; that tells, too, that
 * there is somebody. -1 or the exit code. */
int masks_meet_server(const struct masks_options *options, struct unetserve_interface *legend,
                      unsigned *jobs);

struct masks_one {
    const char *input; /* the tile's file */
    const char *name;  /* below the output directory, the tile's whole name */
    bool watched; /* the mask must be newer than the tile's last change of any kind (a rename) */
};

/* A mask gets its name when it is whole. 1: it is there already, and is not older than the tile; 0:
 * done, with *requests; negative with a sentence. */
int masks_run(const struct masks_options *options, const struct unetserve_interface *legend,
              struct server *server, const struct masks_one *one, unsigned *requests, char *error,
              size_t error_size);

/* A tile's mask by these options: offset, hidden pixels, windows. As windows_predict. */
int masks_predict(const struct masks_options *options, struct server *server, struct image *image,
                  struct windows_result *out, char *error, size_t error_size);

/* {"file", "state": "done" | "skipped" | "failed", "error"} and a line's end; free it. NULL: no
 * memory. */
char *masks_json_line(const char *name, int rc, const char *error);

/* That line on standard output. */
void masks_tell_json(const char *name, int rc, const char *error);

#endif
