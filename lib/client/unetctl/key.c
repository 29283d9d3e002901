/*
 * unetctl key: a new API key. Its line, which holds no secret, goes to standard output, to be added
 * to api_key_file; the key itself is shown once, on standard error.
 */
#include "command.h"

#include "lib/api_key_line.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const char help_text[] =
    "usage: unetctl key NAME [--rate R] [--burst N] [--models NAME,NAME...] [--priority P]\n"
    "\n"
    "  Makes an API key. Prints a line for api_key_file to standard output (it holds no secret), "
    "and "
    "the key, which is kept nowhere, to standard error:\n"
    "\n"
    "      unetctl key alice >> /etc/unetserve/keys\n"
    "\n"
    "  NAME        whose key it is; keys of one name are one client, as far as rates go\n"
    "  --rate R    predictions a second, instead of rate_limit; 0: no limit\n"
    "  --burst N   how many at once, instead of rate_burst; with --rate\n"
    "  --models    the models that it opens; all of them without this\n"
    "  --priority  1 to 9: how high its requests may set X-Unetserve-Priority; 0 without this\n";

struct wishes {
    const char *name, *rate, *burst, *models, *priority;
};

static int parse(int argc, char **argv, struct wishes *out, bool *over)
{
    static const struct option long_options[] = {
        {"rate", required_argument, NULL, 'r'},   {"burst", required_argument, NULL, 'b'},
        {"models", required_argument, NULL, 'm'}, {"priority", required_argument, NULL, 'p'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        switch (option) {
        case 'r': out->rate = optarg; break;
        case 'b': out->burst = optarg; break;
        case 'm': out->models = optarg; break;
        case 'p': out->priority = optarg; break;
        case 'h':
            fputs(help_text, stdout);
            *over = true;
            return EX_OK;
        default: return command_bad_option(option);
        }
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "key takes one name, %d were given", argc - optind);
    out->name = argv[optind];
    if (!api_key_name_fits(out->name))
        return command_fail(EX_USAGE, "'%s': a key's name has up to 63 letters, digits and ._-@",
                            out->name);
    return EX_OK;
}

static bool add(char *line, const char *option, const char *value)
{
    size_t used = strlen(line);
    int added = value ? snprintf(line + used, API_KEY_LINE_MAX - used, " %s=%s", option, value) : 0;
    return added >= 0 && (size_t)added < API_KEY_LINE_MAX - used;
}

int command_key(int argc, char **argv)
{
    struct wishes wishes = {.name = NULL};
    bool over = false;
    char key[API_KEY_TEXT_MAX];
    char line[API_KEY_LINE_MAX];
    int code = parse(argc, argv, &wishes, &over);
    if (code || over)
        return code;
    if (api_key_make(wishes.name, key, line))
        return command_fail(EX_OSERR, "there are no random bytes to make a key of");
    struct api_key made;
    const char *why = "the line is too long";
    if (!add(line, "rate", wishes.rate) || !add(line, "burst", wishes.burst) ||
        !add(line, "models", wishes.models) || !add(line, "priority", wishes.priority) ||
        strpbrk(line, "\r\n") || api_key_line_read(line, &made, &why))
        return command_fail(EX_USAGE, "%s", why);
    puts(line);
    fprintf(stderr, "%s\n", key);
    return EX_OK;
}
