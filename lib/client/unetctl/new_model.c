/*
 * unetctl new-model: the beginnings of a plugin, as files that build and pass their test: a model
 * with one declared number in and one out, a Makefile and a test that serves it.
 */
#include "command.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

static const char help_text[] =
    "usage: unetctl new-model NAME [-o DIR]\n"
    "\n"
    "Writes DIR/NAME.c, a model that computes something, DIR/Makefile and DIR/test.py, and says\n"
    "how to go on. Nothing that is there is overwritten.\n"
    "\n"
    "  NAME     of the model: a letter, then up to 30 letters, digits and _\n"
    "  -o DIR   where; it is made if need be. Default: NAME\n";

static const char model_text[] =
    "/*\n"
    " * @NAME@: {\"input\": x} -> {\"output\": x * x}, to be changed into what you need. The "
    "header\n"
    " * says what each function may do, docs/writing-a-model.md of unetserve walks through it.\n"
    " */\n"
    "#include \"unetserve/model.h\"\n"
    "\n"
    "static int describe(const struct unetserve_setup *setup, struct unetserve_interface "
    "*interface,\n"
    "                    char *error, size_t error_size)\n"
    "{\n"
    "    (void)error, (void)error_size;\n"
    "    *interface = (struct unetserve_interface){\n"
    "        .name = \"@NAME@\",\n"
    "        .version = \"1\",\n"
    "        .input_kind = UNETSERVE_DOCUMENT,\n"
    "        .output_kind = UNETSERVE_DOCUMENT,\n"
    "        .max_batch = setup->max_batch ? setup->max_batch : 8,\n"
    "        .request_field_count = 1,\n"
    "        .request_fields = {{.name = \"input\", .type = UNETSERVE_FLOAT}},\n"
    "        .response_field_count = 1,\n"
    "        .response_fields = {{.name = \"output\", .type = UNETSERVE_FLOAT}},\n"
    "    };\n"
    "    return 0;\n"
    "}\n"
    "\n"
    "/* Load weights here, from options->path, to options->device. */\n"
    "static int setup(const struct unetserve_setup *options, void **model,\n"
    "                 struct unetserve_interface *interface, char *error, size_t error_size)\n"
    "{\n"
    "    *model = (void *)options->host;\n"
    "    return describe(options, interface, error, error_size);\n"
    "}\n"
    "\n"
    "static int predict(void *model, struct unetserve_item *const *items, size_t count)\n"
    "{\n"
    "    const struct unetserve_host *host = model;\n"
    "    int failed = 0;\n"
    "    for (size_t i = 0; i < count && !failed; i++) {\n"
    "        double x = items[i]->values[0].number;\n"
    "        struct unetserve_value output = {.number = x * x};\n"
    "        failed = host->respond(host, items[i], &output);\n"
    "    }\n"
    "    return failed;\n"
    "}\n"
    "\n"
    "static void teardown(void *model)\n"
    "{\n"
    "    (void)model;\n"
    "}\n"
    "\n"
    "const struct unetserve_model_ops *unetserve_model(void)\n"
    "{\n"
    "    static const struct unetserve_model_ops ops = {\n"
    "        .abi = UNETSERVE_MODEL_ABI,\n"
    "        .size = sizeof ops,\n"
    "        .name = \"@NAME@\",\n"
    "        .describe = describe,\n"
    "        .setup = setup,\n"
    "        .predict = predict,\n"
    "        .teardown = teardown,\n"
    "    };\n"
    "    return &ops;\n"
    "}\n";

static const char makefile_text[] =
    "# make: build @NAME@.so; make test: serve it and ask; make run: serve it on port 8000.\n"
    "UNETSERVE         ?= @BIN@/unetserve\n"
    "UNETSERVE_INCLUDE ?= @INCLUDE@\n"
    "CFLAGS            ?= -O2 -g -Wall -Wextra\n"
    "\n"
    "@NAME@.so: @NAME@.c\n"
    "\t$(CC) $(CFLAGS) -I$(UNETSERVE_INCLUDE) -shared -fPIC -o $@ $< $(LDLIBS)\n"
    "\n"
    ".PHONY: test run clean\n"
    "test: @NAME@.so\n"
    "\tUNETSERVE=$(UNETSERVE) python3 test.py\n"
    "run: @NAME@.so\n"
    "\t$(UNETSERVE) --model ./@NAME@.so\n"
    "clean:\n"
    "\trm -f @NAME@.so\n";

static const char test_text[] =
    "\"\"\"Serves @NAME@.so on a free port of this machine and asks it. Needs nothing but "
    "Python.\"\"\"\n"
    "import json\n"
    "import os\n"
    "import subprocess\n"
    "import urllib.error\n"
    "import urllib.request\n"
    "\n"
    "\n"
    "def ask(url, document):\n"
    "    request = urllib.request.Request(url + \"/predict\", json.dumps(document).encode())\n"
    "    try:\n"
    "        with urllib.request.urlopen(request, timeout=60) as answer:\n"
    "            return answer.status, json.load(answer)\n"
    "    except urllib.error.HTTPError as refusal:\n"
    "        return refusal.code, json.load(refusal)\n"
    "\n"
    "\n"
    "server = subprocess.Popen([os.environ.get(\"UNETSERVE\", \"unetserve\"), \"--model\", "
    "\"./@NAME@.so\",\n"
    "                           \"--listen\", \"127.0.0.1:0\"], stdout=subprocess.PIPE, "
    "text=True)\n"
    "try:\n"
    "    ready = server.stdout.readline()\n"
    "    assert ready, \"unetserve did not start\"\n"
    "    url = ready.split()[-1]\n"
    "    assert ask(url, {\"input\": 3}) == (200, {\"output\": 9.0})\n"
    "    status, refusal = ask(url, {\"input\": \"x\"})\n"
    "    assert status == 422 and refusal[\"detail\"][0][\"loc\"] == [\"body\", \"input\"]\n"
    "    print(\"@NAME@: all well\")\n"
    "finally:\n"
    "    server.terminate()\n"
    "    server.wait(60)\n";

struct order {
    const char *name, *directory;
    char bin[PATH_MAX], include[PATH_MAX];
};

static bool name_fits(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
    size_t size = strlen(name);
    return size >= 1 && size <= 31 && strspn(name, allowed) == size &&
           strspn(name, allowed + 52) == 0;
}

/* The programs' directory, and the header's: beside it in a build tree and as installed. */
static int find_places(struct order *order)
{
    char path[PATH_MAX + 32];
    if (!command_directory(order->bin, sizeof order->bin))
        return -ENOENT;
    snprintf(path, sizeof path, "%s/../include", order->bin);
    if (!realpath(path, order->include))
        return -ENOENT;
    snprintf(path, sizeof path, "%s/unetserve/model.h", order->include);
    return access(path, R_OK) ? -ENOENT : 0;
}

static void write_filled(FILE *out, const char *text, const struct order *order)
{
    const struct {
        const char *mark, *value;
    } marks[] = {{"@NAME@", order->name}, {"@BIN@", order->bin}, {"@INCLUDE@", order->include}};
    while (*text) {
        size_t size = strcspn(text, "@");
        fwrite(text, 1, size, out);
        text += size;
        size_t i = 0;
        while (i < 3 && strncmp(text, marks[i].mark, strlen(marks[i].mark)) != 0)
            i++;
        if (i < 3) {
            fputs(marks[i].value, out);
            text += strlen(marks[i].mark);
        } else if (*text) {
            fputc(*text++, out);
        }
    }
}

static int write_file(const struct order *order, const char *name, const char *text)
{
    char path[PATH_MAX];
    int size = snprintf(path, sizeof path, "%s/%s", order->directory, name);
    if (size < 0 || (size_t)size >= sizeof path)
        return command_fail(EX_USAGE, "the path is too long");
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *out = fd < 0 ? NULL : fdopen(fd, "w");
    if (!out) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return command_fail(EX_CANTCREAT, "%s: %s", path, strerror(error));
    }
    write_filled(out, text, order);
    bool failed = ferror(out);
    if (fclose(out) || failed)
        return command_fail(EX_IOERR, "%s could not be written", path);
    return EX_OK;
}

static int parse(int argc, char **argv, struct order *order)
{
    static const struct option long_options[] = {{"output", required_argument, NULL, 'o'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":o:h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help_text, stdout);
            return -1;
        }
        if (option != 'o')
            return command_bad_option(option);
        order->directory = optarg;
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "new-model takes one name, %d were given", argc - optind);
    order->name = argv[optind];
    if (!name_fits(order->name))
        return command_fail(EX_USAGE,
                            "'%s' is no name for a model: a letter, then up to 30 letters, digits "
                            "and _",
                            order->name);
    if (!order->directory)
        order->directory = order->name;
    return EX_OK;
}

int command_new_model(int argc, char **argv)
{
    struct order order = {.name = NULL};
    char source[64];
    int code = parse(argc, argv, &order);
    if (code)
        return code < 0 ? EX_OK : code;
    if (find_places(&order))
        return command_fail(EX_NOINPUT, "the header unetserve/model.h is not beside this program");
    if (mkdir(order.directory, 0777) && errno != EEXIST)
        return command_fail(EX_CANTCREAT, "%s: %s", order.directory, strerror(errno));
    snprintf(source, sizeof source, "%s.c", order.name);
    code = write_file(&order, source, model_text);
    if (!code)
        code = write_file(&order, "Makefile", makefile_text);
    if (!code)
        code = write_file(&order, "test.py", test_text);
    if (!code)
        printf("%s/%s, Makefile and test.py are written. Next:\n\n    make -C %s test\n",
               order.directory, source, order.directory);
    return code;
}
